"""Quality against size, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log10
from typing import TYPE_CHECKING

from limbeck.report import formats
from limbeck.report.curves import spread
from limbeck.report.facts import Facts, Row, finite, model_name
from limbeck.report.metrics import label, metric, name_of, size_name, value_text, with_interval
from limbeck.report.plots._axes import bars, keys_of, plain_ticks
from limbeck.report.svg import COLOUR, Key, Plot, canvas, draw_for_page, name_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Point = tuple[str, Row, Row]

_SIZES = ("parameters", "bytes", "bytes_on_disk")
"""Of a compressed student the last alone is known."""
_APART = 0.15
"""Share of the axis that a tick's figure takes on a phone."""


def size_plot(facts: Facts) -> Plot | None:
    """A point a model, and the front of those that no other beats in both; none with fewer than two models."""
    name, size, say = facts.primary, size_name(facts, _SIZES), facts.say
    if name is None or size is None:
        return None
    pairs = [(m, facts.find(m, size), facts.find(m, name)) for m in facts.models]
    known = [(m, x, y) for m, x, y in pairs if x and y and x["value"] > 0]
    if len(known) < 2:
        return None
    figure, axes = canvas(3.6 if len(known) < 5 else 4.4)
    widths = [x["value"] for _, x, _ in known]
    log = spread(widths) > 4
    if log:
        axes.set_xscale("log")
    low, high = min(widths), max(widths)
    room = (high / low) ** 0.2 if log else 0.2 * (high - low) or 0.2 * high
    axes.set_xlim(*((low / room, high * room) if log else (max(0, low - room), high + room)))
    best = front(known)
    _front(axes, best)
    keys = keys_of(facts.models, say, marks=True)
    for model, x, y in known:
        shared = [m for m, other, _ in known if 0.98 < other["value"] / x["value"] < 1.02]
        _point(axes, keys[model], x, y, shared.index(model) - (len(shared) - 1) / 2)
    _size_ticks(axes.xaxis, widths, size)
    plain_ticks(axes.yaxis, share=metric(known[0][2]).kind is formats.share)
    axes.margins(y=0.2)
    called, unit = label(known[0][2], say), name_of(size, say)
    name_axes(axes, say("axis.log", axis=unit) if log else unit, called)
    told = [f"{model_name(m, say)}: {unit} {value_text(x, say)}, {called} {with_interval(y, say)}" for m, x, y in known]
    on_front = say.some([model_name(m, say) for m, _, _ in best])
    description = say("plot.size.told", points="; ".join(told), front=on_front)
    svg = draw_for_page(figure, "size", say("plot.size.title"), description)
    caption = say(f"plot.size.{'down' if metric(known[0][2]).lower_is_better else 'up'}", score=called)
    if any(finite(y.get("low")) and finite(y.get("high")) for _, _, y in known):
        caption += say("plot.bars")
    named = [replace(keys[m], label=f"{keys[m].label} {value_text(y, say)}", line=False) for m, _, y in known]
    return Plot("size", say("plot.size.title"), svg, caption + say("plot.size.line"), tuple(named), description)


def front(points: Sequence[Point]) -> list[Point]:
    """The models that no other equals or beats in size and quality at once, the smallest first.

    Args:
        points: models with the scores of their size and of their quality.
    """
    sign = -1 if points and metric(points[0][2]).lower_is_better else 1
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p[1]["value"], -sign * p[2]["value"])):
        if not kept or sign * point[2]["value"] > sign * kept[-1][2]["value"]:
            kept.append(point)
    return kept


def _front(axes: Axes, best: Sequence[Point]) -> None:
    """Steps: what quality is to be had up to a size."""
    xs, ys = [p[1]["value"] for p in best], [p[2]["value"] for p in best]
    axes.plot(xs, ys, drawstyle="steps-post", color=COLOUR["muted"], linewidth=1.4, alpha=0.6, zorder=1)


def _size_ticks(axis: Axis, widths: Sequence[float], size: str) -> None:
    """A tick at every model: the sizes that matter, and no others; less those for whose figures there is no room."""
    from matplotlib.ticker import FixedLocator, NullLocator

    def place(width: float) -> float:
        return log10(width) if axis.get_scale() == "log" else width

    low, high = axis.get_view_interval()
    apart: list[float] = []
    for width in sorted(widths):
        if not apart or place(width) - place(apart[-1]) > _APART * (place(high) - place(low)):
            apart.append(width)
    axis.set_major_locator(FixedLocator(apart))
    axis.set_minor_locator(NullLocator())
    kind = formats.magnitude if size == "parameters" else formats.size
    axis.set_major_formatter(lambda value, _: formats.text(float(value), kind))


def _point(axes: Axes, key: Key, x: Row, y: Row, aside: float) -> None:
    """A model's point and its interval, so many steps aside: models of one size stand side by side."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    before = len(axes.lines)
    bars(axes, [x["value"]], [y.get("low")], [y.get("high")], key.role)
    axes.plot(
        [x["value"]], [y["value"]], marker=key.mark, markersize=9, color=COLOUR[key.role], markeredgewidth=0, zorder=4
    )
    for drawn in axes.lines[before:]:
        axes.update_datalim(drawn.get_xydata())
        drawn.set_transform(axes.transData + ScaledTranslation(aside * 16 / 72, 0, figure.dpi_scale_trans))
