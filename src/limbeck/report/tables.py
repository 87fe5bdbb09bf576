"""Rows of the report's tables, as text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from limbeck.report import formats
from limbeck.report.facts import Facts, Row, finite, in_order, model_name
from limbeck.report.headline import GAINS, against_teacher, verdict
from limbeck.report.metrics import interval_text, metric, value_text

_COMPARED = ("comparison", "agreement")
_LISTED = 10
_COUNTED = {
    "train": "training rows",
    "validation": "validation rows",
    "test": "test rows",
    "train_rows": "rows of the training source",
    "validation_from": "validation rows are",
    "held_out": "held out of the training rows",
    "train_rows_also_in_validation": "training rows whose inputs are in validation too",
    "rows_also_trained_on": "evaluated rows whose inputs were trained on too",
    "rows": "rows evaluated",
    "split": "split evaluated",
}
"""Counts whose names are too short for a reader who does not know the code."""


@dataclass(frozen=True)
class Cell:
    """A value and what is said in small print beneath it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Line:
    """A row: its heading and its cells."""

    head: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to print; one without rows is not shown.

    Attributes:
        caption: what it shows.
        columns: headings, that of the row headings first.
        lines: the rows.
        words: positions of columns that hold words, not figures.
    """

    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    words: Collection[int] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)


def scores(facts: Facts) -> Table:
    """Quality, a row a score and a column a model."""
    rows = [r for r in facts.scores if r["axis"] not in ("efficiency", *_COMPARED)]
    return _matrix("Scores by model, with their intervals beneath", rows, "Rows")


def efficiency(facts: Facts) -> Table:
    """Size and speed, a row a measure and a column a model."""
    rows = [r for r in facts.scores if r["axis"] == "efficiency"]
    return _matrix("Size and speed by model", rows, "Runs", split=False)


def comparisons(facts: Facts) -> Table:
    """Every model beside the teacher and the baseline, with the reading of each difference."""
    rows = [r for r in facts.scores if r["axis"] in _COMPARED]
    return _matrix("Beside the teacher and the baseline, same rows", rows, "Rows")


def _reading(row: Row) -> str:
    if row["name"] in GAINS:
        return verdict(row).words
    return against_teacher(row).words if row["name"] == "kept_of_teacher" else ""


def _matrix(caption: str, rows: list[dict[str, Any]], counted: str, split: bool = True) -> Table:
    rows = [r for r in rows if finite(r.get("value"))]
    models = in_order(str(r["model"]) for r in rows)
    lines = []
    for name, where in dict.fromkeys((r["name"], r.get("split")) for r in rows):
        same = [r for r in rows if (r["name"], r.get("split")) == (name, where)]
        by_model = {r["model"]: r for r in same}
        cells = [_cell(by_model.get(m)) for m in models]
        lines.append(Line(metric(same[0]).label, (*cells, _n(same), *([_split(same[0])] * split))))
    columns = ("Measure", *(model_name(m) for m in models), counted, *(["Split"] * split))
    return Table(caption, columns, tuple(lines), words={len(columns) - 1} if split else ())


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell(formats.DASH)
    return Cell(value_text(row), ", ".join(filter(None, (interval_text(row), _reading(row)))))


def _n(rows: list[dict[str, Any]]) -> Cell:
    """How many rows or runs are behind a line; models that differ are listed."""
    found = dict.fromkeys(formats.text(r["n"], formats.count) for r in rows if finite(r.get("n")) and r["n"] > 1)
    return Cell(" / ".join(found) or formats.DASH)


def _split(row: Row) -> Cell:
    return Cell(str(row.get("split") or formats.DASH))


def stretches(steps: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A log cut where its stage changes."""
    return [(str(stage), list(rows)) for stage, rows in groupby(steps, key=lambda r: r.get("stage", ""))]


