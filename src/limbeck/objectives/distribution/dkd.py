"""Decoupled knowledge distillation."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.distribution._labels import true_classes
from limbeck.objectives.temperature import Tempered, per_row

NEVER = -1e30
"""Logit of a class that is left out; finite, so that nothing is undefined where no other class is there."""


@part
class DKD(Tempered):
    """Decoupled KD: how sure the teacher is of the true class, and how it ranks the others, weighed apart.

    T^2 (a KL(b_p || b_q) + b KL(p' || q')): b = (p[y], 1 - p[y]) holds the true class against all others, p' is the
    distribution over the others alone. Forward KL is the case a = 1, b = 1 - p[y]: where the teacher is sure, it
    teaches nothing of the others.

    Reference:
        Zhao et al., Decoupled Knowledge Distillation, 2022, arXiv:2203.08679.
    """

    alpha: float = Field(default=1.0, ge=0)
    """Weight of the true class against the others."""
    beta: float = Field(default=8.0, ge=0)
    """Weight of the others among themselves. The paper took up to 8 with CIFAR-100, 0.5 with ImageNet."""

    @property
    def needs_all_classes(self) -> bool:
        return True

    @property
    def reads_labels(self) -> bool:
        return True

    @property
    def takes_blends(self) -> bool:
        return False

    def rows(self, chunk: Chunk) -> Tensor:
        t, (true_N1, *other) = self.at(chunk), [columns_N1 for columns_N1, _ in true_classes(chunk)]
        if other:
            raise RecipeError(
                f"{self.label} tells one true class from all others",
                got="samples that were blended of two",
                fix="take another term, such as kl, or train without mixup and cutmix",
            )
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        # Log of all that is not the true class: 1 - p would lose every digit where the model is sure.
        student_rest_N1 = student_NS.scatter(1, true_N1, NEVER).logsumexp(1, keepdim=True)
        teacher_rest_N1 = teacher_NS.scatter(1, true_N1, NEVER).logsumexp(1, keepdim=True)
        true_differ_N1 = teacher_NS.gather(1, true_N1) - student_NS.gather(1, true_N1)
        rest_differ_N1 = teacher_rest_N1 - student_rest_N1
        target_N = teacher_NS.gather(1, true_N1).exp() * true_differ_N1 + teacher_rest_N1.exp() * rest_differ_N1
        others_NS = (teacher_NS - teacher_rest_N1).exp().scatter(1, true_N1, 0.0)
        differ_NS = (teacher_NS - student_NS) - rest_differ_N1
        others_N = (others_NS * differ_NS).sum(1)
        return per_row(t) ** 2 * (self.alpha * target_N.squeeze(1) + self.beta * others_N)
