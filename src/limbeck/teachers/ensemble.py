"""Several teachers that teach together.

Shapes: B batch, M members, V classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from limbeck.core.errors import DataError
from limbeck.core.types import Batch, Dense, Dist, Mixture, Needs, Signal
from limbeck.teachers.gated import difficulty, spread
from limbeck.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EnsembleTeacher:
    """The mixture of several teachers' distributions: sum_m w_m p_m, with weights that may differ by sample.

    Layers (features) are the first member's.

    Args:
        members: the teachers; they share their classes or vocabulary.
        combine: `mean`; `weighted`, by `weights`; `confidence`, w_m ~ exp(-H_m) with H_m the member's entropy, a mean
            over the sample's labels; `domain`, the one member that knows the sample's domain, the others are not run.
        weights: with `weighted`, one a member.
        routes: with `domain`, by sample id the member that is asked.

    Reference:
        You et al., Learning from Multiple Teacher Networks, 2017, doi:10.1145/3097983.3098135 (mean);
        Kwon et al., Adaptive Knowledge Distillation Based on Entropy, 2020, doi:10.1109/ICASSP40776.2020.9054698.
    """

    def __init__(
        self,
        members: Sequence[LocalTeacher],
        combine: Literal["mean", "weighted", "confidence", "domain"] = "mean",
        weights: Sequence[float] = (),
        routes: Mapping[str, int] | None = None,
    ):
        self.members, self.combine, self.routes = list(members), combine, dict(routes or {})
        given = torch.tensor(list(weights) if combine == "weighted" else [1.0] * len(self.members))
        self.log_weights_M = (given / given.sum()).log()

    @property
    def model(self) -> PreTrainedModel:
        """The first member's model, whose layers can be read."""
        return self.members[0].model

    def update(self, student: PreTrainedModel) -> None:
        """After a step of the student; fixed teachers stay as they are."""

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What the teachers together say of a batch.

        Raises:
            DataError: a sample's domain has no teacher.
        """
        batch.one_a_row("an ensemble of teachers")
        if not needs.dist or self.combine == "domain":
            read = Needs(features=needs.features)
            features = self.members[0].signal(batch, read).features if read else {}
            return Signal(self._routed(batch) if needs.dist else None, features)
        first = self.members[0].signal(batch, needs)
        assert first.dist is not None
        features = first.features
        dists = [first.dist, *(_dist(member, batch) for member in self.members[1:])]
        log_weights_BM = self.log_weights_M.to(batch.labels.device).expand(len(batch.ids), -1)
        if self.combine == "confidence":
            labels = (batch.teacher or batch).labels
            certain = torch.stack([-_entropy(dist, labels) for dist in dists], dim=1)
            log_weights_BM = certain.log_softmax(1)
        return Signal(_mixture(dists, log_weights_BM), features)

    def _routed(self, batch: Batch) -> Dist:
        """Each member reads its own samples only; the mixture's weights are one and zero."""
        if lost := [sample for sample in batch.ids if sample not in self.routes]:
            raise DataError("a sample's domain has no teacher", got=lost[0], fix="a teacher without `domains` takes it")
        member_B = torch.tensor([self.routes[sample] for sample in batch.ids], device=batch.labels.device)
        dists: list[Dist] = []
        for i, member in enumerate(self.members):
            mine = (member_B == i).nonzero().squeeze(1)
            asked = mine if len(mine) else member_B.new_zeros(1)  # shapes come from the model even if nobody asks it
            dists.append(spread(_dist(member, batch.rows(asked)), asked, len(batch.ids)))
        log_weights_BM = torch.nn.functional.one_hot(member_B, len(self.members)).float().log()
        return _mixture(dists, log_weights_BM)


class EnsembleModel(nn.Module):
    """Classifiers that teach together, evaluated like one model: it has all their parameters.

    Args:
        teacher: the ensemble.
    """

    def __init__(self, teacher: EnsembleTeacher):
        super().__init__()
        self.teacher = teacher
        self.models = nn.ModuleList(member.model for member in teacher.members)

    def forward(self, batch: Batch) -> Dist:
        """What the ensemble says of a batch."""
        dist = self.teacher.signal(batch, Needs(dist=True)).dist
        assert dist is not None
        return dist


def _dist(member: LocalTeacher, batch: Batch) -> Dist:
    dist = member.signal(batch, Needs(dist=True)).dist
    assert dist is not None
    return dist


def _entropy(dist: Dist, labels: Tensor) -> Tensor:
    """In nats, so that exp(-H) is one over the number of classes that a member hesitates between."""
    classes = dist.logits.shape[-1] if isinstance(dist, Dense) else len(dist.weight)  # type: ignore[union-attr]
    return difficulty(dist, labels, "entropy") * torch.tensor(float(classes)).log()


def _mixture(dists: Sequence[Dist], log_weights_BM: Tensor) -> Dist:
    """Small heads are mixed at once; those of language models row by row, where their logits are made."""
    if not all(isinstance(dist, Dense) for dist in dists):
        return Mixture(tuple(dists), log_weights_BM)
    logs = torch.stack([dist.logits.float().log_softmax(-1) for dist in dists], dim=-1)  # type: ignore[union-attr]
    weights = log_weights_BM.reshape(len(log_weights_BM), *[1] * (logs.ndim - 2), -1)
    return Dense(torch.logsumexp(logs + weights, dim=-1))
