"""Scores, a row a measure and a column a model."""

from __future__ import annotations

from typing import Any

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Table
from limbeck.report.facts import Facts, Row, finite, in_order, model_name
from limbeck.report.headline import GAINS, against_teacher, verdict
from limbeck.report.metrics import interval_text, label, value_text
from limbeck.report.words import Words

_COMPARED = ("comparison", "agreement")
_APART = ("efficiency", "interpretability", "robustness", *_COMPARED)
DIFFERENCES = (*GAINS, "student_minus_teacher")


def scores(facts: Facts) -> Table:
    """Quality, on every axis that has no table of its own."""
    return _matrix(facts, "scores", [r for r in facts.scores if r["axis"] not in _APART])


def efficiency(facts: Facts) -> Table:
    """Size, speed and cost."""
    return _matrix(facts, "efficiency", [r for r in facts.scores if r["axis"] == "efficiency"], "runs", split=False)


def comparisons(facts: Facts) -> Table:
    """Every model beside the teacher and the baseline, with the reading of each difference."""
    return _matrix(facts, "comparisons", [r for r in facts.scores if r["axis"] in _COMPARED])


def robustness(facts: Facts) -> Table:
    """Quality on perturbed rows, the mean over severities."""
    return _matrix(facts, "robustness", [r for r in facts.scores if r["axis"] == "robustness"])


def inside(facts: Facts) -> Table:
    """What was measured inside of the models."""
    return _matrix(facts, "inside", [r for r in facts.scores if r["axis"] == "interpretability"])


def _reading(row: Row, say: Words) -> str:
    if row["name"] in DIFFERENCES:
        return verdict(row).words(say)
    return against_teacher(row).words(say) if row["name"] == "kept_of_teacher" else ""


def _matrix(facts: Facts, name: str, rows: list[dict[str, Any]], counted: str = "rows", split: bool = True) -> Table:
    say, rows = facts.say, [r for r in rows if finite(r.get("value"))]
    models = in_order(str(r["model"]) for r in rows)
    lines = []
    for measure, where in dict.fromkeys((r["name"], r.get("split")) for r in rows):
        same = [r for r in rows if (r["name"], r.get("split")) == (measure, where)]
        by_model = {r["model"]: r for r in same}
        cells = [_cell(by_model.get(m), say) for m in models]
        lines.append(Line(label(same[0], say), (*cells, _n(same, split), *([_split(same[0])] * split))))
    heads = (say("column.measure"), *(model_name(m, say) for m in models), say(f"column.{counted}"))
    columns = (*heads, *([say("column.split")] * split))
    return Table(say(f"caption.{name}"), columns, tuple(lines), words={len(columns) - 1} if split else ())


def _cell(row: Row | None, say: Words) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    return Cell(value_text(row, say), ", ".join(filter(None, (interval_text(row), _reading(row, say)))))


def _n(rows: list[dict[str, Any]], listed: bool) -> Cell:
    """How many rows or runs are behind a line; where models differ they are listed, or nothing is said."""
    found = dict.fromkeys(formats.text(r["n"], formats.count) for r in rows if finite(r.get("n")) and r["n"] > 1)
    return Cell(" / ".join(found) if found and (listed or len(found) == 1) else formats.DASH)


def _split(row: Row) -> Cell:
    return Cell(str(row.get("split") or formats.DASH))
