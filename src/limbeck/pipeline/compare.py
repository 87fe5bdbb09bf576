"""compare: several finished runs on one page, their students in twos on the rows that both answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.core.artifacts import Artifact, read_manifest
from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.evaluation.predictions import Predictions, read
from limbeck.evaluation.statistics import difference, holm, interval, mcnemar
from limbeck.pipeline.report import facts_of
from limbeck.report.comparison import comparison_headline, together
from limbeck.report.examples import SHOWN
from limbeck.report.facts import Facts, section
from limbeck.report.render import write_comparison

_STEPS = ("prepare", "generate", "cache", "train", "baseline", "compress", "evaluate")


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        files: `index.html`, `report.md` and `report.json`.
        headline: in a sentence.
        facts: of all runs together.
    """

    files: list[Path]
    headline: str
    facts: Facts


def compare(runs: Sequence[Path], output: Path, *, title: str | None = None, language: str | None = None) -> Comparison:
    """Write one report of several runs.

    Args:
        runs: folders of finished runs.
        output: folder of the report.
        title: of the page; left out: the runs by name.
        language: of the page, `en` or `zh`; left out: that of the first run's recipe.

    Raises:
        RecipeError: fewer than two runs, or one of them twice.
        ArtifactError: a run has not been evaluated.
    """
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise RecipeError("several runs are needed to compare", got=", ".join(map(str, runs)), allowed="2 or more")
    named = dict(zip(run_names(runs), runs, strict=True))
    found = {name: read_run(run) for name, run in named.items()}
    first = next(iter(found.values())).recipe
    tables = {name: read(run / "evaluate" / "predictions-student.parquet").first for name, run in named.items()}
    chosen = language or section(first, "report").get("language") or "en"
    details = {"paired": _paired(tables, section(first, "evaluate")), "differing": _differing(tables)}
    facts = together(found, title or " · ".join(found), chosen, details)
    said = comparison_headline(facts)
    return Comparison(write_comparison(facts, said, output), said, facts)


def read_run(run: Path) -> Facts:
    """The facts of a finished run, read from its folder.

    Raises:
        ArtifactError: it has not been evaluated, or its recipe is missing.
    """
    made = {s: Artifact(run / s, read_manifest(run / s)) for s in _STEPS if (run / s / "manifest.json").is_file()}
    recipe = run / "recipe.json"
    if not {"train", "evaluate"} <= made.keys() or not recipe.is_file():
        raise ArtifactError(f"{run} is no finished run", got=", ".join(made) or "no finished steps", fix="limbeck run")
    return facts_of(json.loads(recipe.read_text(encoding="utf-8")), made)


def run_names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or their whole paths where two are alike.

    Args:
        runs: folders.
    """
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _differing(tables: Mapping[str, Predictions]) -> list[dict[str, Any]]:
    """Rows that some students get right and others do not, at even distances over all of them."""
    if not all("correct" in table for table in tables.values()):
        return []
    first = next(iter(tables.values()))
    places = [{sample: i for i, sample in enumerate(table["id"])} for table in tables.values()]
    found = []
    for at, sample in enumerate(first["id"]):
        if all(sample in place for place in places):
            sides = list(zip(tables.values(), (place[sample] for place in places), strict=True))
            same = all("target" not in t or t["target"][i] == first["target"][at] for t, i in sides)
            if same and len({bool(t["correct"][i]) for t, i in sides}) > 1:
                found.append((at, sides))
    chosen = [found[i] for i in np.linspace(0, len(found) - 1, min(len(found), SHOWN)).round().astype(int)]
    return [
        {
            **{name: first[name][at] if name in first else None for name in ("id", "input", "target")},
            "answers": {run: _cells(t, i) for run, (t, i) in zip(tables, sides, strict=True)},
        }
        for at, sides in chosen
    ]


def _cells(table: Predictions, row: int) -> dict[str, Any]:
    return {name: table[name][row] for name in ("prediction", "correct", "confidence") if name in table}


def _paired(tables: Mapping[str, Predictions], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Students in twos on the rows that both answered: difference of accuracy, interval and McNemar's p."""
    level, draws = settings.get("confidence", 0.95), settings.get("resamples", 10_000)
    rows, chances = [], list[float]()
    for first, second in combinations(tables, 2):
        pair = _same_rows(tables[first], tables[second])
        if pair is None:
            continue
        value, low, high = interval(pair, difference, confidence=level, resamples=draws)
        row = {"first": first, "second": second, "n": len(pair[0]), "difference": value, "low": low, "high": high}
        rows.append(row)
        chances.append(mcnemar(*pair))
    both = zip(rows, chances, holm(chances), strict=True)
    return [{**row, "p": p, "p_holm": corrected} for row, p, corrected in both]


def _same_rows(one: Predictions, other: Predictions) -> tuple[np.ndarray, np.ndarray] | None:
    """Whether each was right, on the rows of both; None where they have none, or were not graded."""
    if "correct" not in one or "correct" not in other:
        return None
    place = {sample: i for i, sample in enumerate(other["id"])}
    rows = [(i, place[sample]) for i, sample in enumerate(one["id"]) if sample in place]
    if "target" in one and "target" in other:
        rows = [(i, j) for i, j in rows if one["target"][i] == other["target"][j]]
    if not rows:
        return None
    mine, its = zip(*rows, strict=True)
    return one.correct[list(mine)], other.correct[list(its)]
