"""The report's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from limbeck.report import formats
from limbeck.report.curves import POINTS, Curve, curve, loss_curves, spread, thin, validation_score
from limbeck.report.facts import Facts, Row, finite, in_order, model_name
from limbeck.report.metrics import metric, size_name, value_text, with_interval
from limbeck.report.svg import COLOUR, WIDTH, Key, Plot, canvas, draw, house_style, name_axes
from limbeck.report.tables import kept_checkpoints, stretches, validation_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_DASHES = ("", "5 2.5", "1.5 2", "8 2.5 1.5 2.5", "3 2", "8 2 3 2")
_TERMS = 6


def plots(facts: Facts) -> dict[str, Plot]:
    """Every figure that the facts are enough for, by id."""
    with house_style():
        made = (_size_plot(facts), _loss_plot(facts), _validation_plot(facts))
    return {plot.id: plot for plot in made if plot}


def _loss_plot(facts: Facts) -> Plot | None:
    """The student's loss and its terms over the steps, stages marked."""
    curves = loss_curves(facts.steps)
    if not curves:
        return None
    shown, left_out = curves[: _TERMS + 1], [name for name, _ in curves[_TERMS + 1 :]]
    values = [y for _, (_, ys) in shown for y in ys]
    log = spread(values) > 10
    figure, axes = canvas(3.9)
    if log:
        axes.set_yscale("log")
    keys = []
    for i, (name, points) in enumerate(shown):
        key = Key(name, f"term-{i}", _DASHES[i % len(_DASHES)]) if i else Key(name, "ink")
        keys.append(key)
        _line(axes, thin(points), key, 2.0 if i == 0 else 1.6)
    _plain_ticks(axes.yaxis, log=log)
    _stages(axes, facts.steps)
    name_axes(axes, "Optimizer step", "Loss" + (", logarithmic" if log else ""))
    caption = "Loss of the student in training" + (" and its terms" if len(shown) > 1 else "") + "."
    longest = max(len(xs) for _, (xs, _) in shown)
    if longest > POINTS:
        caption += f" A point is the mean of about {round(longest / POINTS):,} steps."
    if left_out:
        caption += f" Not drawn, for room: {', '.join(left_out)}."
    told = [f"{name} from {formats.significant(ys[0])} to {formats.significant(ys[-1])}" for name, (_, ys) in shown]
    svg = draw(figure, "loss", "Training loss by step", f"{_span(facts.steps)} {'; '.join(told)}.")
    return Plot("loss", "Training loss", svg, caption, tuple(keys) if len(keys) > 1 else ())


def _validation_plot(facts: Facts) -> Plot | None:
    """The validation score of student and baseline over the steps, the kept checkpoints marked."""
    score = validation_score(facts)
    if score is None:
        return None
    kind = metric({"name": score}).kind
    figure, axes = canvas(3.4)
    keys, told = [], []
    for model, evals in (("student", facts.evals), ("baseline", facts.baseline_evals)):
        points = curve([e["step"] for e in evals], [e["metrics"].get(score) for e in evals])
        if not points[0]:
            continue
        key = Key(model_name(model), model, "" if model == "student" else "5 2.5")
        keys.append(key)
        _line(axes, thin(points), key, 2.0, marks=len(points[0]) <= 60)
        told.append(f"{key.label} from {formats.text(points[1][0], kind)} to {formats.text(points[1][-1], kind)}")
        told[-1] += _mark_kept(axes, evals, score, model)
    _plain_ticks(axes.yaxis, share=kind is formats.share)
    axes.margins(y=0.12)
    _stages(axes, facts.steps or facts.evals or facts.baseline_evals)
    label = metric({"name": score}).label
    name_axes(axes, "Optimizer step", f"{label} on the validation split")
    svg = draw(figure, "validation", f"Validation {score.replace('_', ' ')} by step", "; ".join(told) + ".")
    marked = any(kept_checkpoints(e) for e in (facts.evals, facts.baseline_evals))
    caption = f"{label} on the validation split while training." + (
        " Rings mark the checkpoints that were kept, one a stage." if marked else ""
    )
    return Plot("validation", "Validation", svg, caption, tuple(keys))


