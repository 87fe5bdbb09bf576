"""Rows of the report's tables, as text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from limbeck.report import formats
from limbeck.report.facts import Facts, Row, finite, in_order, model_name
from limbeck.report.headline import against_teacher, verdict
from limbeck.report.metrics import interval_text, metric, value_text

_COMPARED = ("comparison", "agreement")


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
    """The student beside the teacher and the baseline."""
    lines = []
    for row in (r for r in facts.scores if r["axis"] in _COMPARED and finite(r.get("value"))):
        reading = ""
        if row["name"] == "student_minus_baseline":
            reading = verdict(row).words
        elif row["name"] == "kept_of_teacher":
            reading = against_teacher(row).words
        who = "" if row["model"] == "student" else f", {model_name(str(row['model'])).lower()}"
        value = Cell(value_text(row), interval_text(row))
        lines.append(Line(metric(row).label + who, (value, Cell(reading), _n([row]), _split(row))))
    columns = ("Comparison", "Value", "Reading", "Rows", "Split")
    return Table("The student beside the other models", columns, tuple(lines), words={2, 4})


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
    return Cell(value_text(row), interval_text(row)) if row else Cell(formats.DASH)


def _n(rows: list[dict[str, Any]]) -> Cell:
    """How many rows or runs are behind a line; models that differ are listed."""
    found = dict.fromkeys(formats.text(r["n"], formats.count) for r in rows if finite(r.get("n")))
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
        for stage, rows in stretches(steps):
            losses = [r["loss"] for r in rows if finite(r.get("loss"))]
            few = max(1, len(losses) // 50)
            ends = [formats.significant(sum(end) / few) for end in (losses[:few], losses[-few:])] if losses else []
            span = f"{rows[0]['step']:,}{formats.DASH}{rows[-1]['step']:,}"
            loss = " to ".join(ends) or formats.DASH
            first, last = rows[0]["step"], rows[-1]["step"]
            here = [e for e in evals if score and first <= e["step"] <= last and finite(e["metrics"].get(score))]
            lines.append(Line(model_name(model), (Cell(stage), Cell(span), Cell(loss), _kept(here, evals, score))))
    columns = ("Model", "Stage", "Steps", "Loss, first to last", "Last validation")
    return Table("Stages of the training", columns, tuple(lines), words={1})


def _kept(here: list[dict[str, Any]], evals: list[dict[str, Any]], score: str | None) -> Cell:
    """The stage's last validation score, and the kept checkpoint where it lies in this stage."""
    if not here or score is None:
        return Cell(formats.DASH)
    best = kept_checkpoint(evals)
    text = validation_text(here[-1]["metrics"][score], score)
    if best is None or best not in here:
        return Cell(text)
    return Cell(text, f"kept: {validation_text(best['metrics'][score], score)} at step {best['step']:,}")


def kept_checkpoint(evals: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The validation that chose the kept checkpoint: the last one marked best."""
    return next((e for e in reversed(evals) if e.get("best")), None)


def validation_text(value: float, score: str) -> str:
    """A validation score with its unit."""
    return value_text({"name": score, "value": value})


def counts(manifests: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """What the steps counted: a matrix where one counted by split, and a list of the rest."""
    tables, single = [], []
    for step, manifest in manifests.items():
        found = manifest.get("counts") or {}
        groups = {k: dict(_flat(v)) for k, v in found.items() if isinstance(v, Mapping)}
        columns = list(dict.fromkeys(key for group in groups.values() for key in group))
        lines = [Line(_words(k), tuple(Cell(_told(g.get(c))) for c in columns)) for k, g in groups.items() if g]
        heads = tuple(_words(c) for c in columns)
        tables.append(Table(f"Counted by {step}", ("Part", *heads), tuple(lines)))
        plain = {k: v for k, v in found.items() if not isinstance(v, Mapping)}
        single += [Line(step, (Cell(_words(k)), Cell(_told(v)))) for k, v in plain.items()]
    rest = "Other counts" if any(tables) else "Counts by step"
    return [table for table in (*tables, Table(rest, ("Step", "What", "Count"), tuple(single), words={1})) if table]


def _flat(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, value


def _words(key: str) -> str:
    text = key.replace("_", " ")
    return text[:1].upper() + text[1:]


def _told(value: Any) -> str:
    if value is None:
        return formats.DASH
    return formats.text(value, formats.count) if finite(value) else str(value)


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
