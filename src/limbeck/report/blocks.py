"""What a report is built of: sections of blocks. Templates draw them; JSON and Markdown are told from the same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from limbeck.report.svg import Plot


@dataclass(frozen=True)
class Cell:
    """A value and what is said in small print beneath it; `tone` is better or worse, or nothing.

    `image` is a picture that is shown above them, as the address that holds it.
    """

    text: str
    small: str = ""
    tone: str = ""
    image: str = ""


@dataclass(frozen=True)
class Line:
    """A row: its heading and its cells."""

    head: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table ready to print; one without rows is not shown.

    Attributes:
        caption: what it shows.
        columns: headings, that of the row headings first.
        lines: the rows.
        words: positions of columns that hold words, not figures.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    words: Collection[int] = ()

    def __bool__(self) -> bool:
        return bool(self.lines)


@dataclass(frozen=True)
class Figures:
    """Plots under one heading, side by side where there is room."""

    kind: ClassVar[str] = "figures"
    title: str
    plots: tuple[Plot, ...]

    def __bool__(self) -> bool:
        return bool(self.plots)


@dataclass(frozen=True)
class Sentences:
    """Things said, one after the other; a name may stand before each."""

    kind: ClassVar[str] = "sentences"
    items: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.items)


@dataclass(frozen=True)
class Pairs:
    """Names and what they stand for."""

    kind: ClassVar[str] = "pairs"
    items: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.items)


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    kind: ClassVar[str] = "code"
    label: str
    text: str

    def __bool__(self) -> bool:
        return bool(self.text)


@dataclass(frozen=True)
class Fold:
    """A block that is opened on demand; on paper it is open."""

    kind: ClassVar[str] = "fold"
    summary: str
    block: Table | Code

    def __bool__(self) -> bool:
        return bool(self.block)


@dataclass(frozen=True)
class Piece:
    """A stretch of text that both sides have, or only the teacher (`change` is `del`), or only the student (`ins`)."""

    text: str
    change: str = ""


@dataclass(frozen=True)
class Pair:
    """A step of the teacher's beside the student's; a side may have none."""

    teacher: tuple[Piece, ...]
    student: tuple[Piece, ...]


@dataclass(frozen=True)
class Example:
    """A row where student and teacher differ.

    Attributes:
        id: of the row.
        title: what happened there.
        tone: `better` if the student mended it, `worse` if it lost it.
        given: names and texts: input, target, reference.
        pairs: what both answered, step by step.
        caption: of the two answers.
    """

    id: str
    title: str
    tone: str
    given: tuple[tuple[str, str], ...]
    pairs: tuple[Pair, ...]
    caption: str


@dataclass(frozen=True)
class Examples:
    """Rows where student and teacher differ, their differences marked."""

    kind: ClassVar[str] = "examples"
    key: str
    items: tuple[Example, ...]

    def __bool__(self) -> bool:
        return bool(self.items)


@dataclass(frozen=True)
class Token:
    """A piece of an answer, how far the student is from the teacher there in nats, and that as a degree, 0 to 5."""

    text: str
    value: str
    degree: int


@dataclass(frozen=True)
class Tokens:
    """Answers of which each token is shaded by its divergence."""

    kind: ClassVar[str] = "tokens"
    title: str
    key: str
    items: tuple[tuple[str, tuple[Token, ...]], ...]

    def __bool__(self) -> bool:
        return bool(self.items)


Block = Table | Figures | Sentences | Pairs | Code | Fold | Examples | Tokens


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        id: of the heading.
        title: of it.
        blocks: what is in it; empty ones are not shown.
        seen: False for a heading that only a screen reader tells.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    seen: bool = True

    @property
    def shown(self) -> list[Block]:
        """The blocks that have something to show."""
        return [block for block in self.blocks if block]