def _size_plot(facts: Facts) -> Plot | None:
    """Quality against size, a point a model; none with fewer than two."""
    name, size = facts.primary, size_name(facts)
    if name is None or size is None:
        return None
    models = in_order(str(r["model"]) for r in facts.scores)
    pairs = [(m, facts.find(m, size), facts.find(m, name)) for m in models]
    known = [(m, x, y) for m, x, y in pairs if x and y and x["value"] > 0]
    if len(known) < 2:
        return None
    figure, axes = canvas(3.6)
    widths = [x["value"] for _, x, _ in known]
    log = spread(widths) > 4
    if log:
        axes.set_xscale("log")
    low, high = min(widths), max(widths)
    room = (high / low) ** 0.45 if log else 0.45 * (high - low) or 0.45 * high
    axes.set_xlim(*((low / room, high * room) if log else (max(0, low - room), high + room)))
    for model, x, y in known:
        _point(axes, model, x, y, shared=[m for m, other, _ in known if 0.98 < other["value"] / x["value"] < 1.02])
    _size_ticks(axes.xaxis, widths, size)
    kind = metric(known[0][2]).kind
    _plain_ticks(axes.yaxis, share=kind is formats.share)
    axes.margins(y=0.2)
    label, unit = metric(known[0][2]).label, "Parameters" if size == "parameters" else "Bytes of weights"
    name_axes(axes, unit + (", logarithmic" if log else ""), label)
    told = [f"{model_name(m)}: {value_text(x)} {unit.lower()}, {label.lower()} {with_interval(y)}" for m, x, y in known]
    svg = draw(figure, "size", f"{label} against size", ". ".join(told) + ".")
    bars = any(finite(y.get("low")) and finite(y.get("high")) for _, _, y in known)
    way = "down" if metric(known[0][2]).lower_is_better else "up"
    caption = f"{label} against size: {way} and to the left is better."
    return Plot("size", "Quality against size", svg, caption + (" Bars are the intervals." if bars else ""))


def _line(axes: Axes, points: Curve, key: Key, width: float, marks: bool = False) -> None:
    style: Any = {"color": COLOUR[key.role], "linewidth": width, "solid_joinstyle": "round"}
    if key.dash:
        style["linestyle"] = (0, tuple(float(d) for d in key.dash.split()))
    if marks or len(points[0]) == 1:
        style |= {"marker": "o", "markersize": 4, "markeredgewidth": 0}
    axes.plot(*points, **style)


def _mark_kept(axes: Axes, evals: list[dict[str, Any]], score: str, model: str) -> str:
    kept = [e for e in kept_checkpoints(evals) if finite(e["metrics"].get(score))]
    if not kept:
        return ""
    at, values = [e["step"] for e in kept], [e["metrics"][score] for e in kept]
    ring: Any = {"markeredgecolor": COLOUR[model], "markerfacecolor": COLOUR["ground"], "markeredgewidth": 2.2}
    axes.plot(at, values, linestyle="", marker="o", markersize=10, zorder=5, **ring)
    return f", kept checkpoint at step {at[-1]:,} with {validation_text(values[-1], score)}"


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
            text.set_gid("class-wide" if room < 12 * len(name) + 12 else None)  # a phone's type is larger


def _span(rows: list[dict[str, Any]]) -> str:
    parts = [f"{name} to step {group[-1]['step']:,}" for name, group in stretches(rows)]
    return f"Stages: {', '.join(parts)}." if len(parts) > 1 else f"{rows[-1]['step']:,} steps."


def _plain_ticks(axis: Axis, log: bool = False, share: bool = False) -> None:
    """Few ticks, labelled with plain numbers in place of powers of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if log:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}{formats.NBSP}%" if share else f"{value:g}")


def _size_ticks(axis: Axis, widths: Sequence[float], size: str) -> None:
    """A tick at every model: the sizes that matter, and no others."""
    from matplotlib.ticker import FixedLocator, NullLocator

    apart: list[float] = []
    for width in sorted(widths):
        if not apart or width > 1.05 * apart[-1]:
            apart.append(width)
    axis.set_major_locator(FixedLocator(apart))
    axis.set_minor_locator(NullLocator())
    kind = formats.magnitude if size == "parameters" else formats.size
    axis.set_major_formatter(lambda value, _: formats.text(float(value), kind))


def _point(axes: Axes, model: str, x: Row, y: Row, shared: list[str]) -> None:
    """A model's point, its interval and its name; models of one size stand side by side."""
    from matplotlib.transforms import ScaledTranslation

    aside = 0.0 if len(shared) < 2 else (8.0 if model == shared[0] else -8.0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    at = axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
    colour = COLOUR.get(model, COLOUR["term-1"])
    value = y["value"]
    if finite(y.get("low")) and finite(y.get("high")):
        axes.plot(
            [x["value"]] * 2, [y["low"], y["high"]], color=colour, linewidth=2, transform=at, marker="_", markersize=9
        )
        axes.update_datalim([(x["value"], y["low"]), (x["value"], y["high"])])
    marker = {"teacher": "s", "baseline": "D"}.get(model, "o")
    axes.plot([x["value"]], [value], marker=marker, markersize=9, color=colour, transform=at, markeredgewidth=0)
    axes.update_datalim([(x["value"], value)])
    offset = (aside + 12, 0) if aside >= 0 else (aside - 12, 0)
    style: Any = {"va": "center", "ha": "left" if aside >= 0 else "right", "fontsize": 12, "color": COLOUR["ink"]}
    text = f"{model_name(model)}  {value_text(y)}"
    axes.annotate(text, (x["value"], value), xytext=offset, textcoords="offset points", parse_math=False, **style)
