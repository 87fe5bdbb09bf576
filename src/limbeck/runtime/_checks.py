"""What every runner sees to before an engine gets a batch, and the files that a folder may name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import ModelError
from limbeck.runtime._base import Arrays, Tensors


def fitting(given: Arrays, wanted: Mapping[str, Tensors]) -> dict[str, NDArray[np.generic]]:
    """The arrays that a model takes, each of the right type and shape.

    Raises:
        ModelError: one is missing, or of another type or shape, or they differ in their number of rows.
    """
    found: dict[str, NDArray[np.generic]] = {}
    for name, tensors in wanted.items():
        if name not in given:
            raise ModelError(f"the model's input `{name}` is missing", got=", ".join(given) or "nothing")
        array = given[name]
        fits = array.ndim == len(tensors.shape) and all(
            size is None or size == there for size, there in zip(tensors.shape, array.shape, strict=True)
        )
        if array.dtype.name != tensors.dtype or not fits or not array.size:
            shape = tuple("any" if size is None else size for size in tensors.shape)
            allowed = f"{tensors.dtype} of shape ({', '.join(map(str, shape))})"
            raise ModelError(
                f"the model's input `{name}` does not fit", got=f"{array.dtype.name} {array.shape}", allowed=allowed
            )
        found[name] = array
    if len(rows := {name: len(array) for name, array in found.items()}) > 1 and len(set(rows.values())) > 1:
        raise ModelError("the model's inputs differ in their number of rows", got=rows)
    return found


def file_inside(folder: Path, name: Any, what: str) -> Path:
    """A file that something in a folder names, made sure to be there and not outside of the folder.

    Args:
        folder: where names begin.
        name: as it is given, perhaps by a stranger.
        what: who names it, for the message.

    Raises:
        ModelError: it leads out of the folder, or nothing is there.
    """
    home = folder.resolve()
    path = (home / str(name)).resolve()
    if not isinstance(name, str) or not path.is_relative_to(home) or path == home:
        raise ModelError(f"{what} names a file outside of its folder", got=name, allowed=f"files in {folder}")
    if not path.is_file():
        raise ModelError(f"{what} names a file that is not there", got=name)
    return path
