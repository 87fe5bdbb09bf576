"""What the run did: stages, rows, artifacts, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Table
from limbeck.report.facts import Facts, finite, model_name
from limbeck.report.metrics import name_of, value_text
from limbeck.report.words import Words

_LISTED = 10


def stretches(steps: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A log cut where its stage changes."""
    return [(str(stage), list(rows)) for stage, rows in groupby(steps, key=lambda r: r.get("stage", ""))]


def training(facts: Facts, score: str | None) -> Table:
    """What each stage of each training did; `score` is the validation score to show."""
    lines, say = [], facts.say
    for model, steps, evals in facts.trainings:
        checks = dict(stretches(evals))
        for stage, rows in stretches(steps):
            losses = [r["loss"] for r in rows if finite(r.get("loss"))]
            few = max(1, len(losses) // 50)
            ends = [formats.significant(sum(end) / few) for end in (losses[:few], losses[-few:])] if losses else []
            span = Cell(f"{rows[0]['step']:,}{formats.DASH}{rows[-1]['step']:,}")
            loss = Cell(say("training.to").join(ends) or formats.DASH)
            seconds = sum(r["seconds"] for r in rows if finite(r.get("seconds")))
            took = Cell(formats.text(seconds or None, formats.duration))
            best = _best(checks.get(stage, []), score, say)
            lines.append(Line(model_name(model, say), (Cell(stage), span, loss, best, took)))
    kept = say("training.best", score=name_of(score, say)) if score else say("training.best_any")
    columns = (say("column.model"), *(say(f"training.{name}") for name in ("stage", "steps", "loss")), kept)
    return Table(say("caption.training"), (*columns, say("column.time")), tuple(lines), words={1})


def _best(evals: list[dict[str, Any]], score: str | None, say: Words) -> Cell:
    """The validation of a stage whose weights were kept."""
    best = kept_checkpoints(evals)
    if score is None or not best or not finite(best[-1]["metrics"].get(score)):
        return Cell(formats.DASH)
    at = say("training.at_step", step=best[-1]["step"])
    return Cell(value_text({"name": score, "value": best[-1]["metrics"][score]}, say), at)


def kept_checkpoints(evals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The validations that chose what was kept, one a stage: the stage's last one marked best."""
    marked = [[e for e in rows if e.get("best")] for _, rows in stretches(evals)]
    return [rows[-1] for rows in marked if rows]


def counts(facts: Facts) -> Table:
    """What the steps counted, a column a step; steps that counted the same share a column."""
    columns: list[tuple[list[str], dict[str, Any]]] = []
    for step, manifest in facts.manifests.items():
        found = dict(_flat(manifest.get("counts") or {}))
        if found:
            same = next((steps for steps, other in columns if other == found), None)
            if same is None:
                columns.append(([step], found))
            else:
                same.append(step)
    say, names = facts.say, dict.fromkeys(name for _, found in columns for name in found)
    lines = [Line(_words(name, say), tuple(_told(found.get(name)) for _, found in columns)) for name in names]
    heads = (say("column.what"), *(", ".join(steps) for steps, _ in columns))
    return Table(say("caption.counts"), heads, tuple(lines))


def recipes(facts: Facts) -> Table:
    """Settings in which the recipes of compared runs differ, a column a run."""
    say, lines = facts.say, []
    for row in facts.details.get("recipes") or []:
        told = [row["values"].get(run) for run in facts.students]
        lines.append(Line(row["key"], tuple(Cell(formats.DASH if value is None else str(value)) for value in told)))
    return Table(say("caption.recipes"), (say("column.setting"), *facts.students), tuple(lines))


def _flat(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, value


def _words(key: str, say: Words) -> str:
    text = say.either(f"count.{key}", key.replace("lost: ", say("count.stage"), 1).replace("_", " "))
    return text[:1].upper() + text[1:]


def _told(value: Any) -> Cell:
    if value is None:
        return Cell(formats.DASH)
    if isinstance(value, list):
        shown = ", ".join(map(str, value[:_LISTED])) + (", ..." if len(value) > _LISTED else "")
        return Cell(f"{len(value):,}", shown)
    return Cell(formats.text(value, formats.count) if finite(value) else str(value))


def notes(manifests: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """What the steps wished to be known, each with its step."""
    return tuple((step, str(note)) for step, manifest in manifests.items() for note in manifest.get("notes") or ())


def lineage(facts: Facts) -> Table:
    """Which artifact was made from which, how large it is and how long it took."""
    lines, say = [], facts.say
    for step, manifest in facts.manifests.items():
        parents = manifest.get("parents") or {}
        made_from = ", ".join(f"{name} {_short(digest)}" for name, digest in parents.items()) or formats.DASH
        files = manifest.get("files") or {}
        total = sum(f.get("bytes", 0) for f in files.values() if isinstance(f, Mapping))
        disk = f"{len(files):,}, {formats.text(total, formats.size)}" if files else formats.DASH
        took = formats.text(manifest.get("seconds"), formats.duration)
        digest = _short(manifest.get("digest") or formats.DASH)
        lines.append(Line(step, (Cell(digest), Cell(made_from), Cell(disk), Cell(took))))
    columns = ("artifact", "digest", "parents", "files", "time")
    return Table(say("caption.lineage"), tuple(say(f"column.{name}") for name in columns), tuple(lines), words={1, 2})


def models(facts: Facts) -> Table:
    """The models that the run started from: revision, licence and identity of their weights."""
    lines, say = [], facts.say
    for step, manifest in facts.manifests.items():
        model = manifest.get("model")
        if isinstance(model, Mapping) and model.get("name"):
            told = [str(model.get(key) or formats.DASH) for key in ("name", "revision", "licence")]
            lines.append(Line(step, (*map(Cell, told), Cell(_short(model.get("fingerprint") or formats.DASH)))))
    columns = tuple(say(f"column.{name}") for name in ("artifact", "model", "revision", "licence", "digest"))
    return Table(say("caption.models"), columns, tuple(lines), words={1, 2, 3, 4})


def total_time(manifests: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Seconds that all steps took, None where none told."""
    told = [m["seconds"] for m in manifests.values() if finite(m.get("seconds"))]
    return sum(told) if told else None


def _short(digest: object) -> str:
    return str(digest).removeprefix("sha256:")[:12]


def versions(facts: Facts) -> Table:
    """Software by version; where steps ran under different ones, each is named."""
    found: dict[str, dict[str, list[str]]] = {}
    for step, manifest in facts.manifests.items():
        for package, version in (manifest.get("versions") or {}).items():
            found.setdefault(package, {}).setdefault(str(version), []).append(step)
    lines = []
    for package, by_version in found.items():
        told = next(iter(by_version)) if len(by_version) == 1 else _differing(by_version)
        lines.append(Line(package, (Cell(told),)))
    say = facts.say
    return Table(say("caption.versions"), (say("column.package"), say("column.version")), tuple(lines), words={1})


def _differing(by_version: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{version} ({', '.join(steps)})" for version, steps in by_version.items())
