from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from limbeck.serving.errors import BadRequest
from limbeck.serving.tensors import DATATYPES, Tensor, from_bytes, from_json, from_values, texts, to_bytes, to_json

NUMBERS = [name for name in DATATYPES if name != "BYTES"]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    datatype = draw(st.sampled_from(NUMBERS))
    shape = draw(arrays_of.array_shapes(max_dims=4, max_side=4))
    dtype = np.dtype(DATATYPES[datatype])
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    elements = arrays_of.from_dtype(dtype, **finite)  # type: ignore[call-overload]
    return datatype, draw(arrays_of.arrays(dtype, shape, elements=elements))


@given(tensors())
def test_what_is_written_is_read(given_: tuple[str, NDArray[Any]]) -> None:
    datatype, array = given_
    tensor = Tensor("x", array)
    assert tensor.datatype == datatype
    for again in (
        from_bytes("x", datatype, array.shape, to_bytes(tensor)),
        from_json("x", datatype, array.shape, to_json(tensor)),
        from_json("x", datatype, array.shape, array.tolist()),
    ):
        assert again.array.dtype == array.dtype
        np.testing.assert_array_equal(again.array, array)


@given(st.lists(st.text(), min_size=1))
def test_texts_are_read_as_they_were_written(values: list[str]) -> None:
    tensor = Tensor("x", texts(values))
    found = from_bytes("x", "BYTES", [len(values)], to_bytes(tensor)).array
    assert [value.decode() for value in found] == values
    assert to_json(Tensor("x", from_json("x", "BYTES", [len(values)], values).array)) == values


@given(st.binary(max_size=64), st.sampled_from(list(DATATYPES)), st.lists(st.integers(-1, 9), max_size=9))
def test_any_bytes_are_read_or_refused(data: bytes, datatype: str, shape: list[int]) -> None:
    try:
        tensor = from_bytes("x", datatype, shape, data)
    except BadRequest:
        return
    assert list(tensor.array.shape) == shape
    assert to_bytes(tensor) == data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda of: st.lists(of, max_size=4)
)


@given(st.lists(JSON, max_size=4), st.sampled_from(list(DATATYPES)), st.lists(st.integers(-1, 4), max_size=4))
def test_any_json_is_read_or_refused(data: list[Any], datatype: str, shape: list[int]) -> None:
    for read in (from_json, from_values):
        try:
            tensor = read("x", datatype, shape, data)
        except BadRequest:
            continue
        assert list(tensor.array.shape) == shape


def test_infinite_numbers_are_not_written_as_json() -> None:
    with pytest.raises(ValueError, match="not a number"):
        to_json(Tensor("x", np.array([np.inf])))


@pytest.mark.parametrize(("datatype", "value"), [("FP16", 1e6), ("UINT8", 256), ("INT8", -129), ("UINT64", -1)])
def test_numbers_beyond_their_type_are_refused(datatype: str, value: float) -> None:
    with pytest.raises(BadRequest):
        from_json("x", datatype, [1], [value])


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bytes_that_are_no_numbers_are_refused(datatype: str, value: float) -> None:
    data = np.array([1.0, value], dtype={"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes()
    with pytest.raises(BadRequest, match=datatype):
        from_bytes("x", datatype, [2], data)
