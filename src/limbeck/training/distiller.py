"""The module that is wrapped, optimized and asked for the loss: the student and a stage's terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from torch import Tensor, nn

from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Needs, Signal
from limbeck.models.heads import signal
from limbeck.objectives import DistributionTerm, Objective, distribution_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Distiller(nn.Module):
    """Student and terms in one module, so that every parallel strategy wraps them together.

    Args:
        student: the model that learns; export takes it alone.
        terms: the stage's objectives.
        shared: ids of the classes that student and teacher have in common, None where all are.

    Raises:
        RecipeError: a term is of a kind that this pass does not know.
    """

    def __init__(self, student: PreTrainedModel, terms: Sequence[Objective], shared: Tensor | None = None):
        super().__init__()
        self.shared: Tensor | None
        self.student, self.terms = student, [term for term in terms if isinstance(term, DistributionTerm)]
        if len(self.terms) < len(terms):
            other = [term.type() for term in terms if not isinstance(term, DistributionTerm)]
            raise RecipeError("only distribution terms can be trained with", got=", ".join(other))
        self.config = student.config  # sharding policies read these two
        self._no_split_modules = getattr(student, "_no_split_modules", None)
        self.register_buffer("shared", shared, persistent=False)
        self.asks_student = _united(term.student for term in terms)
        self.asks_teacher = _united(term.teacher for term in terms)

    def forward(self, batch: Batch, told: Signal, weights: Sequence[float]) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of all terms over the batch's units, not yet divided by their number.

        Args:
            batch: the samples.
            told: what the teacher says of them; empty where no term asks.
            weights: the terms' weights now.

        Returns:
            The total with gradients, and each term's unweighted sum without.
        """
        said = signal(self.student, batch, self.asks_student)
        assert said.dist is not None
        return distribution_loss(said.dist, told.dist, batch.labels, self.terms, weights, shared=self.shared)


def _united(needs: Iterable[Needs]) -> Needs:
    return reduce(or_, needs, Needs())
