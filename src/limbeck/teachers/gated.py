"""A teacher that is asked about hard samples only; what the student finds easy costs no teacher.

Shapes: B batch, T positions, V classes, D hidden width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from limbeck.core.recipe import Gate
from limbeck.core.types import IGNORE, Batch, Dense, Dist, Head, Mixture, Needs, Sampled, Signal, TopK
from limbeck.models.heads import signal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.teachers.local import LocalTeacher

CHUNK_BYTES = 32 * 2**20


class GatedTeacher:
    """Asks a teacher about the samples that the student finds difficult.

    The student is run once more, without gradients and in evaluation mode, to see how difficult it finds each sample;
    the teacher then reads only those above the threshold, or the hardest share of the micro-batch.

    Args:
        teacher: who is asked.
        student: whose difficulty counts.
        by: `entropy` of the student's answer over log V, `margin` 1 - (p1 - p2) between its two likeliest classes,
            or `loss` of the true label; each a mean over a sample's labels.
        share: the hardest share of each micro-batch is asked about, at least one sample.
        threshold: or all samples at least as difficult as this.

    Reference:
        Li et al., Dynamic Knowledge Distillation for Pre-trained Language Models, 2021, arXiv:2109.11295.
    """

    def __init__(
        self,
        teacher: LocalTeacher,
        student: PreTrainedModel,
        by: Literal["entropy", "margin", "loss"] = "entropy",
        share: float | None = None,
        threshold: float | None = None,
    ):
        self.teacher, self.student, self.by = teacher, student, by
        self.share, self.threshold = share, threshold

    @property
    def model(self) -> PreTrainedModel:
        """The model behind it."""
        return self.teacher.model

    def update(self, student: PreTrainedModel) -> None:
        """After a step of the student."""
        self.teacher.update(student)

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What the teacher says of the hard samples; zeros, with weight zero, for the others."""
        training = self.student.training
        self.student.eval()
        try:
            dist = signal(self.student, batch, Needs(dist=True)).dist
        finally:
            self.student.train(training)
        assert dist is not None
        found_B = difficulty(dist, batch.labels, self.by)
        if self.by == "loss" and batch.blend is not None:
            found_B = found_B.lerp(difficulty(dist, batch.blend.labels, self.by), batch.blend.share)
        hard = self._hard(found_B)
        weights = torch.zeros(len(batch.ids), device=batch.labels.device)
        weights[hard] = 1.0
        if not len(hard):
            hard = hard.new_zeros(1)  # shapes come from the teacher; its word counts nothing
        told = self.teacher.signal(batch.rows(hard), needs)
        return _spread(told, hard, len(batch.ids), weights)

    def _hard(self, difficulty_B: Tensor) -> Tensor:
        """Which samples are asked about, in their order."""
        if self.threshold is not None:
            return (difficulty_B >= self.threshold).nonzero().squeeze(1)
        count = max(1, round((self.share or 0.0) * len(difficulty_B)))
        return difficulty_B.topk(count).indices.sort().values


def gated(teacher: Any, gate: Gate | None, student: PreTrainedModel) -> Any:
    """The teacher behind a stage's gate; without a gate, or a teacher, what was given."""
    if gate is None or teacher is None:
        return teacher
    return GatedTeacher(teacher, student, gate.by, gate.share, gate.threshold)


@torch.no_grad()
def difficulty(dist: Dist, labels: Tensor, by: str) -> Tensor:
    """How difficult a model finds each sample, [B]: a mean over the sample's labels.

    Args:
        dist: what the model says, [B, V] or [B, T, V].
        labels: [B] or [B, T], `IGNORE` where there is none.
        by: `entropy`, `margin` or `loss`.
    """
    labels_BT = labels.reshape(len(labels), -1)
    values_BT = labels_BT.new_zeros(labels_BT.shape, dtype=torch.float32)
    rows = (labels_BT != IGNORE).nonzero()
    flat = dist.logits if isinstance(dist, Dense) else dist.hidden if isinstance(dist, Head) else None
    assert flat is not None, "a model that runs here gives logits or a head"
    flat = flat.reshape(*labels_BT.shape, -1)
    classes = flat.shape[-1] if isinstance(dist, Dense) else len(dist.weight)  # type: ignore[union-attr]
    size = max(1, CHUNK_BYTES // (4 * classes))
    for part in rows.split(size):
        picked = flat[part[:, 0], part[:, 1]]
        if isinstance(dist, Head):
            picked = torch.nn.functional.linear(picked.to(dist.weight.dtype), dist.weight, dist.bias)
        values_BT[part[:, 0], part[:, 1]] = _measure(picked.float(), labels_BT[part[:, 0], part[:, 1]], by)
    count = (labels_BT != IGNORE).sum(1).clamp(min=1)
    return values_BT.sum(1) / count


def _measure(logits_NV: Tensor, labels_N: Tensor, by: str) -> Tensor:
    logs_NV = logits_NV.log_softmax(-1)
    if by == "loss":
        return -logs_NV.gather(1, labels_N[:, None]).squeeze(1)
    if by == "entropy":
        return torch.special.entr(logs_NV.exp()).sum(1) / torch.tensor(float(logs_NV.shape[1])).log()
    best = logs_NV.exp().topk(2, dim=1).values
    return 1 - (best[:, 0] - best[:, 1])


def _spread(told: Signal, rows: Tensor, count: int, weights: Tensor) -> Signal:
    """A few samples' signal in its place among all."""
    dist = None if told.dist is None else spread(told.dist, rows, count)
    return Signal(dist, {name: _among(value, rows, count) for name, value in told.features.items()}, weights)


def spread(dist: Dist, rows: Tensor, count: int) -> Dist:
    """A few samples' distribution in its place among `count`; zeros where nobody was asked."""
    if isinstance(dist, Dense):
        return Dense(_among(dist.logits, rows, count))
    if isinstance(dist, Mixture):
        mixed = tuple(spread(member, rows, count) for member in dist.members)
        return Mixture(mixed, _among(dist.log_weights, rows, count))
    if isinstance(dist, TopK | Sampled):
        # Rows that nobody was asked about hold anything that is a distribution; they weigh nothing.
        ids, other = _among(dist.ids, rows, count), dist.counts if isinstance(dist, Sampled) else dist.logprobs
        said = _among(other, rows, count)
        if isinstance(dist, TopK):
            return TopK(ids, said, _among(dist.tail, rows, count))
        unasked = torch.ones(count, dtype=torch.bool, device=rows.device).index_fill_(0, rows, False)
        said[unasked, ..., 0] = 1
        return Sampled(ids, said)
    assert isinstance(dist, Head), "a model that runs here gives logits or a head"
    return replace(dist, hidden=_among(dist.hidden, rows, count))


def _among(values: Tensor, rows: Tensor, count: int) -> Tensor:
    return values.new_zeros(count, *values.shape[1:]).index_copy_(0, rows, values)
