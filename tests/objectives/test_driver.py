"""The pass itself: weights of rows, blended labels, what is learned besides, closed forms, and backward passes.

Shapes: B batch, T positions, D hidden width, V classes, N valid rows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.errors import DataError, ModelError, RecipeError
from limbeck.core.parts import build, find, names
from limbeck.core.types import Blend, Dense, Dist, Head
from limbeck.objectives import DistributionTerm, distribution_loss
from limbeck.objectives.chunk import Chunk

B, T, D, V = 2, 4, 3, 7
LABELS = torch.tensor([[1, -100, 0, 6], [-100, 2, 4, 5]])
VALID = LABELS != -100
CE, KL = build("objective", "cross_entropy"), build("objective", {"type": "kl", "temperature": 2})
CLOSED = [
    build("objective", spec)
    for spec in (
        "cross_entropy",
        {"type": "cross_entropy", "label_smoothing": 0.2},
        *({"type": t, "temperature": k} for t in ("kl", "reverse_kl", "total_variation") for k in (1, 2, 0.7)),
        *({"type": "jensen_shannon", "temperature": k, "beta": b} for k, b in ((1, 0.5), (3, 0.9), (0.7, 0.1))),
        {"type": "kl", "temperature": {"type": "per_sample"}},
    )
]
both_kinds = pytest.mark.parametrize("kind", ["head", "dense"])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Case:
    """A student that needs gradients and a teacher, both heads."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64):
        self.hidden = normal(B, T, D, seed=seed, dtype=dtype).requires_grad_()
        self.weight = normal(V, D, seed=seed + 1, dtype=dtype).requires_grad_()
        self.told = normal(B, T, V, seed=seed + 2, dtype=dtype)

    def student(self, kind: str) -> Dist:
        return Head(self.hidden, self.weight) if kind == "head" else Dense(self.hidden @ self.weight.T)

    def slopes(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, [self.hidden, self.weight]))

    def run(self, kind: str, terms: Any, labels: Tensor = LABELS, weights: Any = None, **more: Any) -> Any:
        return distribution_loss(
            self.student(kind), Dense(self.told), labels, terms, weights or [1.0] * len(terms), chunk_bytes=120, **more
        )


def close(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, **more)


@pytest.mark.parametrize("term", CLOSED, ids=[f"{i}-{t.type()}" for i, t in enumerate(CLOSED)])
@pytest.mark.parametrize("shared", [None, torch.arange(V - 2)], ids=["all", "prefix"])
def test_a_closed_form_equals_autograd(term: Any, shared: Any) -> None:
    logits, scale = 3 * normal(5, V), torch.rand(5, 1, dtype=torch.float64) + 0.1
    chunk = Chunk(logits, torch.arange(5) % (V - 2), 3 * normal(5, V, seed=1), shared)
    out = torch.ones_like(logits)
    values = term.slopes(chunk, scale, out)
    leaf = logits.clone().requires_grad_()
    wanted = term.rows(Chunk(leaf, chunk.labels_N, chunk.teacher_NU, shared))
    close(values, wanted.detach())
    (slopes,) = torch.autograd.grad((wanted * scale.squeeze(1)).sum(), leaf)
    close(out, 1 + slopes)
    close(term.slopes(chunk, scale, None), values)


@pytest.mark.parametrize("order", [(1, 2, 4), (4, 2, 1), (2, 1, 4), (3, 1, 0.5)])
def test_closed_forms_share_exponentials_without_harm(order: tuple[float, ...]) -> None:
    """One after the other on one chunk, as the pass evaluates them."""
    logits, told, labels = 3 * normal(4, V), 3 * normal(4, V, seed=1), torch.arange(4)
    terms = [build("objective", {"type": "kl", "temperature": t}) for t in order] + CLOSED
    chunk, out, one = Chunk(logits, labels, told), torch.zeros_like(logits), torch.ones(4, 1, dtype=torch.float64)
    values = [term.slopes(chunk, one, out) for term in terms]
    leaf = logits.clone().requires_grad_()
    wanted = [term.rows(Chunk(leaf, labels, told)) for term in terms]
    close(values, [w.detach() for w in wanted])
    close(out, torch.autograd.grad(sum(w.sum() for w in wanted), leaf)[0])


def test_every_closed_form_is_tested_here() -> None:
    classes = [find("objective", name) for name in names("objective")]
    having = {c.type() for c in classes if issubclass(c, DistributionTerm) and c.slopes is not DistributionTerm.slopes}
    assert having == {term.type() for term in CLOSED}


