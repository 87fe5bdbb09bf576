"""Facts in, two files out: index.html for people, report.md for pull requests and model cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limbeck.core.artifacts import write_atomically
from limbeck.report import method, tables
from limbeck.report.cards import cards
from limbeck.report.curves import validation_score
from limbeck.report.facts import Facts
from limbeck.report.headline import headline
from limbeck.report.plots import plots

if TYPE_CHECKING:
    from jinja2 import Environment


def write_report(facts: Facts, folder: Path) -> list[Path]:
    """Write the report of a run.

    The page needs nothing but itself: no network, no script. The same facts give the same bytes.

    Args:
        facts: what the run recorded.
        folder: where to; it is made if it is not there.

    Returns:
        The files, `index.html` and `report.md`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    view = _view(facts)
    page, summary = folder / "index.html", folder / "report.md"
    write_atomically(page, _environment(html=True).get_template("page.html.j2").render(view))
    write_atomically(summary, _environment(html=False).get_template("summary.md.j2").render(view))
    return [page, summary]


def _environment(html: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("limbeck", "report"),
        autoescape=html,
        finalize=None if html else escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def escape_markdown(value: object) -> object:
    """Text that Markdown shows as it is: no tag, link, emphasis, code or new table cell comes of it."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split("\n"))
    return re.sub(r"([\\`*<|]|\](?=[(\[:]))", r"\\\1", text).replace("&", "&amp;")


def _view(facts: Facts) -> dict[str, Any]:
    """Everything that the templates show."""
    about = method.about(facts)
    return {
        "title": facts.title,
        "headline": headline(facts),
        "where": method.where_from(facts),
        "caution": method.caution(facts),
        "about": about,
        "cards": cards(facts),
        "scores": tables.scores(facts),
        "comparisons": tables.comparisons(facts),
        "efficiency": tables.efficiency(facts),
        "plots": plots(facts),
        "training": tables.training(facts, validation_score(facts)),
        "counts": tables.counts(facts.manifests),
        "notes": tables.notes(facts.manifests),
        "method": method.method(facts),
        "lineage": tables.lineage(facts.manifests),
        "versions": tables.versions(facts.manifests),
        "limbeck": _limbeck(facts.manifests),
        "recipe": yaml.safe_dump(dict(facts.recipe), sort_keys=False, allow_unicode=True, width=100)
        if facts.recipe
        else "",
        "style": _style(),
    }


def _limbeck(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The version that took the scores, as recorded, not the one that prints them."""
    found = [str(m["versions"]["limbeck"]) for m in manifests.values() if "limbeck" in (m.get("versions") or {})]
    return found[-1] if found else ""


def _style() -> str:
    return files("limbeck.report").joinpath("page.css").read_text(encoding="utf-8")
