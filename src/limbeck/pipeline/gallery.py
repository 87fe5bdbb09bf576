"""gallery: an index page of reports, with a copy of each beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline.compare import read_run, run_names
from limbeck.pipeline.run import run_recipe
from limbeck.report.facts import section
from limbeck.report.gallery import Entry, entry, write_gallery
from limbeck.report.render import write_report


def gallery(folder: Path, sources: Sequence[Path], *, language: str | None = None) -> Path:
    """Write the gallery of some runs.

    A recipe in place of a run is run first, or brought up to date. Reports are written anew into the gallery, from
    what the runs recorded, so that the folder can be copied anywhere.

    Args:
        folder: of the gallery.
        sources: folders of finished runs, or recipes; none of them: every run with a report in the folder `runs`.
        language: of the index page; left out: that of the first report.

    Returns:
        The index page.

    Raises:
        RecipeError: no run is given, or one of them twice.
        ArtifactError: a run is not finished.
    """
    given = sources or sorted(report.parent for report in Path("runs").glob("*/report"))
    runs = [run_recipe(load_recipe(source)).output if source.is_file() else source for source in given]
    if not runs or len({run.resolve() for run in runs}) < len(runs):
        raise RecipeError("a gallery needs runs, each of them once", got=", ".join(map(str, runs)) or "none")
    entries: list[Entry] = []
    for name, run in zip(run_names(runs), runs, strict=True):
        if not (run / "report").is_dir():
            raise ArtifactError(f"{run} has no report", fix="limbeck run")
        facts, own = read_run(run), name.strip("/").replace("/", "-")
        write_report(facts, folder / own)
        entries.append(entry(facts, f"{quote(own)}/index.html"))
        chosen = section(facts.recipe, "report").get("language") or "en"
        language = language or chosen
    return write_gallery(entries, folder, language or "en")
