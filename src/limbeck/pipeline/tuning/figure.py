"""What a search found, as a picture: the metric against each value that was searched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from limbeck.core.recipe import Between, Choices, Sweep
from limbeck.report.svg import COLOUR, WIDTH, draw, house_style, name_axes, quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FONT = 'svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}'


@dataclass(frozen=True)
class Point:
    """A trial in the picture.

    Attributes:
        values: by path.
        score: of the metric.
    """

    values: Mapping[str, Any]
    score: float


def search_figure(
    space: Mapping[str, Sweep | Between | Choices],
    points: Sequence[Point],
    best: Point,
    metric: str,
    standard_error: float | None,
) -> str:
    """An SVG file: a panel for each searched key, the best trial ringed, a band one standard error wide.

    Args:
        space: what was searched; it says which axes are logarithmic.
        points: the trials that have a score.
        best: one of them.
        metric: its name.
        standard_error: of the best trial's score; None draws no band.
    """
    from matplotlib.figure import Figure

    names = short_names(space)
    with house_style():
        figure = Figure(figsize=(WIDTH, 3.2 * len(space)), layout="constrained")
        for axes, key in zip(figure.subplots(len(space), 1, squeeze=False)[:, 0], space, strict=True):
            quiet(axes)
            _panel(axes, key, space[key], points, best)
            if standard_error is not None:
                low, high = best.score - standard_error, best.score + standard_error
                axes.axhspan(low, high, color=COLOUR["band"], linewidth=0, zorder=0)
            name_axes(axes, names[key], f"{metric.capitalize()} on the validation rows")
        told = ", ".join(f"{names[key]} {best.values[key]}" for key in space)
        description = f"{len(points)} trials. Best {metric}: {best.score:.4g} at {told}."
        svg = draw(figure, "tune", f"Validation {metric} against each searched value", description)
    return _alone(svg)


def _panel(axes: Axes, key: str, axis: Sweep | Between | Choices, points: Sequence[Point], best: Point) -> None:
    """The trials by one of their values."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if isinstance(axis, Choices):
        known = axis.points()
        place = {repr(value): i for i, value in enumerate(known)}
        axes.set_xticks(range(len(known)), [str(value) for value in known], parse_math=False)
        axes.set_xlim(-0.5, len(known) - 0.5)
    elif isinstance(axis, Between) and axis.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())

    def x(point: Point) -> Any:
        return place[repr(point.values[key])] if isinstance(axis, Choices) else point.values[key]

    dots: Any = {"linestyle": "", "marker": "o", "color": COLOUR["student"], "markeredgewidth": 0}
    axes.plot([x(point) for point in points], [point.score for point in points], markersize=6, alpha=0.75, **dots)
    ring: Any = {"markeredgecolor": COLOUR["student"], "markerfacecolor": COLOUR["ground"], "markeredgewidth": 2.2}
    axes.plot([x(best)], [best.score], linestyle="", marker="o", markersize=10, zorder=5, **ring)
    axes.margins(y=0.12)


def short_names(paths: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """The shortest endings that still tell the paths apart: `temperature`, or `kl.weight` and `hidden.weight`."""
    found = {}
    for path in paths:
        words = path.split(".")
        endings = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        clashes = {ending: sum(f".{other}".endswith(f".{ending}") for other in paths) for ending in endings}
        found[path] = next((ending for ending in endings if clashes[ending] == 1), path)
    return found


def _alone(svg: str) -> str:
    """The report's figure as a file of its own: it brings the page's colours, light and dark, and its font."""
    style = files("limbeck.report").joinpath("page.css").read_text(encoding="utf-8")
    colours = style[: re.search(r"^\*", style, re.MULTILINE).start()]  # type: ignore[union-attr]
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background:var(--ground)"'
    return svg.replace("<svg", head, 1).replace("<title", f"<style>{colours}{_FONT}</style><title", 1) + "\n"
