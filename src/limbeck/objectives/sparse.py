"""Teachers that name a few classes of each row: the likeliest ones with a tail, or drawn ones.

A top-k teacher is compared over K + 1 buckets: each class that it names, and all the others together. The student's
mass outside the teacher's classes meets the teacher's tail, so it is never hidden; with K = V the buckets are the
classes themselves. Any divergence between distributions is then one between buckets, and at T = 1 an f-divergence is
never above that between the whole distributions (data processing).

A temperature softens the buckets, softmax(log b / T), of both models alike: equal distributions do not differ at
any T, and at K = V this is exactly softmax(z / T). With a tail it is not the bucketed softmax(z / T), which cannot be
known: how the tail's mass is spread decides what it becomes at T.

Drawn classes stand for the teacher's distribution by their frequencies. What is linear in the teacher's
probabilities, such as the gradient of forward KL, is then unbiased; other terms are refused.

Where the vocabularies differ, classes that only the teacher has are left out, and it is renormalised over the others.
That needs to know which classes hold its mass: a tail may hold some that only the teacher has, and is refused.

Shapes: N rows, V classes, K classes that a row names, C buckets: K, or K + 1 with a tail;
B buckets: always K + 1.

Reference:
    Anshumann et al., Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025, arXiv:2503.16870
    (why top-k alone is biased; sampling).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.types import Sampled, TopK

FLOOR = -87.0
"""Log of what counts as no probability at all; exp() of it is just above float32's smallest number."""
LOWEST = -1e5
"""What logits below it count as: classes that are masked out with -inf, at which 0 * inf would be undefined."""
HIDDEN = -1e30
"""A logit that takes no part."""
ROUNDING = 1e-6
"""A tail below it is what summing up probabilities leaves."""
RECORD_AGAIN = "record the teacher again, for this student's vocabulary"


@dataclass
class Support:
    """What a sparse teacher says of some rows.

    Attributes:
        ids_NK: the classes; a valid one also where nothing is named.
        empty_NK: where no class is named.
        logs_NC: log-probabilities of the buckets, those of `empty_NK` of no meaning.
        tail: whether the last bucket is the rest of the classes.
        left_N1: whether there are any such classes.
        dead_NB: which of the K classes and of the rest hold no class, [N, K + 1].
        dense_NB: `logs_NC` as logits over the K classes and the rest; far below all others where there is nothing.
        mask_NK: what takes a class out of logits by the lesser of both.
    """

    ids_NK: Tensor
    empty_NK: Tensor
    logs_NC: Tensor
    tail: bool
    left_N1: Tensor
    dead_NB: Tensor
    dense_NB: Tensor
    mask_NK: Tensor

    @classmethod
    def of(cls, ids_NK: Tensor, empty_NK: Tensor, logs_NC: Tensor, tail: bool, left_N1: Tensor) -> Support:
        """With all that blocks of rows need made at once."""
        dead_NB = torch.cat([empty_NK, ~left_N1], 1)
        dense_NB = logs_NC.clamp(min=FLOOR)
        if not tail:
            dense_NB = torch.cat([dense_NB, dense_NB.new_full((len(dense_NB), 1), LOWEST)], 1)
        mask_NK = logs_NC.new_full(ids_NK.shape, HIDDEN).masked_fill_(empty_NK, torch.inf)
        return cls(ids_NK, empty_NK, logs_NC, tail, left_N1, dead_NB, dense_NB.masked_fill_(dead_NB, LOWEST), mask_NK)

    def __getitem__(self, rows: slice) -> Support:
        parts = (self.dead_NB[rows], self.dense_NB[rows], self.mask_NK[rows])
        return Support(
            self.ids_NK[rows], self.empty_NK[rows], self.logs_NC[rows], self.tail, self.left_N1[rows], *parts
        )

    def teacher(self, temperature: float | Tensor) -> Tensor:
        """The teacher's log-probabilities over its buckets, [N, C]."""
        if not self.tail:
            _refuse_softening(temperature)
            return self.logs_NC.masked_fill(self.empty_NK, FLOOR)
        # As little as the floor is softened like any other probability, so that T^2 does not multiply it alone.
        return _soften(self.logs_NC.clamp(min=FLOOR), self.dead_NB, temperature)

    def student(self, buckets_NC: Tensor, temperature: float | Tensor) -> Tensor:
        """The student's log-probabilities over the same buckets, [N, C], from those at T = 1."""
        if not self.tail:
            _refuse_softening(temperature)
            return buckets_NC.masked_fill(self.empty_NK, FLOOR)
        return _soften(buckets_NC, self.dead_NB, temperature)

    def buckets(self, logits_NV: Tensor) -> Tensor:
        """The student's log-probabilities of the buckets at T = 1, [N, C], with gradients."""
        logs_NK = torch.log_softmax(logits_NV, 1).gather(1, self.ids_NK)
        if not self.tail:
            return logs_NK
        rest_N1 = self.hide(logits_NV.clone()).logsumexp(1, keepdim=True) - logits_NV.logsumexp(1, keepdim=True)
        return torch.cat([logs_NK, rest_N1], 1)

    def hide(self, logits_NV: Tensor) -> Tensor:
        """Take the named classes out of logits, in place."""
        return logits_NV.scatter_reduce_(1, self.ids_NK, self.mask_NK.to(logits_NV.dtype), "amin")


