"""Tensors of the Open Inference Protocol: JSON, and bytes as Triton's binary extension and gRPC have them.

Reference:
    Open Inference Protocol, version 2, https://github.com/kserve/open-inference-protocol; binary tensor data extension,
    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.serving.errors import BadRequest

DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
"""numpy's names of the protocol's types; BYTES is an array of `bytes` objects."""
DATATYPE = {name: datatype for datatype, name in DATATYPES.items()}
"""The protocol's names of numpy's types."""
_DIMENSIONS = 8
_JSON_KINDS: dict[str, tuple[type, ...]] = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float), "O": (str,)}


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Attributes:
        name: of the model's input or output.
        array: its values; of BYTES an array of objects.
    """

    name: str
    array: NDArray[Any]

    @property
    def datatype(self) -> str:
        """The protocol's name of its type."""
        return DATATYPE[self.array.dtype.name]


def from_json(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Tensor:
    """A tensor from a JSON list, flat or nested as its shape is.

    Raises:
        BadRequest: type, shape and data do not fit each other.
    """
    dtype, shape = _dtype(name, datatype), _shape(name, shape)
    flat = data
    if data and isinstance(data[0], list):
        flat = _flat(name, data, shape)
    if len(flat) != prod(shape):
        raise BadRequest(f"the data of `{name}` does not fit its shape", got=f"{len(flat)} values, shape {list(shape)}")
    kinds = _JSON_KINDS[dtype.kind]
    if not all(type(value) in kinds for value in flat):
        wrong = next(value for value in flat if type(value) not in kinds)
        raise BadRequest(f"the data of `{name}` is not {datatype}", got=type(wrong).__name__)
    if dtype.kind == "O":
        return Tensor(name, _objects([value.encode() for value in flat], shape))
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype=dtype)
    except (OverflowError, ValueError) as error:
        raise BadRequest(f"a value of `{name}` is no {datatype}") from error
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"a value of `{name}` is no {datatype}")
    return Tensor(name, array.reshape(shape))


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Tensor:
    """A tensor from its values one after another, little-endian; of BYTES each with four bytes for its length.

    Raises:
        BadRequest: type, shape and data do not fit each other.
    """
    dtype, shape = _dtype(name, datatype), _shape(name, shape)
    if dtype.kind == "O":
        return Tensor(name, _objects(_elements(name, memoryview(data), prod(shape)), shape))
    if len(data) != prod(shape) * dtype.itemsize:
        got = f"{len(data)} bytes, shape {list(shape)} of {datatype}"
        raise BadRequest(f"the data of `{name}` does not fit its shape", got=got)
    if dtype.kind == "b" and any(byte > 1 for byte in bytes(data)):
        raise BadRequest(f"a value of `{name}` is no BOOL")
    array = np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise BadRequest(f"a value of `{name}` is no {datatype}")
    return Tensor(name, array)


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
    """A tensor from the typed contents of a gRPC message.

    Raises:
        BadRequest: type, shape and data do not fit each other.
    """
    if datatype == "BYTES":
        shape = _shape(name, shape)
        if len(values) != prod(shape):
            got = f"{len(values)} values, shape {list(shape)}"
            raise BadRequest(f"the data of `{name}` does not fit its shape", got=got)
        return Tensor(name, _objects(list(values), shape))
    return from_json(name, datatype, shape, values)


def to_json(tensor: Tensor) -> list[Any]:
    """The values of a tensor, flat.

    Raises:
        ValueError: a number is not finite, or bytes are no text.
    """
    flat = tensor.array.reshape(-1)
    if tensor.array.dtype.kind == "O":
        return [value.decode() for value in flat]
    if tensor.array.dtype.kind == "f" and not np.isfinite(flat).all():
        raise ValueError("not a number")
    found: list[Any] = flat.tolist()
    return found


def to_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor as `from_bytes` reads them."""
    if tensor.array.dtype.kind == "O":
        return b"".join(len(value).to_bytes(4, "little") + value for value in tensor.array.reshape(-1))
    array = np.ascontiguousarray(tensor.array)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def texts(values: Sequence[str]) -> NDArray[Any]:
    """Texts as an array of BYTES."""
    return _objects([value.encode() for value in values], (len(values),))


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    if datatype not in DATATYPES:
        raise BadRequest(f"`{name}` is of a type that is not known", allowed=", ".join(DATATYPES))
    return np.dtype(DATATYPES[datatype])


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if not 0 < len(shape) <= _DIMENSIONS or any(type(size) is not int or size < 1 for size in shape):
        raise BadRequest(f"the shape of `{name}` is not 1 to {_DIMENSIONS} sizes above zero")
    return tuple(shape)


def _flat(name: str, data: Sequence[Any], shape: Sequence[int]) -> Sequence[Any]:
    """Nested lists as one; each level must be as long as the shape says, so that depth is bounded."""
    level: Sequence[Any] = [data]
    for size in shape:
        if not all(type(each) is list and len(each) == size for each in level):
            raise BadRequest(f"the data of `{name}` is not nested as its shape is", got=f"shape {list(shape)}")
        level = [value for each in level for value in each]
    return level


def _elements(name: str, data: memoryview, count: int) -> list[bytes]:
    found: list[bytes] = []
    place = 0
    while len(found) < count and place + 4 <= len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        found.append(bytes(data[place + 4 : place + 4 + size]))
        place += 4 + size
    if len(found) != count or place != len(data):
        raise BadRequest(f"the data of `{name}` does not fit its shape", got=f"{len(data)} bytes for {count} values")
    return found


def _objects(values: list[bytes], shape: Sequence[int]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)
