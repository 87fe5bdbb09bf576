"""What the cascade promises, what came of it, and what other thresholds would give."""

from __future__ import annotations

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Sentences, Table
from limbeck.report.facts import Facts, model_name
from limbeck.report.metrics import shown
from limbeck.report.plots.cascade import judged

_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"""Of the last model; the table has the nearest points."""
_SHOWN = {"accuracy": formats.share, "teacher_share": formats.share, "excess_errors": formats.share}


def told(facts: Facts) -> Sentences:
    """The threshold and its promise, and whether the test rows bear it out."""
    found, say = facts.details.get("cascade"), facts.say
    if not found:
        return Sentences(())
    promise = found["promise"]
    lines = [
        say(
            "cascade.told",
            threshold=_threshold(found["chosen"]["threshold"], facts),
            promise=say(f"cascade.{promise}", value=shown(found["target"], _SHOWN.get(promise, formats.plain()), say)),
            level=f"{100 * found['level']:g}",
            n=formats.text(found["n"], formats.count),
        )
    ]
    if "test" in found:
        lines.append(say("cascade.kept" if found["test"]["kept"] else "cascade.broken"))
    return Sentences(tuple(("", line) for line in lines))


def points(facts: Facts) -> Table:
    """Some thresholds, from the student alone to the last model alone; the chosen one is named."""
    found, say = facts.details.get("cascade"), facts.say
    if not found:
        return Table("", (), ())
    curve, chosen = judged(found)
    kept = {min(range(len(curve)), key=lambda i: abs(curve[i]["teacher_share"] - share)) for share in _SHARES}
    kept.add(next(i for i, p in enumerate(curve) if p["threshold"] == chosen["threshold"]))
    lines = []
    for i in sorted(kept, reverse=True):
        point = curve[i]
        name = _threshold(point["threshold"], facts)
        if point["threshold"] == chosen["threshold"]:
            name = say("cascade.chosen", threshold=name)
        shares = [Cell(shown(share, formats.share, say)) for share in point["asked"][1:]]
        interval = ""
        if "low" in point:
            interval = formats.interval(point["low"], point["high"], formats.share, point["accuracy"])
        lines.append(Line(name, (*shares, Cell(shown(point["accuracy"], formats.share, say), interval))))
    to = [say("column.cascade_to", model=model_name(name, say)) for name in found["models"][1:]]
    return Table(say("caption.cascade"), (say("column.threshold"), *to, say("metric.accuracy")), tuple(lines))


def _threshold(value: float, facts: Facts) -> str:
    if value > 1:
        return facts.say("cascade.always")
    return f"{value:.4f}" if value < 0.9999 or value == 1 else f"{value:.7f}"
