"""What became of the student: whether it was let through when it was compressed, and what it was exported to."""

from __future__ import annotations

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Sentences, Table
from limbeck.report.facts import Facts, finite, section
from limbeck.report.metrics import shown

_EXPORT = "export/"


def gate(facts: Facts) -> Sentences:
    """What the gate found on the validation rows, and what it was held to."""
    found, say = facts.gate, facts.say
    if not found:
        return Sentences(())
    limits, of_texts = section(found, "limits"), found.get("score") == "perplexity"
    asked = {name: limits.get(name) for name in ("drop", "bound", "agreement")}
    told = say(
        "gate.texts" if of_texts else "gate.told",
        n=found["n"],
        change=_share(1 + found["drop"], facts) if of_texts else shown(-found["drop"] + 0.0, formats.points, say),
        level=f"{100 * limits['confidence']:g}",
        upper=_share(1 + found["upper"], facts) if of_texts else _points(found["upper"], facts),
        agreement=_share(found["agreement"], facts),
    )
    values = {
        name: _share(value, facts) if of_texts or name == "agreement" else _points(value, facts)
        for name, value in asked.items()
        if finite(value)
    }
    worse = {"drop": "rise"} if of_texts else {}
    allowed = [say(f"gate.{worse.get(name, name)}", value=value) for name, value in values.items()]
    return Sentences((("", told + (say("gate.allowed", limits=say.some(allowed)) if allowed else "")),))


def exports(facts: Facts) -> Table:
    """Every export beside the student that it was made from."""
    lines, say = [], facts.say
    for step, manifest in facts.manifests.items():
        if not step.startswith(_EXPORT):
            continue
        took = section(manifest, "latency_p50")
        beside = shown(took.get("student"), formats.milliseconds, say)
        cells = (
            Cell(str(manifest.get("format") or formats.DASH), str(manifest.get("precision") or "")),
            Cell(formats.text(manifest.get("opset"), formats.count)),
            Cell(shown(manifest.get("bytes"), formats.size, say)),
            Cell(formats.text(manifest.get("max_difference"), formats.plain())),
            Cell(shown(manifest.get("same_answers"), formats.share, say), _of(manifest.get("answers"), facts)),
            Cell(
                shown(took.get("export"), formats.milliseconds, say),
                say("gate.beside", value=beside) if took.get("student") else "",
            ),
        )
        lines.append(Line(step.removeprefix(_EXPORT), cells))
    columns = ("export", "format", "opset", "size", "max_difference", "same_answers", "latency")
    return Table(say("caption.exports"), tuple(say(f"column.{name}") for name in columns), tuple(lines), words={1})


def _points(value: float, facts: Facts) -> str:
    """A limit, which has no sign."""
    return shown(value, formats.points, facts.say).lstrip("+")


def _share(value: float, facts: Facts) -> str:
    return shown(value, formats.share, facts.say)


def _of(count: object, facts: Facts) -> str:
    return facts.say("gate.of", n=count) if finite(count) else ""
