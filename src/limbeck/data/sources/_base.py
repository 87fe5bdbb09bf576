"""What every source of rows can do, and what its rows may be besides a list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck.core.parts import Part
from limbeck.core.types import Rows


class Source(Part, ABC):
    """Rows from somewhere. Making one reads nothing; `load` does."""

    def has(self, split: str) -> bool:
        """Whether the source itself tells `train`, `validation` and `test` apart and has this one."""
        return False

    @abstractmethod
    def load(self, split: str) -> Rows:
        """The rows of a split; a source without splits gives all its rows whatever the name.

        Raises:
            DataError: nothing is there, or it is malformed; the file and the row are named.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the rows change; decides whether a finished step is up to date.

        Raises:
            DataError: the file does not exist.
        """


class Table(ABC):
    """Rows that are not a plain list of dictionaries: each is made when it is asked for.

    Attributes:
        column_names: the columns, which all rows share.
    """

    column_names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """One row; IndexError beyond the last."""

    def column(self, name: str) -> Sequence[Any]:
        """All values of a column, without making the others."""
        return [self[index][name] for index in range(len(self))]


@dataclass(frozen=True)
class NamedRows(Rows):
    """Rows whose source knows column by column which integers stand for classes.

    A table may hold several such columns (coarse and fine labels) beside numbers that are no classes (a
    rating), so `label_names` alone could name the wrong ones.

    Attributes:
        classes: by column, the names of 0, 1, 2, ...
    """

    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
