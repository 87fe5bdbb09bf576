"""A matplotlib figure as SVG that belongs to a page: its colours, its font, a text alternative, no strays."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from limbeck.report.text import readable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROLES = (
    "ink",
    "muted",
    "line",
    "band",
    "ground",
    "teacher",
    "student",
    "compressed",
    "baseline",
    *(f"term-{i}" for i in range(1, 7)),
)
COLOUR = {role: f"#0c0d{i:02x}" for i, role in enumerate(_ROLES)}
"""Stand-ins that matplotlib draws with; the page's style gives each role its colour, light or dark."""

_CSS = {value: f"var(--{role})" for role, value in COLOUR.items()}
_XLINK = "{http://www.w3.org/1999/xlink}href"
WIDTH = 10.0
"""Width of a figure in inches of 72 units; the page scales it."""

NARROW = 4.9
"""Width of the same figure as a phone shows it, laid out anew."""

SMALL = 3.6
"""Width of one that stands beside others, the same everywhere."""

_SHAPES = {
    "o": "M10.4 4a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0",
    "s": "M10.8 0.8h6.4v6.4h-6.4z",
    "D": "M14 -0.2L18.2 4L14 8.2L9.8 4z",
    "^": "M14 0L18 7.4H10z",
    "v": "M14 8L18 0.6H10z",
    "P": "M12.7 0.2h2.6v2.5h2.5v2.6h-2.5v2.5h-2.6v-2.5h-2.5v-2.6h2.5z",
    "X": "M11.4 0L14 2.6L16.6 0L18 1.4L15.4 4L18 6.6L16.6 8L14 5.4L11.4 8L10 6.6L12.6 4L10 1.4z",
    "*": "M14 -0.4L15.1 2.7H18.2L15.7 4.7L16.7 8L14 6L11.3 8L12.3 4.7L9.8 2.7H12.9z",
    "block": "M7 -1H21V9H7z",
}
"""Marks of a legend, drawn in 28 by 8, by the names that matplotlib has for them."""


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend.

    Attributes:
        label: the name.
        role: its colour.
        dash: of its line.
        mark: of its points, as matplotlib calls it, or `block` for an area.
        line: whether it has a line.
    """

    label: str
    role: str
    dash: str = ""
    mark: str = ""
    line: bool = True

    @property
    def shape(self) -> str:
        """The mark as a path in 28 by 8, empty where there is none."""
        return _SHAPES.get(self.mark, "")


@dataclass(frozen=True)
class Plot:
    """A figure for the page.

    Attributes:
        id: unique on the page.
        title: its heading.
        svg: inline SVG with title and description; where a phone needs another layout, both.
        caption: what is seen and how it was drawn.
        keys: its legend, drawn by the page so that it wraps and can be read aloud.
        description: what is seen, in words, for those who do not see it.
    """

    id: str
    title: str
    svg: str
    caption: str
    keys: tuple[Key, ...] = ()
    description: str = ""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with matplotlib's defaults whatever the user's own settings; text stays text, ids stay the same."""
    import matplotlib
    from matplotlib import style

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "limbeck", "font.sans-serif": ["DejaVu Sans"]}
    with style.context("default"), matplotlib.rc_context(settings):
        yield