def training(facts: Facts, score: str | None) -> Table:
    """What each stage of each training did; `score` is the validation score to show."""
    lines = []
    logs = [("student", facts.steps, facts.evals), ("baseline", facts.baseline_steps, facts.baseline_evals)]
    for model, steps, evals in logs:
        checks = dict(stretches(evals))
        for stage, rows in stretches(steps):
            losses = [r["loss"] for r in rows if finite(r.get("loss"))]
            few = max(1, len(losses) // 50)
            ends = [formats.significant(sum(end) / few) for end in (losses[:few], losses[-few:])] if losses else []
            span = Cell(f"{rows[0]['step']:,}{formats.DASH}{rows[-1]['step']:,}")
            loss = Cell(" to ".join(ends) or formats.DASH)
            lines.append(Line(model_name(model), (Cell(stage), span, loss, _best(checks.get(stage, []), score))))
    name = f"Best validation {score.replace('_', ' ')}" if score else "Best validation"
    return Table(
        "Stages of the training", ("Model", "Stage", "Steps", "Loss, first to last", name), tuple(lines), words={1}
    )


def _best(evals: list[dict[str, Any]], score: str | None) -> Cell:
    """The validation of a stage whose weights were kept."""
    best = kept_checkpoints(evals)
    if score is None or not best or not finite(best[-1]["metrics"].get(score)):
        return Cell(formats.DASH)
    return Cell(validation_text(best[-1]["metrics"][score], score), f"at step {best[-1]['step']:,}")


def kept_checkpoints(evals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The validations that chose what was kept, one a stage: the stage's last one marked best."""
    marked = [[e for e in rows if e.get("best")] for _, rows in stretches(evals)]
    return [rows[-1] for rows in marked if rows]


def validation_text(value: float, score: str) -> str:
    """A validation score with its unit."""
    return value_text({"name": score, "value": value})


def counts(manifests: Mapping[str, Mapping[str, Any]]) -> Table:
    """What the steps counted, a column a step; steps that counted the same share a column."""
    columns: list[tuple[list[str], dict[str, Any]]] = []
    for step, manifest in manifests.items():
        found = dict(_flat(manifest.get("counts") or {}))
        if found:
            same = next((steps for steps, other in columns if other == found), None)
            if same is None:
                columns.append(([step], found))
            else:
                same.append(step)
    names = dict.fromkeys(name for _, found in columns for name in found)
    lines = [Line(_words(name), tuple(_told(found.get(name)) for _, found in columns)) for name in names]
    return Table("Rows by step, and what was lost of them", ("What", *(", ".join(s) for s, _ in columns)), tuple(lines))


def _flat(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, value


def _words(key: str) -> str:
    text = _COUNTED.get(key) or key.replace("lost: ", "stage ", 1).replace("_", " ")
    return text[:1].upper() + text[1:]


def _told(value: Any) -> Cell:
    if value is None:
        return Cell(formats.DASH)
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:_LISTED])) + (", ..." if len(value) > _LISTED else "")
        return Cell(f"{len(value):,}", shown)
    return Cell(formats.text(value, formats.count) if finite(value) else str(value))


def notes(manifests: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the steps wished to be known, each with its step."""
    return [(step, str(note)) for step, manifest in manifests.items() for note in manifest.get("notes") or ()]


def lineage(manifests: Mapping[str, Mapping[str, Any]]) -> Table:
    """Which artifact was made from which, how large it is and how long it took."""
    lines = []
    for step, manifest in manifests.items():
        parents = manifest.get("parents") or {}
        made_from = ", ".join(f"{name} {_short(digest)}" for name, digest in parents.items()) or formats.DASH
        files = manifest.get("files") or {}
        total = sum(f.get("bytes", 0) for f in files.values() if isinstance(f, Mapping))
        disk = f"{len(files):,}, {formats.text(total, formats.size)}" if files else formats.DASH
        took = formats.text(manifest.get("seconds"), formats.duration)
        digest = _short(manifest.get("digest") or formats.DASH)
        lines.append(Line(step, (Cell(digest), Cell(made_from), Cell(disk), Cell(took))))
    columns = ("Artifact", "Digest", "Made from", "Files", "Time")
    return Table("Artifacts and what they were made from", columns, tuple(lines), words={1, 2})


def _short(digest: object) -> str:
    return str(digest).removeprefix("sha256:")[:12]


def versions(manifests: Mapping[str, Mapping[str, Any]]) -> Table:
    """Software by version; where steps ran under different ones, each is named."""
    found: dict[str, dict[str, list[str]]] = {}
    for step, manifest in manifests.items():
        for package, version in (manifest.get("versions") or {}).items():
            found.setdefault(package, {}).setdefault(str(version), []).append(step)
    lines = []
    for package, by_version in found.items():
        told = next(iter(by_version)) if len(by_version) == 1 else _differing(by_version)
        lines.append(Line(package, (Cell(told),)))
    return Table("Versions of the software", ("Package", "Version"), tuple(lines), words={1})


def _differing(by_version: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{version} ({', '.join(steps)})" for version, steps in by_version.items())
