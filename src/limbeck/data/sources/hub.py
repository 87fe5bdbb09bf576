"""Datasets on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field

from limbeck.core.artifacts import digest_of
from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import NamedRows, Source, Table
from limbeck.data.sources._files import DATA_SUFFIXES, ends_with, folder_fingerprint

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@part
class Hub(Source):
    """A dataset on the Hugging Face Hub, or a folder of data files in one of its layouts.

    `subset` is what the hub calls a configuration; `splits` says which of its splits stands for ours, such as
    `{test: validation}` where the test labels are secret. Class numbers become their names.
    """

    name: str
    subset: str | None = None
    revision: str | None = None
    splits: dict[Literal["train", "validation", "test"], str] = Field(default_factory=dict)

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        if not isinstance(value, str) or not _NAME.fullmatch(value) or ends_with(value, *DATA_SUFFIXES):
            return None
        # A folder that is there is meant as such, though a name on the hub may look the same.
        return None if os.path.exists(value) else {"name": value}

    def has(self, split: str) -> bool:
        return self._theirs(split) in self._split_names()

    def load(self, split: str) -> Rows:
        builder, theirs = self._builder(), self._theirs(split)
        self._asked(builder.download_and_prepare)
        if theirs not in builder.info.splits:
            known = ", ".join(builder.info.splits)
            what = f"{self.name} has no split '{theirs}'"
            raise DataError(what, allowed=known, fix=f"splits: {{{split}: ...}} in the source, with one of these")
        dataset = self._asked(lambda: builder.as_dataset(split=theirs))
        features = dataset.features
        classes = {
            column: tuple(feature.names)
            for column, feature in features.items()
            if type(feature).__name__ == "ClassLabel" and feature.names
        }
        origin = f"{self.name} ({theirs})"
        only = next(iter(classes.values())) if len(classes) == 1 else None
        return NamedRows(_HubTable(dataset, origin), origin=origin, label_names=only, classes=classes)

    def fingerprint(self) -> str:
        folder = Path(self.name)
        if folder.is_dir():
            resolved = folder_fingerprint(folder, sorted(p for p in folder.rglob("*") if p.is_file()))
        else:
            resolved = self._builder().hash or "none"
        return digest_of({"name": self.name, "subset": self.subset, "splits": self.splits, "resolved": resolved})

    def _theirs(self, split: str) -> str:
        return {str(ours): theirs for ours, theirs in self.splits.items()}.get(split, split)

    def _split_names(self) -> list[str]:
        from datasets import get_dataset_split_names

        return self._asked(lambda: get_dataset_split_names(self.name, self.subset, revision=self.revision))

    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        builder = self._asked(lambda: load_dataset_builder(self.name, self.subset, revision=self.revision))
        # Out of reach of the hub, the library takes whatever copy it has, of any revision, and only warns.
        offline = type(builder).__module__.endswith("packaged_modules.cache.cache")
        if offline and self.revision is not None and builder.hash != self.revision:
            fix = "connect, or set `revision` to the commit of the copy"
            what = f"the hub cannot be reached, and the copy of {self.name} here may not be revision {self.revision}"
            raise DataError(what, got=builder.hash, fix=fix)
        return builder

    def _asked(self, question: Callable[[], T]) -> T:
        """What the library answers; its errors come from half a dozen packages and are told in one way."""
        try:
            return question()
        except Exception as error:
            subset = f" (subset {self.subset})" if self.subset else ""
            fix = "check the name, the subset and the network; if a local folder is meant, it does not exist yet"
            if Path(self.name).is_dir():
                fix = "check that the folder holds data files (JSON lines, CSV or Parquet) that `datasets` can load"
            got = f"{type(error).__name__}: {error}"
            raise DataError(f"the dataset {self.name}{subset} cannot be loaded", got=got, fix=fix) from error


class _HubTable(Table):
    def __init__(self, dataset: Any, origin: str):
        self._dataset, self._origin = dataset, origin
        self.column_names = tuple(dataset.column_names)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            row: Mapping[str, Any] = self._dataset[index]
        except (OSError, ValueError, RuntimeError, ImportError) as error:  # images and sound are decoded here
            raise DataError(f"{self._origin}, row {index} cannot be decoded", got=error) from error
        return row

    def column(self, name: str) -> Sequence[Any]:
        return list(self._dataset[name])