def canvas(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with quiet axes; no state is shared with other figures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    quiet(axes)
    return figure, axes


def quiet(axes: Axes) -> None:
    """Axes that step back behind what is drawn in them."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLOUR["muted"])
    axes.grid(axis="y", color=COLOUR["line"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=COLOUR["muted"], labelsize=11, pad=6)
    axes.tick_params(axis="x", length=4)


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Names where they are read without turning the head: y above, x below at the end."""
    style: Any = {"color": COLOUR["muted"], "fontsize": 11}
    # What is written here may be a user's, and no formula.
    axes.set_title(y, loc="left", pad=10, parse_math=False, **style).set_gid("class-axis")
    axes.set_xlabel(x, loc="right", labelpad=10, parse_math=False, **style).set_gid("class-axis")


def draw(figure: Figure, id: str, title: str, description: str) -> str:
    """The figure as one `<svg>` element, the same bytes for the same figure."""
    _clean(figure)
    return _element(figure, id, title, description)


def draw_for_page(figure: Figure, id: str, title: str, description: str) -> str:
    """The same for a page; a wide figure twice, the second laid out for a phone, and the style sheet shows one."""
    _clean(figure)
    if figure.get_figwidth() < WIDTH:
        return _element(figure, id, title, description)
    wide = _element(figure, id, title, description, "wide")
    figure.set_figwidth(NARROW)
    return wide + _element(figure, f"{id}-n", title, description, "narrow")


def _clean(figure: Figure) -> None:
    from matplotlib.text import Text

    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):  # the page's ground shows through
        patch.set(facecolor="none", edgecolor="none")
    for axes in figure.axes:  # but for the ticks' texts, which are written anew while they are drawn
        written = [each for each in axes.get_children() if isinstance(each, Text)]
        for text in (*written, axes.xaxis.label, axes.yaxis.label):
            text.set_text(readable(text.get_text()))


def _element(figure: Figure, id: str, title: str, description: str, kind: str = "") -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The page's font draws the text; that matplotlib's own lacks a character does not matter.
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph .* missing from")
        # Not `savefig`: it draws every figure that lays itself out twice.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for child in list(root):
        if _tag(child) == "metadata" or (_tag(child) == "defs" and _is_style(child)):
            root.remove(child)
    _adopt(root, id)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib.clear()
    root.attrib.update({"class": kind} if kind else {})
    root.attrib.update({"viewBox": f"0 0 {width} {height}", "role": "img", "aria-labelledby": f"{id}-t {id}-d"})
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{id}-{tag[0]}"})
        element.text = readable(text)
        root.insert(position, element)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _is_style(defs: ElementTree.Element) -> bool:
    """True for the style sheet that matplotlib adds: inline it would reach the whole page."""
    return all(_tag(child) == "style" for child in defs)


def _adopt(root: ElementTree.Element, id: str) -> None:
    """Plain tags, ids of the page, the page's colours and font, two decimals."""
    used = set(re.findall(r"url\(#([^)]+)\)", ElementTree.tostring(root, encoding="unicode")))
    used |= {e.attrib[_XLINK][1:] for e in root.iter() if _XLINK in e.attrib}
    for element in root.iter():
        element.tag = _tag(element)
        attrib = element.attrib
        if _XLINK in attrib:
            attrib["href"] = f"#{id}-{attrib.pop(_XLINK)[1:]}"
        if attrib.get("id", "").startswith("class-"):  # a gid set here on purpose
            attrib["class"] = attrib.pop("id").removeprefix("class-")
        elif "id" in attrib and attrib["id"] not in used:
            del attrib["id"]
        elif "id" in attrib:
            attrib["id"] = f"{id}-{attrib['id']}"
        for name in ("d", "x", "y", "transform", "points", "width", "height"):
            if name in attrib:
                attrib[name] = re.sub(r"-?\d+\.\d+", _shorter, attrib[name].replace("\n", ""))
        if "clip-path" in attrib:
            attrib["clip-path"] = attrib["clip-path"].replace("url(#", f"url(#{id}-")
        if "style" in attrib:
            style = re.sub(r"font-family:[^;]*;? ?", "", attrib["style"])
            if sized := re.search(r"font-size: (\d+)px;? ?", style):  # an attribute, so that the page may enlarge it
                attrib["font-size"], style = sized[1], style.replace(sized[0], "")
            attrib["style"] = re.sub(r"#0c0d[0-9a-f]{2}", lambda m: _CSS.get(m[0], m[0]), style)
        if element.tail:
            element.tail = element.tail.strip()
        if element.text and element.tag != "text":
            element.text = element.text.strip()


def _shorter(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