@both_kinds
@pytest.mark.parametrize("terms", [[CE, KL], [KL, build("objective", "skew_kl")]], ids=["closed", "mixed"])
def test_row_weights_multiply_rows(kind: str, terms: Any) -> None:
    given, weights = Case(), torch.tensor([[2.0, 5.0, 0.5, 0.0], [1.0, 1.0, 3.0, 1.5]])
    total, sums = given.run(kind, terms, weights=[0.7, 0.2], row_weights=weights)
    slow, slow_sums = 0.0, [0.0, 0.0]
    for b, t in (VALID & (weights != 0)).nonzero().tolist():
        one = torch.full_like(LABELS, -100)
        one[b, t] = LABELS[b, t]
        alone, alone_sums = given.run(kind, terms, one, weights=[0.7, 0.2])
        slow = slow + weights[b, t].double() * alone
        slow_sums = [s + weights[b, t].double() * v for s, v in zip(slow_sums, alone_sums.values(), strict=True)]
    close(total, slow)
    close(list(sums.values()), slow_sums)
    close(given.slopes(total), given.slopes(slow))


@both_kinds
@pytest.mark.parametrize("terms", [[CE, KL], [CE, build("objective", "skew_kl")]], ids=["closed", "autograd"])
def test_the_teachers_say_multiplies_what_asks_it(kind: str, terms: Any) -> None:
    """Where it has no say it may not have been asked: what stands there does not count, not even as NaN."""
    given, say = Case(), torch.tensor([0.25, 0.0])
    given.told[1] = torch.nan
    total, _ = given.run(kind, terms, teacher_weights=say)
    first = torch.cat([LABELS[:1], torch.full_like(LABELS[1:], -100)])
    wanted = given.run(kind, terms[:1])[0] + 0.25 * given.run(kind, terms[1:], first)[0]
    close(total, wanted)
    close(given.slopes(total), given.slopes(wanted))


@both_kinds
def test_blended_labels(kind: str) -> None:
    given, second = Case(), torch.where(VALID, (LABELS + 3) % V, -100)
    share = torch.tensor([0.3, 0.0])
    terms = [build("objective", {"type": "cross_entropy", "label_smoothing": 0.1}), KL]
    total, _ = given.run(kind, terms, blend=Blend(second, share))
    each = torch.zeros((), dtype=torch.float64)
    for b in range(B):
        own = torch.full_like(LABELS, -100)
        own[b] = LABELS[b]
        other = torch.where(own != -100, second, -100)
        s = share[b].double()
        each = each + (1 - s) * given.run(kind, terms, own)[0] + s * given.run(kind, terms, other)[0]
    close(total, each)
    close(given.slopes(total), given.slopes(each))


def test_a_blended_sample_needs_both_labels() -> None:
    second = LABELS.clone()
    second[0, 0] = -100
    with pytest.raises(DataError, match="label in only one"):
        Case().run("head", [CE], blend=Blend(second, torch.tensor([0.5, 0.5])))


@both_kinds
def test_a_learned_temperature_gets_its_gradient(kind: str) -> None:
    term = build("objective", {"type": "kl", "temperature": {"type": "learned"}})
    given, temperature = Case(), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    total, _ = given.run(kind, [CE, term], weights=[0.5, 0.3], learned={"kl": temperature})
    leaves = [given.hidden, given.weight, temperature]
    found = torch.autograd.grad(3 * total, leaves)
    logits = (given.hidden @ given.weight.T)[VALID]
    p = torch.log_softmax(given.told[VALID] / temperature, 1)
    q = torch.log_softmax(logits / temperature, 1)
    soft = temperature**2 * (p.exp() * (p - q)).sum()
    hard = torch.nn.functional.cross_entropy(logits, LABELS[VALID], reduction="sum")
    close(found, torch.autograd.grad(3 * (0.5 * hard + 0.3 * soft), leaves))
    with torch.no_grad():
        close(given.run(kind, [CE, term], weights=[0.5, 0.3], learned={"kl": temperature})[0], total.detach())


def test_a_graph_can_be_gone_through_twice() -> None:
    given = Case(dtype=torch.float32)
    total = given.run("head", [CE, KL])[0]
    first = [g.clone() for g in torch.autograd.grad(total, [given.hidden, given.weight], retain_graph=True)]
    again = torch.autograd.grad(5 * total, [given.hidden, given.weight])
    close(list(again), [5 * g for g in first])


def test_gradients_are_handed_out_without_a_copy() -> None:
    given = Case(dtype=torch.float32)
    total = given.run("head", [CE])[0]
    made = total.grad_fn.gradients.weight.whole.data_ptr()
    total.backward()
    assert given.weight.grad is not None
    assert given.weight.grad.data_ptr() == made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_no_valid_row_gives_zero_and_zero_gradients(dtype: torch.dtype) -> None:
    given = Case(dtype=dtype)
    total, _ = given.run("head", [CE, KL], torch.full_like(LABELS, -100))
    assert total == 0
    assert all(g.dtype == dtype and (g == 0).all() for g in given.slopes(total))


