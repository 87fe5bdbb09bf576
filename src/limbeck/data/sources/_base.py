"""What every source of rows can do."""

from __future__ import annotations

from abc import ABC, abstractmethod

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