def support(dist: TopK | Sampled, keep: Tensor, exact: torch.dtype, classes: int, shared: Tensor | None) -> Support:
    """The rows of a sparse teacher that count.

    Args:
        dist: what it says.
        keep: which rows count, flat.
        exact: the precision of the pass.
        classes: how many classes the student has.
        shared: ids of the classes that both have; None where they are the same.

    Raises:
        ModelError: it names a class that the student does not have, or in a row none that both have.
        RecipeError: the vocabularies differ, and it has a tail.
    """
    ids_NK = dist.ids.flatten(0, -2)[keep].long()
    empty_NK = ids_NK < 0
    if shared is not None:
        ids_NK, empty_NK, classes = *_among_shared(ids_NK, empty_NK, shared), len(shared)
    elif (strange_NK := ids_NK >= classes).any():
        raise ModelError(
            "the recorded teacher names a class that the student does not have",
            got=f"class {int(ids_NK[strange_NK][0])}",
            allowed=f"the {classes:,} classes that both share",
            fix=RECORD_AGAIN,
        )
    if isinstance(dist, Sampled):
        counts_NK = dist.counts.flatten(0, -2)[keep].to(exact).masked_fill(empty_NK, 0)
        logs_NC = (counts_NK / counts_NK.sum(1, keepdim=True)).log()
        empty_NK = empty_NK | (counts_NK == 0)
    else:
        logs_NC = torch.cat([dist.logprobs.flatten(0, -2)[keep], dist.tail.flatten()[keep][:, None]], 1).to(exact)
        if shared is not None:
            logs_NC = _without_tail(logs_NC, empty_NK)
    left_N1 = (~empty_NK).sum(1, keepdim=True) < classes
    return Support.of(ids_NK.clamp(min=0), empty_NK, logs_NC, isinstance(dist, TopK), left_N1)


def _among_shared(ids_NK: Tensor, empty_NK: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """The classes' places among the shared ones, and which name none of them."""
    places_NK = torch.searchsorted(shared, ids_NK.clamp(min=0)).clamp(max=max(len(shared) - 1, 0))
    none_NK = empty_NK | (shared[places_NK] != ids_NK)
    if (lost_N := none_NK.all(1) & ~empty_NK.all(1)).any():
        raise ModelError(
            "the recorded teacher names no class that the student has",
            got=f"{int(lost_N.sum()):,} rows of only other classes",
            allowed=f"one or more of the {len(shared):,} classes that both share",
            fix=RECORD_AGAIN,
        )
    return places_NK, none_NK


def _without_tail(logs_NC: Tensor, empty_NK: Tensor) -> Tensor:
    """Log-probabilities renormalised over the classes that are named and shared; nothing else may hold any."""
    if (over_N := logs_NC[:, -1] > math.log(ROUNDING)).any():
        raise RecipeError(
            "the recorded teacher's tail may hold classes that the student does not have",
            got=f"{int(over_N.sum()):,} rows with a tail, and vocabularies that differ",
            allowed="a tail of nothing, as where every class is recorded",
            fix=RECORD_AGAIN,
        )
    named_NK = logs_NC[:, :-1].masked_fill(empty_NK, -torch.inf)
    nothing_N1 = torch.full_like(logs_NC[:, -1:], -torch.inf)
    return torch.cat([named_NK, nothing_N1], 1) - named_NK.logsumexp(1, keepdim=True).clamp(min=HIDDEN)


def _soften(logs_NC: Tensor, dead_NC: Tensor, temperature: float | Tensor) -> Tensor:
    """Log-probabilities at T of the buckets that hold anything; the others come to `FLOOR`, without gradient."""
    alive_NC = (logs_NC.masked_fill(dead_NC, 0) / temperature).masked_fill(dead_NC, -torch.inf)
    return torch.log_softmax(alive_NC, 1).masked_fill(dead_NC, FLOOR)


def _refuse_softening(temperature: float | Tensor) -> None:
    if not isinstance(temperature, float | int) or temperature != 1:
        raise RecipeError(
            "a teacher that is known by drawn classes cannot be softened",
            got=f"temperature {temperature if isinstance(temperature, float | int) else 'of its own for each row'}",
            allowed="temperature 1, at which the classes were drawn",
            fix="set the term's temperature to 1, or record the teacher's likeliest classes instead",
        )
