"""The module that is wrapped, optimized and asked for the loss: the student and a stage's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from limbeck.core.types import Batch, Needs, Signal
from limbeck.models.heads import signal
from limbeck.objectives import Context, DistributionTerm, Objective, Pair, distribution_loss
from limbeck.objectives.base import BatchTerm

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Distiller(nn.Module):
    """Student and terms in one module, so that every parallel strategy wraps them together.

    Args:
        student: the model that learns; export takes it alone.
        terms: the stage's objectives.
        shared: ids of the classes that student and teacher have in common, None where all are.
        layers: by label of a term, the pairs of layers that it reads.

    Attributes:
        losses: by label, the terms that are modules; projectors among them are trained and stay behind.
        asks_student: what the terms read of the student.
        asks_teacher: what they read of the teacher.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        terms: Sequence[Objective],
        shared: Tensor | None = None,
        layers: Mapping[str, Sequence[Pair]] | None = None,
    ):
        super().__init__()
        self.shared: Tensor | None
        self.student, self.terms, self.layers = student, list(terms), dict(layers or {})
        self.config = student.config  # sharding policies read these two
        self._no_split_modules = getattr(student, "_no_split_modules", None)
        self.register_buffer("shared", shared, persistent=False)
        self.losses = nn.ModuleDict(
            {t.label: t.build(self.layers.get(t.label, ())) for t in terms if isinstance(t, BatchTerm)}
        )
        self.rows = [term for term in terms if isinstance(term, DistributionTerm)]
        modules = {term.label: _temperature(term) for term in self.rows}
        self.temperatures = nn.ModuleDict({label: m for label, m in modules.items() if m is not None})
        self.asks_student, self.asks_teacher = self._needs()

    def _needs(self) -> tuple[Needs, Needs]:
        pairs = [pair for pairs in self.layers.values() for pair in pairs]
        reading = [t for t in self.terms if isinstance(t, DistributionTerm) or getattr(t, "reads_dist", False)]
        student = Needs(bool(reading), frozenset(tap for p in pairs for tap in p.student.taps))
        told = frozenset(tap for p in pairs if p.teacher is not None for tap in p.teacher.taps)
        return student, Needs(any(term.asks_teacher for term in reading), told)

    def forward(
        self, batch: Batch, told: Signal, weights: Sequence[float], progress: float = 0.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms over the batch's units, not yet divided by their number.

        Args:
            batch: the samples.
            told: what the teacher says of them; empty where no term asks.
            weights: the terms' weights now.
            progress: share of the stage that is done.

        Returns:
            The total with gradients, and each term's unweighted sum without.
        """
        said = signal(self.student, batch, self.asks_student)
        by_label = dict(zip([term.label for term in self.terms], weights, strict=True))
        total: Any
        total, sums = self._distribution(batch, said, told, by_label, progress)
        context = Context(batch, progress, told.weights, said.dist, told.dist)
        for label, loss in self.losses.items():
            mine, theirs = [], []
            for pair in self.layers.get(label, ()):
                mine.append([said.features[tap] for tap in pair.student.taps])
                theirs.append([told.features[tap].detach() for tap in pair.teacher.taps] if pair.teacher else [])
            value = loss(mine, theirs, context)
            sums[label] = value.detach()
            # What weighs nothing must not spoil the sum where it is not finite.
            total = total + (by_label[label] * value if by_label[label] else self._untouched(loss))
        return total, {label: sums[label] for label in by_label}

    def _distribution(
        self, batch: Batch, said: Signal, told: Signal, weights: Mapping[str, float], progress: float
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        if not self.rows:
            return self._untouched(), {}
        assert said.dist is not None
        return distribution_loss(
            said.dist,
            told.dist if any(term.asks_teacher for term in self.rows) else None,
            batch.labels,
            self.rows,
            [weights[term.label] for term in self.rows],
            shared=self.shared,
            progress=progress,
            row_weights=batch.weights,
            teacher_weights=told.weights,
            blend=batch.blend,
            learned={label: make(progress) for label, make in self.temperatures.items()},
        )

    def _untouched(self, *others: nn.Module) -> Tensor:
        """Zero, with a gradient for every parameter: DDP waits for those that no term reaches.

        In one process too, so that weight decay acts alike.
        """
        every = (p for module in (self.student, *others) for p in module.parameters() if p.requires_grad)
        return torch.stack([0.0 * p.sum() for p in every]).sum()


def _temperature(term: DistributionTerm) -> nn.Module | None:
    """The module of a temperature that is learned."""
    make = getattr(getattr(term, "temperature", None), "module", None)
    return None if make is None else make()
