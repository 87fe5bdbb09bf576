"""A whole vocabulary folded into the few buckets that a sparse teacher speaks of, and gradients unfolded from them.

Terms are then evaluated on [N, C] instead of [N, V]. The vocabulary is passed over as often as for cross-entropy
alone: what a term wants of the softmax over all classes is owed until the buckets' gradient is known, and both are
added in one go.

Shapes: N rows, V classes, K classes that a row names, C buckets: the K classes, and all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from limbeck.objectives.chunk import Chunk, Pool, Soft
from limbeck.objectives.sparse import LOWEST


class Folded:
    """The student's buckets of some rows, and what is needed to get back from them.

    Args:
        chunk: a few rows; it is handed the softmax that comes out on the way.

    Attributes:
        support: the teacher's classes.
        buckets_NC: the student's log-probabilities of the buckets at T = 1, the rest's last.
        rest_NV: softmax over the classes that are not named, times `total_N1`; zero for the named ones.
        total_N1: sums of `rest_NV`.
        probs_NC: their exponentials.
        owed_N1: how much of the softmax over all classes the gradient holds besides.
    """

    def __init__(self, chunk: Chunk):
        support, logits_NV = chunk.support, chunk.logits_NV
        assert support is not None
        self.chunk, self.support = chunk, support
        named_NK = logits_NV.gather(1, support.ids_NK).masked_fill_(support.empty_NK, -torch.inf)
        # The rest is summed without the named classes: 1 minus their sum has no digits left where they hold all.
        # Added to nothing, and not copied: memory that is copied goes past the cache, where it is wanted next.
        hidden_NV = support.hide(torch.add(logits_NV, 0, out=chunk.spare("folded hidden", logits_NV)))
        top_rest_N1 = hidden_NV.amax(1, keepdim=True)
        self.rest_NV = torch.softmax(hidden_NV, 1, out=chunk.spare("folded rest", logits_NV))
        self.total_N1 = self.rest_NV.sum(1, keepdim=True)
        top_N1 = torch.maximum(top_rest_N1, named_NK.amax(1, keepdim=True))
        named_NK.sub_(top_N1)
        rest_N1 = (top_rest_N1 - top_N1) + (self.total_N1 / self.rest_NV.amax(1, keepdim=True)).log()
        all_NC = torch.cat([named_NK, rest_N1], 1)
        log_sum_N1 = all_NC.logsumexp(1, keepdim=True)
        self.buckets_NC = all_NC.sub_(log_sum_N1)
        self.probs_NC = self.buckets_NC.exp()
        self.owed_N1 = torch.zeros_like(top_N1)
        chunk.put(soft=_FoldedSoft(self, top_N1, log_sum_N1))

    def as_dense(self, pool: Pool) -> Chunk:
        """The buckets as if they were all the classes there are, for terms with a closed form.

        Buckets that hold nothing have logits whose exponentials are zero. Where the teacher is known by drawn classes,
        it has none of the rest.
        """
        support, chunk = self.support, self.chunk
        logits_NC = self.buckets_NC.masked_fill(support.dead_NB, LOWEST)
        buckets = _Buckets(
            logits_NC,
            chunk.labels_N,
            support.dense_NB,
            progress=chunk.progress,
            pool=pool,
            asked_N=chunk.asked_N,
            softens=support.tail,
        )
        nil_N1 = torch.zeros_like(self.total_N1)
        buckets.put(soft=Soft(logits_NC, 1.0, nil_N1, self.probs_NC, nil_N1 + 1, nil_N1, pool, ("all", 1.0)))
        return buckets

    def add(self, slopes_NC: Tensor, out_NV: Tensor) -> None:
        """Add the gradient by the logits, of the one by the buckets, and what is owed.

        With b the buckets' log-probabilities, q the classes' probabilities and G = dL/db: dL/dz[v] = G[v] - q[v] sum G
        for a named class, and q[v] (G[rest] / q[rest] - sum G) for the others.
        """
        each_NC = torch.addcmul(slopes_NC, self.probs_NC, self.owed_N1 - slopes_NC.sum(1, keepdim=True))
        out_NV.addcmul_(self.rest_NV, each_NC[:, -1:] / self.total_N1)
        inside_NK = each_NC[:, :-1].masked_fill(self.support.empty_NK, 0)
        out_NV.scatter_add_(1, self.support.ids_NK, inside_NK)


@dataclass
class _Buckets(Chunk):
    """Buckets as classes; drawn ones have no other temperature than 1, which `Support` says in full."""

    softens: bool = True

    def comparable(self, temperature: float | Tensor) -> bool:
        """Whether a closed form can be had at this temperature."""
        plain = isinstance(temperature, float | int) and temperature == 1
        return super().comparable(temperature) and (self.softens or plain)


class _FoldedSoft(Soft):
    """The softmax over all classes; its probabilities are only written out for terms that read them."""

    def __init__(self, folded: Folded, top_N1: Tensor, log_sum_N1: Tensor):
        self.folded, self.top_N1, self.log_sum_N1 = folded, top_N1, log_sum_N1
        self.logits_NV, self.pool = folded.chunk.logits_NV, folded.chunk.pool
        self.temperature, self.name = 1.0, ("all", 1.0)
        self.total_N1 = torch.ones_like(top_N1)

    @cached_property
    def exp_NV(self) -> Tensor:  # type: ignore[override]
        """The probabilities."""
        folded = self.folded
        out = self.pool.take("folded probs", self.logits_NV.shape, self.logits_NV)
        torch.mul(folded.rest_NV, folded.probs_NC[:, -1:] / folded.total_N1, out=out)
        inside_NK = folded.probs_NC[:, :-1].masked_fill(folded.support.empty_NK, 0)
        return out.scatter_add_(1, folded.support.ids_NK, inside_NK)

    def add_to(self, out_NV: Tensor, factor_N1: Tensor) -> None:
        """Add the probabilities times a factor of the row, when the buckets' gradient is added."""
        self.folded.owed_N1 = self.folded.owed_N1 + factor_N1
