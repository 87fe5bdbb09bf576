"""What can be told of a page without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADS = {"src", "href", "data", "poster", "srcset", "action", "xlink:href"}


@dataclass
class Element:
    """An element that was opened."""

    tag: str
    attrs: dict[str, str | None]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Element]:
        """Every element of a kind below this one."""
        found = [self] if self.tag == tag else []
        return found + [e for child in self.children for e in child.all(tag)]


class Page(HTMLParser):
    """A tree of a page; a tag that is closed out of turn, or never, is an error."""

    def __init__(self, text: str):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], f"never closed: {[e.tag for e in self.open[1:]]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice in <{tag}>: {names}"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data

    def loads(self) -> list[str]:
        """Addresses that the page would fetch or follow, places in itself and pictures that it holds aside."""
        found = [v for e in self.elements() for k, v in e.attrs.items() if k in LOADS and v]
        return [address for address in found if not address.startswith(("#", "data:image/png;base64,"))]

    def elements(self) -> list[Element]:
        """All elements in the order of the page."""

        def below(element: Element) -> list[Element]:
            return [e for child in element.children for e in (child, *below(child))]

        return below(self.root)

    def ids(self) -> list[str]:
        """Every id."""
        return [e.attrs["id"] or "" for e in self.elements() if "id" in e.attrs]
