"""NumPy archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source, Table
from limbeck.data.sources._files import ends_with, existing_file, file_fingerprint


@part
class NPZ(Source):
    """A NumPy archive: each array is a column, its first axis the rows."""

    path: Path

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"path": value} if ends_with(value, ".npz") else None

    def load(self, split: str) -> Rows:
        arrays = self._arrays()
        if not arrays:
            raise DataError(f"{self.path} holds no arrays")
        if scalars := [name for name, array in arrays.items() if array.ndim == 0]:
            raise DataError(f"{self.path}: the array '{scalars[0]}' has no rows", got="a single value")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(f"the arrays of {self.path} differ in length", got=got, fix="give all the same first axis")
        return Rows(ArrayTable(arrays), origin=str(self.path))

    def _arrays(self) -> dict[str, Any]:
        import numpy as np

        file = existing_file(self.path)
        name = None
        try:
            # Opened here, for numpy leaves a file open that it cannot read.
            with file.open("rb") as stream:
                opened = np.load(stream, allow_pickle=False)
                if not isinstance(opened, np.lib.npyio.NpzFile):
                    raise DataError(f"{self.path} is a single array, not an archive", fix="write it with numpy.savez")
                arrays = {}
                for name in opened.files:
                    arrays[name] = opened[name]
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            if "allow_pickle" in str(error) and name is not None:
                what = f"{self.path}: the array '{name}' holds Python objects, which are pickled and never loaded"
                raise DataError(what, fix="save numbers, or strings with a fixed dtype such as '<U32'") from error
            raise DataError(f"{self.path} is not a whole NumPy archive", got=error) from error
        return arrays

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class ArrayTable(Table):
    """Rows of several arrays; an element is a NumPy scalar or a view of the array."""

    def __init__(self, arrays: Mapping[str, Any]):
        self._arrays = arrays
        self.column_names = tuple(arrays)

    def __len__(self) -> int:
        return len(self._arrays[self.column_names[0]])

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {name: array[index] for name, array in self._arrays.items()}

    def column(self, name: str) -> Sequence[Any]:
        return list(self._arrays[name])
