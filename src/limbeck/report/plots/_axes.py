"""What the plots have in common: the looks of a model, lines, ticks, points with intervals, heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from limbeck.report import formats
from limbeck.report.curves import Curve
from limbeck.report.facts import MODELS, finite, in_order, model_name
from limbeck.report.svg import COLOUR, Key
from limbeck.report.text import readable, squeezed
from limbeck.report.words import Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

DASHES = ("", "5 2.5", "1.5 2", "8 2.5 1.5 2.5", "3 2", "8 2 3 2")
_KNOWN = {"student": "", "teacher": "1.5 2", "compressed": "8 2.5 1.5 2.5", "baseline": "5 2.5"}
_MARKERS = {"student": "o", "teacher": "s", "compressed": "^", "baseline": "D"}
_OTHERS = ("o", "^", "v", "P", "X", "*")
_TERMS = 6
DEEPEST = 0.5
"""Opacity of the largest value in a heat map; figures printed over it can still be read."""

_WRITTEN = 14
"""Rows and columns of a heat map up to which its figures are printed in it."""

_NAME = 22
"""Characters of a name beside an axis."""

_ROOM = 8
"""Columns up to which they are on a phone."""


def keys_of(models: Sequence[str], say: Words, marks: bool = False) -> dict[str, Key]:
    """Colour and dashes of each model, the same in every plot of a page; with the shape of its points or without."""
    found, others = {}, [m for m in in_order(models) if m not in MODELS]
    for model in in_order(models):
        mark = marker(model, models) if marks else ""
        if model in MODELS:
            found[model] = Key(model_name(model, say), model, _KNOWN[model], mark)
        else:
            at = others.index(model)
            found[model] = Key(model, f"term-{at % _TERMS + 1}", DASHES[at // _TERMS % len(DASHES)], mark)
    return found


def marker(model: str, models: Sequence[str]) -> str:
    """The shape of a model's points."""
    others = [m for m in in_order(models) if m not in MODELS]
    return _MARKERS.get(model) or _OTHERS[others.index(model) % len(_OTHERS)]


def line(axes: Axes, points: Curve, key: Key, width: float, marks: bool = False) -> None:
    """A line in the looks of its key; a single point is a dot."""
    style: Any = {"color": COLOUR[key.role], "linewidth": width, "solid_joinstyle": "round"}
    if key.dash:
        style["linestyle"] = (0, tuple(float(d) for d in key.dash.split()))
    if marks or len(points[0]) == 1:
        style |= {"marker": "o", "markersize": 4, "markeredgewidth": 0}
    axes.plot(*points, **style)


def bars(axes: Axes, xs: Sequence[float], lows: Sequence[Any], highs: Sequence[Any], role: str) -> None:
    """Intervals as upright bars, where they are known."""
    for x, low, high in zip(xs, lows, highs, strict=True):
        if finite(low) and finite(high):
            axes.plot([x, x], [low, high], color=COLOUR[role], linewidth=1.6, alpha=0.8, marker="_", markersize=7)


def plain_ticks(axis: Axis, log: bool = False, share: bool = False) -> None:
    """Few ticks, labelled with plain numbers in place of powers of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if log:
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,), numticks=9))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{100 * value:g}{formats.NBSP}%" if share else f"{value:g}")


def heat(axes: Axes, values: Sequence[Sequence[Any]], columns: Sequence[str], rows: Sequence[str]) -> None:
    """Values from 0 to 1 as squares of one colour, the deeper the larger, each with its figure if there is room."""
    from matplotlib.patches import Rectangle

    written = len(rows) <= _WRITTEN and len(columns) <= _WRITTEN
    for y, line_of in enumerate(values):
        for x, value in enumerate(line_of):
            if not finite(value):
                continue
            depth = DEEPEST * min(1.0, max(0.0, value))
            square: Any = {"facecolor": COLOUR["student"], "alpha": depth, "linewidth": 0}
            axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **square))
            if written:
                style: Any = {"ha": "center", "va": "center", "fontsize": 11, "color": COLOUR["ink"]}
                figure = axes.text(x, y, f"{value:.2f}", **style)
                figure.set_gid("class-roomy" if len(columns) > _ROOM else None)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    every_x, every_y = -(-len(columns) // 24), -(-len(rows) // 24)
    name_ticks(axes.xaxis, columns, every_x)
    name_ticks(axes.yaxis, rows, every_y)


def name_ticks(axis: Axis, names: Sequence[str], every: int = 1) -> None:
    """Names in place of 0, 1, 2, ...; every so many of them."""
    axis.set_ticks(
        range(0, len(names), every), [squeezed(readable(name), _NAME) for name in names[::every]], parse_math=False
    )
