"""Distillation between models that cut a text into different tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from limbeck.core.types import Batch, Dense, Head
from limbeck.objectives import Context
from limbeck.objectives.distribution.likelihood_matching import LikelihoodMatching
from limbeck.objectives.likelihood import label_log_probs

LABELS = torch.tensor([[-100, 3, 1, 2, 4], [0, 2, 1, -100, -100]])
SPANS = torch.tensor([[-1, 0, 0, 1, -1], [0, 1, 1, -1, -1]])
TEACHER_LABELS = torch.tensor([[5, 1, 1, -100], [2, 2, 6, 3]])
TEACHER_SPANS = torch.tensor([[0, 1, 1, -1], [0, 0, 1, 2]])


def given(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)  # noqa: E731
    student = [normal(2, 5, 3).requires_grad_(), normal(6, 3).requires_grad_(), normal(6).requires_grad_()]
    return student, [normal(2, 4, 4), normal(7, 4)]


def context(student: list[torch.Tensor], teacher: list[torch.Tensor], dense: bool = False, **more: object) -> Context:
    read = Batch(("a", "b"), {}, TEACHER_LABELS, spans=TEACHER_SPANS)
    batch = Batch(("a", "b"), {}, LABELS, spans=SPANS, teacher=read)
    said = Dense(student[0] @ student[1].T + student[2]) if dense else Head(*student)
    return Context(batch, said=said, told=Head(*teacher), **more)  # type: ignore[arg-type]


def naive(student: list[torch.Tensor], teacher: list[torch.Tensor], temperature: float) -> torch.Tensor:
    logs = (student[0] @ student[1].T + student[2]).log_softmax(-1)
    told = (teacher[0] @ teacher[1].T).log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(2):
        for span in (0, 1):
            mine = [logs[row, p, LABELS[row, p]] for p in range(5) if SPANS[row, p] == span]
            theirs = [told[row, p, TEACHER_LABELS[row, p]] for p in range(4) if TEACHER_SPANS[row, p] == span]
            q, p = torch.exp(sum(mine) / temperature), torch.exp(sum(theirs) / temperature)  # type: ignore[arg-type]
            total = total + temperature * len(mine) * (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q)))
    return total


def test_equals_the_naive_form() -> None:
    for temperature in (1.0, 5.0):
        loss = LikelihoodMatching(temperature=temperature).build(())
        for dense in (False, True):
            student, teacher = given()
            found = loss([], [], context(student, teacher, dense))
            wanted = naive(student, teacher, temperature)
            torch.testing.assert_close(found, wanted)
            torch.testing.assert_close(torch.autograd.grad(found, student), torch.autograd.grad(wanted, student))


def test_weights_of_labels_count() -> None:
    student, teacher = given()
    plain = context(student, teacher)
    loss = LikelihoodMatching().build(())
    heavy = replace(plain, batch=replace(plain.batch, weights=torch.full(LABELS.shape, 3.0)))
    torch.testing.assert_close(loss([], [], heavy), 3 * loss([], [], plain))
    without = replace(plain, batch=replace(plain.batch, weights=(SPANS != 1).float()))
    (slopes,) = torch.autograd.grad(loss([], [], without), student[:1])
    assert (slopes[SPANS == 1] == 0).all()
    assert (slopes[SPANS == 0].abs().sum(-1) > 0).all()


def test_a_student_that_is_sure_and_wrong_hears_of_it() -> None:
    mine = torch.tensor([-1e-9, -1e-3], requires_grad=True)
    loss = LikelihoodMatching().build(())._divergence(mine, torch.tensor([0.3, 0.3]).log())  # type: ignore[operator]
    (slopes,) = torch.autograd.grad(loss.sum(), mine)
    assert (slopes > 0.1).all(), "less likely is better"
    assert torch.isfinite(slopes).all()


def test_gradcheck() -> None:
    student, teacher = given(1)
    loss = LikelihoodMatching().build(())
    assert torch.autograd.gradcheck(lambda *leaves: loss([], [], context(list(leaves), teacher)), student)


def test_a_model_does_not_differ_from_itself() -> None:
    student, _ = given()
    read = Batch(("a", "b"), {}, LABELS, spans=SPANS)
    same = Context(Batch(("a", "b"), {}, LABELS, spans=SPANS, teacher=read), said=Head(*student), told=Head(*student))
    loss = LikelihoodMatching().build(())([], [], same)
    assert abs(loss) < 1e-12
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(loss, student))


def test_labels_outside_of_stretches_do_nothing_and_samples_can_be_left_out() -> None:
    student, teacher = given()
    loss = LikelihoodMatching().build(())
    (slopes,) = torch.autograd.grad(loss([], [], context(student, teacher)), student[:1])
    assert (slopes[SPANS == -1] == 0).all()
    assert (slopes[SPANS >= 0].abs().sum(-1) > 0).all()
    half = loss([], [], context(student, teacher, weights=torch.tensor([1.0, 0.0])))
    (slopes,) = torch.autograd.grad(half, student[:1])
    assert (slopes[1] == 0).all()


def test_certain_and_hopeless_stretches_stay_finite() -> None:
    student, teacher = given(dtype=torch.float32)
    student = [(leaf.detach() * 1e4).requires_grad_() for leaf in student]
    loss = LikelihoodMatching().build(())([], [], context(student, [t * 1e4 for t in teacher]))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, student))


def test_chunks_change_nothing() -> None:
    from limbeck.objectives import likelihood

    student, _ = given()
    whole = label_log_probs(Head(*student), LABELS)
    slopes = torch.autograd.grad(whole.square().sum(), student)
    likelihood.CHUNK_BYTES, kept = 1, likelihood.CHUNK_BYTES
    try:
        single = label_log_probs(Head(*student), LABELS)
        torch.testing.assert_close(single, whole)
        torch.testing.assert_close(torch.autograd.grad(single.square().sum(), student), slopes)
    finally:
        likelihood.CHUNK_BYTES = kept
