from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.runtime import Tensors
from limbeck.serving.errors import BadRequest
from limbeck.serving.rows import check, group_of, length_of, split, stack

TEXT = {"input_ids": Tensors("int64", (None, None)), "attention_mask": Tensors("int64", (None, None))}
PIXELS = {"pixel_values": Tensors("float32", (None, 3, 8, 8))}
SOUND = {"input_values": Tensors("float32", (None, None))}


def tokens(length: int, value: int = 1) -> dict[str, NDArray[Any]]:
    return {"input_ids": np.full(length, value), "attention_mask": np.ones(length, dtype=np.int64)}


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_rows_are_padded_at_the_end_and_masked(lengths: list[int]) -> None:
    batch = stack([tokens(length, i + 1) for i, length in enumerate(lengths)], {"input_ids": 99})
    assert batch["input_ids"].shape == (len(lengths), max(lengths))
    assert batch["attention_mask"].sum(1).tolist() == lengths
    for i, length in enumerate(lengths):
        assert (batch["input_ids"][i, :length] == i + 1).all()
        assert (batch["input_ids"][i, length:] == 99).all()


def test_a_batch_that_is_split_and_stacked_is_as_it_was() -> None:
    batch = {"a": np.arange(12).reshape(4, 3), "b": np.random.default_rng(0).random((4, 2, 2))}
    again = stack(split(batch), {})
    assert all((again[name] == batch[name]).all() for name in batch)


def test_lengths_and_groups() -> None:
    assert length_of(tokens(7), TEXT) == 7
    assert group_of(tokens(7), TEXT) == group_of(tokens(9), TEXT)
    picture = {"pixel_values": np.zeros((3, 8, 8), dtype=np.float32)}
    assert length_of(picture, PIXELS) == 1
    short, long = ({"input_values": np.zeros(n, dtype=np.float32)} for n in (5, 6))
    assert group_of(short, SOUND) != group_of(long, SOUND)  # zeros are no padding for what is no token


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"input_ids": np.ones((1, 2), dtype=np.int64)}, "missing"),
        ({**{k: v[None] for k, v in tokens(2).items()}, "x": np.ones(1)}, "no input `x`"),
        ({"input_ids": np.ones((1, 2)), "attention_mask": np.ones((1, 2), dtype=np.int64)}, "does not fit"),
        ({"input_ids": np.ones(2, dtype=np.int64), "attention_mask": np.ones((1, 2), dtype=np.int64)}, "does not fit"),
        ({k: np.ones(s, dtype=np.int64) for k, s in (("input_ids", (1, 2)), ("attention_mask", (2, 2)))}, "differ"),
        ({k: np.ones(s, dtype=np.int64) for k, s in (("input_ids", (1, 2)), ("attention_mask", (1, 3)))}, "differ"),
        ({name: np.ones((1, 0), dtype=np.int64) for name in TEXT}, "does not fit"),
    ],
)
def test_arrays_that_a_model_cannot_take_are_refused(arrays: dict[str, NDArray[Any]], what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        check(arrays, TEXT)


def test_arrays_in_the_wrong_size_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"allowed: float32 \[-1,3,8,8\]"):
        check({"pixel_values": np.zeros((1, 3, 8, 9), dtype=np.float32)}, PIXELS)
