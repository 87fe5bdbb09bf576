"""Which classes two vocabularies share, and what the loss makes of it.

Shapes: V classes of the student, U of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from limbeck.alignment.vocabulary import Shared, refuse_unshared_inputs, shared_vocabulary
from limbeck.core.errors import ModelError
from limbeck.core.types import Dense
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.kl import KL
from limbeck.tasks._text import train_bpe

NAMES = ("org/small", "org/large")
WORDS = {f"w{i}": i for i in range(8)}


@dataclass
class Tokens:
    """A tokenizer as far as it is asked here."""

    vocabulary: dict[str, int]
    all_special_ids: list[int] = field(default_factory=list)
    added_tokens_decoder: Mapping[int, Any] = field(default_factory=dict)

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


def shared(student: Tokens, rows: int, teacher: Tokens, teacher_rows: int) -> Shared:
    return shared_vocabulary(student, rows, teacher, teacher_rows, NAMES)


def test_equal_vocabularies_share_all_rows() -> None:
    """Rows of padding too: both models were trained with them in the sum."""
    found = shared(Tokens(WORDS), 10, Tokens(dict(reversed(WORDS.items()))), 10)
    assert found.ids is None
    assert "share all 10 vocabulary rows" in found.note


@pytest.mark.parametrize(("rows", "teacher_rows"), [(8, 12), (12, 8), (10, 12)])
def test_padded_rows_are_cut_off(rows: int, teacher_rows: int) -> None:
    found = shared(Tokens(WORDS), rows, Tokens(WORDS), teacher_rows)
    assert found.ids is not None
    assert found.ids.tolist() == list(range(8))
    assert f"student has {rows}, teacher {teacher_rows}; 0 special tokens differ" in found.note


def test_special_tokens_may_differ() -> None:
    """By place, by name, or by being there at all; all that is left is what both know at the same id."""
    student = Tokens({**WORDS, "<eos>": 8, "<pad>": 9}, [8, 9])
    teacher = Tokens({**WORDS, "<eos>": 9, "<tool>": 8, "<more>": 10}, [9], {8: "<tool>", 10: "<more>"})
    found = shared(student, 10, teacher, 11)
    assert found.ids is not None
    assert found.ids.tolist() == list(range(8))
    assert "4 special tokens differ" in found.note
    between = Tokens({**{w: i + (i > 2) for w, i in WORDS.items()}, "<a>": 3}, [3])
    other = Tokens({**{w: i + (i > 2) for w, i in WORDS.items()}, "<b>": 3}, [3])
    assert shared(between, 9, other, 9).ids.tolist() == [0, 1, 2, 4, 5, 6, 7, 8]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "teacher",
    [
        Tokens({**WORDS, "w6": 7, "w7": 6}),
        Tokens({**WORDS, "w8": 8}),
        Tokens({w: i for w, i in WORDS.items() if w != "w6"}),
        Tokens({w: i + 1 for w, i in WORDS.items()} | {"<bos>": 0}, [0]),
    ],
    ids=["swapped", "more", "fewer", "moved"],
)
def test_ordinary_tokens_may_not_differ(teacher: Tokens) -> None:
    with pytest.raises(ModelError, match=r"student org/small and teacher org/large have different") as caught:
        shared(Tokens(WORDS), 8, teacher, 9)
    odd = next(
        t for t in sorted(WORDS | teacher.vocabulary) if WORDS.get(t) != teacher.vocabulary.get(t) and t[0] == "w"
    )
    assert f"{odd!r} is {WORDS.get(odd)} in the student and {teacher.vocabulary.get(odd)} in the" in str(caught.value)


def test_real_tokenizers() -> None:
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    one, other = (train_bpe([text * 20], 300, special) for text in ("hello world ", "some other words "))
    assert shared_vocabulary(one, 300, one, 300, NAMES).ids is None
    with pytest.raises(ModelError, match="ordinary tokens differ"):
        shared_vocabulary(one, 300, other, 300, NAMES)
    grown = train_bpe(["hello world " * 20], 300, special)
    grown.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    found = shared_vocabulary(one, 304, grown, 304, NAMES)
    assert found.ids is not None
    assert len(found.ids) == len(one)


def test_inputs_must_be_shared() -> None:
    part = Shared(torch.arange(8), "")
    decode = {8: "<eos>", 9: "<pad>"}.get
    refuse_unshared_inputs([0, 3, 7], part, decode, NAMES)
    refuse_unshared_inputs([0, 9], Shared(None, ""), decode, NAMES)
    with pytest.raises(
        ModelError, match=r"tokens of org/small that org/large reads(.|\n)*'<eos>' \(8\), '<pad>' \(9\)"
    ):
        refuse_unshared_inputs([9, 0, 8, 8], part, decode, NAMES)


def test_the_loss_is_renormalised_over_what_is_shared() -> None:
    """Padded rows hold garbage after training; neither model's may weigh in."""
    found = shared(Tokens(WORDS), 10, Tokens(WORDS), 12)
    mine, told = torch.randn(3, 10, dtype=torch.float64), torch.randn(3, 12, dtype=torch.float64)
    labels = torch.tensor([0, 3, -100])

    def loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return distribution_loss(Dense(student), Dense(teacher), labels, [KL()], [1.0], shared=found.ids)[0]

    p, q = told[:2, :8].softmax(1), mine[:2, :8].softmax(1)
    value = loss(mine, told)
    torch.testing.assert_close(value, (p * (p / q).log()).sum())
    garbage = (torch.cat([mine[:, :8], mine[:, 8:] + 50], 1), torch.cat([told[:, :8], told[:, 8:] - 50], 1))
    torch.testing.assert_close(loss(*garbage), value)
    torch.testing.assert_close(loss(mine, torch.cat([mine[:, :8] + 4, told[:, 8:]], 1)), torch.zeros_like(value))