def test_float64_stays_float64_under_autocast() -> None:
    given = Case()
    wanted = given.run("head", [CE, KL])[0]
    with torch.autocast("cpu", torch.bfloat16):
        close(given.run("head", [CE, KL])[0], wanted, rtol=0, atol=0)


def test_a_term_of_weight_zero_is_still_measured() -> None:
    given = Case()
    total, sums = given.run("head", [CE, KL], weights=[1.0, 0.0])
    wanted, _ = given.run("head", [CE])
    close(given.slopes(total), given.slopes(wanted))
    close(sums["kl"], given.run("head", [KL])[1]["kl"])


@both_kinds
@pytest.mark.parametrize("second", ["kl", "skew_kl"])
def test_a_term_of_weight_zero_spoils_nothing(kind: str, second: str) -> None:
    given, told = Case(), Case()
    told.told.fill_(torch.nan)
    terms = [CE, build("objective", second)]
    total, sums = told.run(kind, terms, weights=[0.7, 0.0])
    assert not torch.isfinite(sums[second])
    wanted = given.run(kind, [CE], weights=[0.7])[0]
    close(total, wanted)
    close(told.slopes(total), given.slopes(wanted))
    none, _ = given.run(kind, terms, weights=[0.0, 0.0])
    assert none == 0
    assert all((g == 0).all() for g in given.slopes(none))


@pytest.mark.parametrize("temperature", [1.0, 3.0, 0.7, torch.full((4, 1), 3.0)], ids=["1", "3", "0.7", "rows"])
def test_an_offset_common_to_a_row_costs_no_digits(temperature: Any) -> None:
    """Logits on a grid of 1/64 are exact in float32 even beside 2^17."""
    logits = (64 * normal(4, V)).round().float() / 64
    with_offset, plain = (Chunk(z, torch.arange(4), z.flip(1)) for z in (logits + 2.0**17, logits))
    close(with_offset.soft_student(temperature).scaled_NV, plain.soft_student(temperature).scaled_NV, rtol=0, atol=0)
    close(with_offset.student(temperature), plain.student(temperature), rtol=0, atol=0)


def test_the_shared_classes_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are the first ones is known to the host only when the device has caught up."""
    asked: list[Tensor] = []
    monkeypatch.setattr("limbeck.objectives.chunk.is_prefix", lambda ids: asked.append(ids))
    Case().run("head", [CE, KL], LABELS.clamp(max=4), shared=torch.arange(V - 2))
    assert not asked, "asked for a chunk, not for the pass"


def test_a_term_that_asks_needs_a_teacher() -> None:
    given = Case()
    with pytest.raises(RecipeError, match="kl asks for a teacher"):
        distribution_loss(given.student("head"), None, LABELS, [KL], [1.0])


def test_closed_forms_are_as_exact_as_autograd_at_a_large_vocabulary() -> None:
    """PyTorch's softmax alone is off by 1e-5 there."""
    draw = torch.Generator().manual_seed(3)
    logits, told = (4 * torch.randn(2, 150_000, generator=draw) for _ in range(2))
    chunk, out = Chunk(logits, torch.tensor([5, 7]), told), torch.zeros_like(logits)
    values = [term.slopes(chunk, torch.ones(2, 1), out) for term in (KL, CE)]
    leaf = logits.double().requires_grad_()
    exact = [term.rows(Chunk(leaf, chunk.labels_N, told.double())) for term in (KL, CE)]
    close(values, [e.float().detach() for e in exact], rtol=2e-6, atol=0)
    (slopes,) = torch.autograd.grad(sum(e.sum() for e in exact), leaf)
    assert (out - slopes).norm() < 2e-6 * slopes.norm()


@both_kinds
@pytest.mark.parametrize("spec", ["dkd", "mixed_target"])
def test_a_label_that_the_teacher_has_not_counts_where_it_is_asked(kind: str, spec: Any) -> None:
    term, shared, odd = build("objective", spec), torch.arange(V - 1), LABELS.clone()
    odd[0, 0] = V - 1  # no class of the teacher's
    said = {"shared": shared, "teacher_weights": torch.tensor([0.0, 1.0])}
    loss, found = Case(), Case()
    asked = loss.run(kind, [CE, term], odd, **said)[1]
    wanted = found.run(kind, [term], torch.where(torch.tensor([[True], [False]]), -100, LABELS), shared=shared)[1]
    torch.testing.assert_close(asked[term.label], wanted[term.label])
    with pytest.raises(ModelError, match="not among the classes"):
        Case().run(kind, [CE, term], odd, shared=shared, teacher_weights=torch.tensor([1.0, 1.0]))
