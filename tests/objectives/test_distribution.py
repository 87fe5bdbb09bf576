"""What the distribution terms promise: limits, bounds, and what they are made of.

Shapes: N rows, V classes.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.parts import build
from limbeck.core.types import Dense
from limbeck.objectives import Chunk, distribution_loss

N, V = 6, 5
LABELS = torch.arange(N) % V


def draw(seed: int, size: float = 2.0) -> Tensor:
    return size * torch.randn(N, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(name: str, student: Tensor | None = None, teacher: Tensor | None = None, **fields: Any) -> Tensor:
    """A term's value for each row."""
    student, teacher = (draw(0) if student is None else student), (draw(1) if teacher is None else teacher)
    return build("objective", {"type": name, **fields}).rows(Chunk(student, LABELS, teacher))  # type: ignore[attr-defined]


def slope(name: str, student: Tensor, **fields: Any) -> Tensor:
    leaf = student.detach().requires_grad_()
    return torch.autograd.grad(values(name, leaf, **fields).sum(), leaf)[0]


@pytest.mark.parametrize(("skewed", "plain"), [("skew_kl", "kl"), ("skew_reverse_kl", "reverse_kl")])
def test_without_skew_a_kl_is_left(skewed: str, plain: str) -> None:
    torch.testing.assert_close(values(skewed, skew=1e-12, temperature=2), values(plain, temperature=2))


@pytest.mark.parametrize("name", ["skew_kl", "skew_reverse_kl"])
@pytest.mark.parametrize("skew", [0.1, 0.5])
def test_a_skewed_kl_is_bounded(name: str, skew: float) -> None:
    """By log 1/skew, which is reached where the two have nothing in common."""
    found = values(name, draw(0, 1e3), draw(1, 1e3), skew=skew)
    assert found.max() <= -math.log(skew) + 1e-9
    assert found.max() == pytest.approx(-math.log(skew))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_parts_of_dkd_make_up_a_kl(temperature: float) -> None:
    """KL = target + (1 - p[y]) others, which is the paper's point: sure teachers silence the second part."""
    target, others = (values("dkd", alpha=a, beta=b, temperature=temperature) for a, b in ((1, 0), (0, 1)))
    true_N = torch.softmax(draw(1) / temperature, 1)[torch.arange(N), LABELS]
    torch.testing.assert_close(target + (1 - true_N) * others, values("kl", temperature=temperature))


def test_dkd_keeps_its_digits_where_both_are_sure() -> None:
    """1 - p is lost in float32 where p is 1 - 1e-12; the term must not read it so."""
    sure = torch.zeros(N, V)
    sure[torch.arange(N), LABELS] = 30.0
    student = sure + draw(0, 0.5).float()
    found, wanted = (
        values("dkd", student.to(kind), (sure + draw(1, 0.5)).to(kind)) for kind in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


def test_dist_does_not_care_how_sure_the_student_is() -> None:
    """Probabilities that are pulled evenly to 1/V keep their correlation."""
    p = torch.softmax(draw(1), 1)
    torch.testing.assert_close(values("dist", (0.3 * p + 0.7 / V).log()), torch.zeros(N, dtype=torch.float64))
    assert (values("kl", (0.3 * p + 0.7 / V).log()) > 0.05).any()


def test_standardised_logits_have_no_size_and_no_place() -> None:
    found = values("standardized_kl", 7 * draw(1) - 3, temperature=2)
    torch.testing.assert_close(found, torch.zeros(N, dtype=torch.float64))
    apart = values("standardized_kl", draw(0), temperature=2)
    torch.testing.assert_close(values("standardized_kl", 0.1 * draw(0) + 5, temperature=2), apart)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixed_target_is_both_terms_at_temperature_one(share: float) -> None:
    found = slope("mixed_target", draw(0), hard_share=share)
    wanted = share * slope("cross_entropy", draw(0)) + (1 - share) * slope("kl", draw(0))
    torch.testing.assert_close(found, wanted)


def test_adaptive_kl_lies_between_both_and_follows_the_gap() -> None:
    forward, reverse, found = (values(name) for name in ("kl", "reverse_kl", "adaptive_kl"))
    assert (found <= torch.maximum(forward, reverse) + 1e-12).all()
    assert (found >= torch.minimum(forward, reverse) - 1e-12).all()
    # The teacher's head is its likeliest class; the student differs in the two unlikeliest only.
    teacher = torch.tensor([[0.6, 0.2, 0.1, 0.06, 0.04]], dtype=torch.float64).log().repeat(N, 1)
    student = torch.tensor([[0.6, 0.2, 0.1, 0.01, 0.09]], dtype=torch.float64).log().repeat(N, 1)
    torch.testing.assert_close(values("adaptive_kl", student, teacher), values("reverse_kl", student, teacher))


def test_weights_by_loss_ratio_favour_rows_that_the_teacher_knows_better() -> None:
    teacher = torch.zeros(N, V, dtype=torch.float64)
    teacher[torch.arange(N), LABELS] = 2.0
    sizes = torch.linspace(-3, 6, N, dtype=torch.float64)  # rows that the student knows ever better
    student = torch.zeros(N, V, dtype=torch.float64)
    student[torch.arange(N), LABELS] = sizes
    weight = values("weighted_kl", student, teacher) / values("kl", student, teacher)
    assert (weight.diff() < 0).all()
    assert weight.min() > 0
    assert weight.max() < 1


def test_weights_by_entropy_favour_rows_that_the_student_is_unsure_of() -> None:
    student = draw(0, 1.0) * torch.linspace(0.01, 10, N, dtype=torch.float64)[:, None]
    weight = values("weighted_kl", student, by="entropy") / values("kl", student)
    assert weight[0] > 0.99
    assert weight[-1] < 0.2
    assert ((weight > 0) & (weight <= 1)).all()


@pytest.mark.parametrize("by", ["loss_ratio", "entropy"])
def test_weights_are_not_learned(by: str) -> None:
    """The gradient is that of the KL, row by row times the weight."""
    weight = (values("weighted_kl", by=by) / values("kl"))[:, None]
    torch.testing.assert_close(slope("weighted_kl", draw(0), by=by), weight * slope("kl", draw(0)))


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "skew_kl", "jensen_shannon", "dkd", "total_variation", "dist"])
def test_a_gradient_has_about_one_size_at_high_temperatures(name: str) -> None:
    sizes = [slope(name, draw(0), temperature=t).norm().item() for t in (8, 32)]
    assert 0.7 < sizes[1] / sizes[0] < 1.4


def test_the_weight_of_a_term_is_no_part_of_its_sum() -> None:
    term = build("objective", {"type": "dkd", "weight": 3})
    _, sums = distribution_loss(Dense(draw(0)), Dense(draw(1)), LABELS, [term], [3.0])  # type: ignore[list-item]
    torch.testing.assert_close(sums["dkd"], values("dkd").sum())
