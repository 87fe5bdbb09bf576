"""Which classes of two vocabularies are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from limbeck.core.errors import ModelError


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    all_special_ids: list[int]
    added_tokens_decoder: Mapping[int, Any]

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        ...


@dataclass(frozen=True)
class Shared:
    """What two vocabularies have in common.

    Attributes:
        ids: sorted ids that mean the same token to both [S]; None where the two are equal row by row.
        note: one line for the report.
    """

    ids: Tensor | None
    note: str


def shared_vocabulary(
    student: Tokenizer, student_rows: int, teacher: Tokenizer, teacher_rows: int, names: tuple[str, str]
) -> Shared:
    """Compare two token maps; rows of padding and a few special tokens may differ, nothing else.

    Args:
        student: the student's tokenizer.
        student_rows: rows of its output matrix, padding among them.
        teacher: the teacher's tokenizer.
        teacher_rows: rows of the teacher's output matrix.
        names: student's and teacher's name, for messages.

    Raises:
        ModelError: ordinary tokens differ; the message names both models and an example.
    """
    mine, theirs = student.get_vocab(), teacher.get_vocab()
    if mine == theirs and student_rows == teacher_rows:
        return Shared(None, f"student and teacher share all {student_rows:,} vocabulary rows")
    rows = min(student_rows, teacher_rows)
    common = sorted(i for token, i in mine.items() if theirs.get(token) == i and i < rows)
    odd = [t for t in sorted(mine.keys() | theirs.keys()) if mine.get(t) != theirs.get(t)]
    special = _special(student, mine) | _special(teacher, theirs)
    if ordinary := [token for token in odd if token not in special]:
        token = ordinary[0]
        raise ModelError(
            f"student {names[0]} and teacher {names[1]} have different vocabularies",
            got=f"{len(ordinary):,} ordinary tokens differ; {token!r} is {mine.get(token)} in the student "
            f"and {theirs.get(token)} in the teacher",
            allowed="vocabularies that differ only by padded rows or special tokens",
            fix="a student of the teacher's family, the teacher's tokenizer, or the term likelihood_matching",
        )
    note = (
        f"student and teacher share {len(common):,} vocabulary rows, renormalised "
        f"(student has {student_rows:,}, teacher {teacher_rows:,}; {len(odd)} special tokens differ)"
    )
    return Shared(torch.tensor(common, dtype=torch.long), note)


def _special(tokenizer: Tokenizer, vocabulary: Mapping[str, int]) -> set[str]:
    ids = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return {token for token, i in vocabulary.items() if i in ids}


def refuse_unshared_inputs(ids: Sequence[int], shared: Shared, decode: Any, names: tuple[str, str]) -> None:
    """Raise if a text holds a token that the teacher would read as another one.

    Args:
        ids: every token id that occurs in the inputs, padding aside.
        shared: what the vocabularies have in common.
        decode: from an id to its token, for the message.
        names: student's and teacher's name.
    """
    if shared.ids is None:
        return
    if strange := sorted(set(ids) - set(shared.ids.tolist())):
        raise ModelError(
            f"the inputs hold tokens of {names[0]} that {names[1]} reads as something else",
            got=", ".join(f"{decode(i)!r} ({i})" for i in strange[:5]),
            fix="use a prompt without special tokens: task.template=plain",
        )
