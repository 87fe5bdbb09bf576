"""How right the cascade is against how many rows come to its last model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck.report import formats
from limbeck.report.facts import Facts, model_name
from limbeck.report.metrics import shown
from limbeck.report.plots._axes import bars, plain_ticks
from limbeck.report.svg import COLOUR, Key, Plot, canvas, draw_for_page, name_axes

_CURVE = Key("", "student")
_CHOSEN = Key("", "term-3", mark="o", line=False)
_ENDS = {"student": Key("", "student", mark="o", line=False), "teacher": Key("", "teacher", mark="s", line=False)}


def judged(found: Mapping[str, Any]) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
    """The points of a curve and the chosen one, on test rows where there are some, else on those it was fitted on."""
    test = found.get("test")
    return (test["points"], test["chosen"]) if test else (found["fit"], found["chosen"])


def cascade_plot(facts: Facts) -> Plot | None:
    """A line over all thresholds with its interval; its ends are the student and the last model, each alone."""
    say, found = facts.say, facts.details.get("cascade")
    if not found:
        return None
    every, chosen = judged(found)
    # Where no confidence lies between two thresholds, they are one point.
    points = [p for i, p in enumerate(every) if i == 0 or p["asked"] != every[i - 1]["asked"]]
    figure, axes = canvas(4.0)
    xs, ys = [p["teacher_share"] for p in points], [p["accuracy"] for p in points]
    if "low" in points[0]:
        band: Any = {"color": COLOUR["student"], "alpha": 0.12, "linewidth": 0}
        axes.fill_between(xs, [p["low"] for p in points], [p["high"] for p in points], **band)
    axes.plot(xs, ys, color=COLOUR[_CURVE.role], linewidth=1.8, solid_joinstyle="round")
    marked = {"student": points[-1], "teacher": points[0]}
    keys = [replace(_CURVE, label=say("plot.cascade.curve"))]
    for name, point in marked.items():
        title = model_name(found["models"][0 if name == "student" else -1], say)
        keys.append(replace(_ENDS[name], label=_labelled(say("plot.cascade.alone", model=title), point)))
        _dot(axes, point, keys[-1])
    keys.append(replace(_CHOSEN, label=_labelled(say("plot.cascade.chosen"), chosen)))
    bars(axes, [chosen["teacher_share"]], [chosen.get("low")], [chosen.get("high")], _CHOSEN.role)
    _dot(axes, chosen, keys[-1])
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis, share=True)
    axes.set_xlim(-0.03, 1.03)
    name_axes(axes, say("axis.cascade_share", model=model_name(found["models"][-1], say)), say("axis.accuracy"))
    description = say(
        "plot.cascade.told",
        points="; ".join(key.label for key in keys[1:]),
        share=shown(chosen["teacher_share"], formats.share, say),
    )
    svg = draw_for_page(figure, "cascade", say("plot.cascade.title"), description)
    rows = found["test"]["n"] if "test" in found else found["n"]
    caption = say(f"plot.cascade.{'test' if 'test' in found else 'validation'}", n=formats.text(rows, formats.count))
    return Plot("cascade", say("plot.cascade.title"), svg, caption, tuple(keys), description)


def _labelled(name: str, point: Mapping[str, Any]) -> str:
    return f"{name} {formats.text(point['accuracy'], formats.share)}"


def _dot(axes: Any, point: Mapping[str, Any], key: Key) -> None:
    style: Any = {"linestyle": "", "marker": key.mark, "markersize": 8, "markeredgewidth": 0}
    axes.plot([point["teacher_share"]], [point["accuracy"]], color=COLOUR[key.role], **style)
