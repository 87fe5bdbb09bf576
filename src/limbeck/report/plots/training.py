"""Losses and validation scores over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck.report import formats
from limbeck.report.curves import POINTS, curve, loss_curves, spread, thin, validation_score
from limbeck.report.facts import Facts, finite
from limbeck.report.metrics import label, metric, value_text
from limbeck.report.plots._axes import DASHES, keys_of, line, plain_ticks
from limbeck.report.svg import COLOUR, NARROW, WIDTH, Key, Plot, canvas, draw_for_page, name_axes
from limbeck.report.tables.run import kept_checkpoints, stretches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TERMS = 6


def loss_plot(facts: Facts, id: str = "loss") -> Plot | None:
    """The student's loss and its terms over the steps, stages marked."""
    curves, say = loss_curves(facts.steps, facts.say("plot.loss.total")), facts.say
    if not curves:
        return None
    drawn, left_out = curves[: _TERMS + 1], [name for name, _ in curves[_TERMS + 1 :]]
    log = spread([y for _, (_, ys) in drawn for y in ys]) > 10
    figure, axes = canvas(3.9)
    if log:
        axes.set_yscale("log")
    keys = []
    for i, (name, points) in enumerate(drawn):
        key = Key(name, f"term-{i}", DASHES[i % len(DASHES)]) if i else Key(name, "ink")
        keys.append(key)
        line(axes, thin(points), key, 2.0 if i == 0 else 1.6)
    plain_ticks(axes.yaxis, log=log)
    _stages(axes, facts.steps)
    loss = say("axis.loss")
    name_axes(axes, say("axis.step"), say("axis.log", axis=loss) if log else loss)
    caption = say("plot.loss.with_terms" if len(drawn) > 1 else "plot.loss.alone")
    longest = max(len(xs) for _, (xs, _) in drawn)
    if longest > POINTS:
        caption += say("plot.loss.mean", steps=round(longest / POINTS))
    if left_out:
        caption += say("plot.loss.left_out", terms=", ".join(left_out))
    ends = [(name, formats.significant(ys[0]), formats.significant(ys[-1])) for name, (_, ys) in drawn]
    told = "; ".join(say("plot.from_to", name=name, first=first, last=last) for name, first, last in ends)
    description = say("plot.loss.told", span=_span(facts), curves=told)
    svg = draw_for_page(figure, id, say("plot.loss.by_step"), description)
    return Plot(id, say("plot.loss.title"), svg, caption, tuple(keys) if len(keys) > 1 else (), description)


def validation_plot(facts: Facts) -> Plot | None:
    """The validation score of student and baseline over the steps, the kept checkpoints marked."""
    score, say = validation_score(facts), facts.say
    if score is None:
        return None
    figure, axes = canvas(3.4)
    keys, told = [], []
    looks = keys_of([model for model, _, _ in facts.trainings], say)
    for model, _, evals in facts.trainings:
        points = curve([e["step"] for e in evals], [e["metrics"].get(score) for e in evals])
        if not points[0]:
            continue
        key = looks[model]
        keys.append(key)
        line(axes, thin(points), key, 2.0, marks=len(points[0]) <= 60)
        first, last = (value_text({"name": score, "value": points[1][at]}, say) for at in (0, -1))
        told.append(say("plot.from_to", name=key.label, first=first, last=last))
        told[-1] += _mark_kept(axes, evals, score, key, facts)
    plain_ticks(axes.yaxis, share=metric({"name": score}).kind is formats.share)
    axes.margins(y=0.12)
    rows = next((rows for _, *logs in facts.trainings for rows in logs if rows), [])
    _stages(axes, [{**row, "stage": ""} for row in rows] if facts.runs else rows)  # each run has its own stages
    called = label({"name": score}, say)
    name_axes(axes, say("axis.step"), say("axis.on_validation", score=called))
    description = say("plot.validation.told", curves="; ".join(told))
    svg = draw_for_page(figure, "validation", say("plot.validation.by_step", score=called), description)
    caption = say("plot.validation.caption", score=called)
    if any(kept_checkpoints(evals) for _, _, evals in facts.trainings):
        caption += say("plot.validation.rings")
    return Plot("validation", say("plot.validation.title"), svg, caption, tuple(keys), description)


def _mark_kept(axes: Axes, evals: list[dict[str, Any]], score: str, key: Key, facts: Facts) -> str:
    kept = [e for e in kept_checkpoints(evals) if finite(e["metrics"].get(score))]
    if not kept:
        return ""
    at, values = [e["step"] for e in kept], [e["metrics"][score] for e in kept]
    ring: Any = {"markeredgecolor": COLOUR[key.role], "markerfacecolor": COLOUR["ground"], "markeredgewidth": 2.2}
    axes.plot(at, values, linestyle="", marker="o", markersize=10, zorder=5, **ring)
    value = value_text({"name": score, "value": values[-1]}, facts.say)
    return facts.say("plot.validation.kept", step=at[-1], value=value)


def _stages(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Shade every other stage, and name those that have the room."""
    parts = [(name, group[0]["step"], group[-1]["step"]) for name, group in stretches(rows)]
    drawn = axes.dataLim.intervalx
    first, last = min(parts[0][1], drawn[0]), max(parts[-1][2], drawn[1])
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,g}")
    axes.set_xlim(first - 0.01 * (last - first) - 0.5, last + 0.01 * (last - first) + 0.5)
    if len(parts) < 2:
        return
    bottom, top = axes.get_ylim()
    logarithmic = axes.get_yscale() == "log"
    axes.set_ylim(bottom, top * (top / bottom) ** 0.1 if logarithmic else top + 0.1 * (top - bottom))
    low, high = axes.get_xlim()
    for i, (name, start, end) in enumerate(parts):
        left = low if i == 0 else (parts[i - 1][2] + start) / 2
        right = high if i == len(parts) - 1 else (end + parts[i + 1][1]) / 2
        if i % 2:
            axes.axvspan(left, right, color=COLOUR["band"], linewidth=0, zorder=0)
        room = (right - left) / (high - low) * WIDTH * 72 * 0.92
        if room > 7 * len(name) + 12:
            place: Any = {"xy": (left, 1), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            style: Any = {"va": "top", "fontsize": 11, "color": COLOUR["muted"], "parse_math": False}
            text = axes.annotate(name, xytext=(7, -6), **place, **style)
            text.set_gid("class-roomy" if room * NARROW / WIDTH < 7 * len(name) + 12 else None)


def _span(facts: Facts) -> str:
    say, rows = facts.say, facts.steps
    parts = [say("plot.loss.stage", name=name, step=group[-1]["step"]) for name, group in stretches(rows)]
    whole = say("plot.loss.steps", steps=rows[-1]["step"])
    return say("plot.loss.stages", stages=", ".join(parts)) if len(parts) > 1 else whole
