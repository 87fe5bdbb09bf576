"""The one pass that all distribution terms of a stage share.

hidden x head is multiplied a chunk of valid rows at a time; every term's formula is evaluated on that chunk,
and the gradients are taken at once, in the forward pass. Tokens x vocabulary is never held. This works because
the weights of the terms and the number of units are known before the forward pass, so that the gradient of the
total is final but for one common factor.

Shapes: N rows (valid positions), B samples, D and E hidden width of student and teacher, V vocabulary of the
student, S what student and teacher share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from limbeck.core.errors import DataError, RecipeError
from limbeck.core.types import IGNORE, Blend, Dense, Dist, Head, Mixture, Sampled, TopK
from limbeck.objectives.base import DistributionTerm
from limbeck.objectives.chunk import Chunk, floored
from limbeck.objectives.mixture import MixedRows
from limbeck.objectives.sparse import Support, support
from limbeck.objectives.sweep import FusedRows, Rows, Sweep, exact_type, working_type

__all__ = ["CHUNK_BYTES", "Chunk", "distribution_loss"]

CHUNK_BYTES = 84 * 2**20
"""Memory of one chunk's logits, student's and teacher's together; the rest of a pass is small beside it."""


def distribution_loss(
    student: Dist,
    teacher: Dist | None,
    labels: Tensor,
    terms: Sequence[DistributionTerm],
    weights: Sequence[float],
    *,
    shared: Tensor | None = None,
    progress: float = 0.0,
    row_weights: Tensor | None = None,
    teacher_weights: Tensor | None = None,
    blend: Blend | None = None,
    learned: Mapping[str, Tensor] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of terms over all valid rows, in one pass.

    Args:
        student: logits [..., V], or hidden states [..., D] and the head that makes them.
        teacher: the same of the teacher, for the same rows, or what was recorded of it; gradients never reach it.
        labels: [...], `IGNORE` where nothing is learned.
        terms: formulas, each giving a value per row.
        weights: their weights now.
        shared: sorted ids of the classes that both have, where the vocabularies differ [S].
        progress: share of the stage that is done.
        row_weights: how much each label counts, like `labels`; rows of weight zero are left out.
        teacher_weights: the teacher's say in each sample [B]: multiplies the terms that ask it.
        blend: the second label of samples that were blended of two.
        learned: by label of a term, a tensor that it reads as `chunk.learned[label]` and that gets a gradient.
        chunk_bytes: bound on one chunk's logits.

    Returns:
        The total, with gradients for `student` and `learned`, and each term's sum without its weight, detached.

    Raises:
        RecipeError: a term cannot work with what the teacher gives.
        DataError: a blended sample lacks its second label.
        ModelError: a recorded teacher names a class that the student does not have.
    """
    keep = labels != IGNORE if row_weights is None else (labels != IGNORE) & (row_weights != 0)
    flat = keep.flatten()
    given = _rows(student, flat)
    exact = exact_type(given.logits.dtype if isinstance(given, Dense) else given.hidden.dtype)

    say_N = _spread(teacher_weights, labels, flat, exact)
    rows = Rows(
        terms,
        weights,
        labels.flatten()[flat],
        _told(_needed(terms, teacher), flat, given, shared, say_N),
        chunk_bytes,
        None if row_weights is None else row_weights.flatten()[flat].to(exact),
        say_N,
        shared,
        progress,
        *_blended(blend, labels, keep, exact),
        learned or {},
    )
    total, sums = _evaluate(given, rows, exact)
    return total, {term.label: value for term, value in zip(terms, sums.unbind(), strict=True)}


def _spread(per_sample: Tensor | None, labels: Tensor, keep: Tensor, exact: torch.dtype) -> Tensor | None:
    """What is known for each sample, for each row that counts."""
    if per_sample is None:
        return None
    return per_sample.to(exact).reshape(-1, *[1] * (labels.ndim - 1)).expand(labels.shape).flatten()[keep]


def _evaluate(given: Dense | Head, rows: Rows, exact: torch.dtype) -> tuple[Tensor, Tensor]:
    if isinstance(given, Dense):
        every = slice(0, len(given.logits))
        told = None
        if isinstance(rows.teacher, Dense | Head):
            told = floored(_whole(rows.teacher, every).to(exact))
        elif isinstance(rows.teacher, MixedRows):
            told = floored(rows.teacher.log_probs(every, _whole).to(exact))
        total, sums = rows.evaluate(rows.chunk(floored(given.logits.to(exact)), every, told), every)
        return total, sums.detach()
    if torch.is_grad_enabled():
        return FusedRows.apply(given.hidden, given.weight, given.bias, rows, *rows.learned.values())
    return Sweep(rows, working_type(given.hidden), exact, None).run(given.hidden, given.weight, given.bias)


def _whole(teacher: Dense | Head, rows: slice) -> Tensor:
    """A teacher's logits, multiplied out now if they are still a head."""
    if isinstance(teacher, Dense):
        return teacher.logits[rows]
    hidden = teacher.hidden[rows].to(teacher.weight.dtype)
    return torch.nn.functional.linear(hidden, teacher.weight, teacher.bias)


def _rows(dist: Dist, keep: Tensor) -> Dense | Head:
    """The valid rows of a distribution, flattened to two dimensions."""
    if isinstance(dist, Dense):
        return Dense(dist.logits.flatten(0, -2)[keep])
    assert isinstance(dist, Head), "only recorded teachers are sparse"
    return Head(dist.hidden.flatten(0, -2)[keep], dist.weight, dist.bias)


def _told(
    teacher: Dist | None, keep: Tensor, student: Dense | Head, shared: Tensor | None, say_N: Tensor | None
) -> Dense | Head | MixedRows | Support | None:
    """The teacher's valid rows, without gradients; zeros where it has no say, since it may not have been asked."""
    if teacher is None:
        return None
    mine = student.logits if isinstance(student, Dense) else student.hidden
    if isinstance(teacher, TopK | Sampled):
        classes = student.logits.shape[-1] if isinstance(student, Dense) else len(student.weight)
        return support(teacher, keep, exact_type(mine.dtype), classes, shared)
    if isinstance(teacher, Mixture):
        # Every row of a sample has the sample's weights.
        places = keep.reshape(len(teacher.log_weights), -1).nonzero()[:, 0]
        members = tuple(_silent(_rows(member, keep), say_N) for member in teacher.members)
        return MixedRows(members, teacher.log_weights[places])
    return _silent(_rows(teacher, keep), say_N)


def _silent(given: Dense | Head, say_N: Tensor | None) -> Dense | Head:
    """A teacher's rows without gradients, and zero where it has no say."""
    values = (given.logits if isinstance(given, Dense) else given.hidden).detach()
    if say_N is not None:
        values = values.masked_fill((say_N == 0)[:, None], 0)
    if isinstance(given, Dense):
        return Dense(values)
    return Head(values, given.weight.detach(), None if given.bias is None else given.bias.detach())


def _needed(terms: Sequence[DistributionTerm], teacher: Dist | None) -> Dist | None:
    """The teacher if a term asks for it; refused if one cannot work with what it gives."""
    asking = [term for term in terms if term.asks_teacher]
    for term in asking:
        if teacher is None:
            raise RecipeError(f"{term.label} asks for a teacher", got="none")
        if isinstance(teacher, TopK | Sampled) and term.needs_all_classes:
            raise RecipeError(
                f"{term.label} reads every class of the teacher",
                got="a teacher of which only some classes are recorded",
                fix="take another term, such as kl, or ask the teacher itself",
            )
        if isinstance(teacher, Sampled) and not term.linear_in_teacher:
            raise RecipeError(
                f"{term.label} is biased where the teacher is known by drawn classes",
                got="a teacher of which classes were drawn",
                allowed="terms whose gradient is linear in the teacher's probabilities, such as kl",
                fix="take kl, or record the teacher's likeliest classes instead",
            )
    return teacher if asking else None


def _blended(
    blend: Blend | None, labels: Tensor, keep: Tensor, exact: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """The second labels of the rows that count, and their shares."""
    if blend is None:
        return None, None
    second_N = blend.labels[keep]
    if (second_N == IGNORE).any():
        raise DataError(
            "a sample that was blended of two has a label in only one of them",
            fix="blend only samples of one label each",
        )
    return second_N, _spread(blend.share, labels, keep.flatten(), exact)
