"""The same numbers as torchdistill and TRL for the losses that they have right, and what they have wrong not here.

Optional: `pip install limbeck[parity]`, and `pip install --no-deps torchdistill`, whose losses need only PyTorch.

Shapes: N samples, V classes, D and E widths, C channels.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.core.parts import build
from limbeck.core.types import Batch, Dense, Head
from limbeck.objectives import Context, Layer, Pair, distribution_loss

N, V = 8, 5
LABELS = torch.arange(N) % V
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}
PLACES: dict[str, Any] = {
    "student_module_path": "s",
    "student_module_io": "output",
    "teacher_module_path": "t",
    "teacher_module_io": "output",
}


def draw(*shape: int, seed: int = 0, size: float = 2.0) -> Tensor:
    return size * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def optional(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """torchdistill's losses; the rest of it needs torchvision."""
    return optional("torchdistill.losses.mid_level")


@pytest.fixture(scope="module")
def jsd() -> Iterator[Any]:
    """TRL's loss for on-policy distillation."""
    before = os.environ.get("TRL_EXPERIMENTAL_SILENCE")
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    try:
        yield optional("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    finally:
        if before is None:
            del os.environ["TRL_EXPERIMENTAL_SILENCE"]


def ours(name: str, student: Tensor, teacher: Tensor, labels: Tensor = LABELS, **fields: Any) -> Tensor:
    """The mean over rows."""
    term = build("objective", {"type": name, **fields})
    return distribution_loss(Dense(student), Dense(teacher), labels, [term], [1.0])[0] / len(labels)


def of_layers(name: str, student: Tensor, teacher: Tensor, **fields: Any) -> Tensor:
    """A feature term on one pair of layers."""
    term = build("objective", {"type": name, "match": {"s": "t"}, **fields})
    pair = Pair(Layer("s", ("s",), (student.shape,), None), Layer("t", ("t",), (teacher.shape,), None))
    batch = Batch(tuple(map(str, range(len(student)))), {}, torch.zeros(len(student), dtype=torch.long))
    return term.build([pair])([[student]], [[teacher]], Context(batch))


def told(student: Tensor, teacher: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"s": {"output": student}}, {"t": {"output": teacher}}


def same(found: Tensor, wanted: Tensor, student: Tensor) -> None:
    """Equal, and of equal gradients."""
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    torch.testing.assert_close(torch.autograd.grad(found, student), torch.autograd.grad(wanted, student), **TOLERANCE)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd(theirs: ModuleType, temperature: float) -> None:
    student, teacher = draw(N, V).requires_grad_(), draw(N, V, seed=1)
    found = 0.3 * cross_entropy(student, LABELS) + 0.7 * ours("kl", student, teacher, temperature=temperature)
    loss = theirs.KDLoss(**PLACES, temperature=temperature, alpha=0.3)
    same(found, loss(*told(student, teacher), LABELS), student)


def test_kd_without_a_hard_part_keeps_its_factor(theirs: ModuleType) -> None:
    """torchdistill's KDLoss(alpha=0) drops T^2."""
    student, teacher = draw(N, V).requires_grad_(), draw(N, V, seed=1)
    dropped = theirs.KDLoss(**PLACES, temperature=4.0, alpha=0.0)(*told(student, teacher), LABELS)
    torch.testing.assert_close(ours("kl", student, teacher, temperature=4), 16 * dropped, **TOLERANCE)
    sizes = [torch.autograd.grad(ours("kl", student, teacher, temperature=t), student)[0].norm().item() for t in (1, 8)]
    assert 0.5 < sizes[1] / sizes[0] < 2, "a gradient of about one size over temperatures"


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_logit_standardisation(theirs: ModuleType, temperature: float) -> None:
    """torchdistill divides the variance by V - 1, the paper by V: the same at another temperature."""
    student, teacher = draw(N, V).requires_grad_(), draw(N, V, seed=1)
    more = math.sqrt(V / (V - 1))
    mine = ours("standardized_kl", student, teacher, temperature=temperature * more) / more**2
    loss = theirs.LogitStdKDLoss(**PLACES, temperature=temperature, alpha=0.5, beta=9)
    wanted = loss(*told(student, teacher), LABELS)
    same(0.5 * cross_entropy(student, LABELS) + 9 * mine, wanted, student)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist(theirs: ModuleType, temperature: float) -> None:
    """torchdistill multiplies by T^2, which the paper does not."""
    student, teacher = draw(N, V).requires_grad_(), draw(N, V, seed=1)
    between = ours("dist", student, teacher, temperature=temperature)
    term = build("objective", {"type": "dist_intra", "temperature": temperature})
    batch = Batch(tuple(map(str, range(N))), {}, LABELS)
    within = term.build(())([], [], Context(batch, said=Dense(student), told=Dense(teacher)))  # type: ignore[attr-defined]
    wanted = theirs.DISTLoss(**PLACES, beta=1.5, gamma=0.5, tau=temperature)(*told(student, teacher))
    same(1.5 * between + 0.5 * within, wanted / temperature**2, student)


def test_correlations_are_taken_from_one(theirs: ModuleType) -> None:
    """torchdistill's DIST+ adds the channels' correlation itself, so that it is pushed down."""
    features = draw(N, 6, 4, 4)
    alike = theirs.DISTPlusLoss.channel_relation(theirs.DISTLoss(**PLACES), features, features)
    assert alike == pytest.approx(1.0)
    assert ours("dist", draw(N, V), draw(N, V)) == pytest.approx(0.0, abs=1e-9)


def test_rkd(theirs: ModuleType) -> None:
    """torchdistill takes means over all pairs and triples, also those of a sample with itself, which differ by 0."""
    student, teacher = draw(N, 6).requires_grad_(), draw(N, 9, seed=1)
    loss = theirs.RKDLoss("s", "t", 1.0, 2.0, "mean")
    pairs, triples = (N - 1) / N, (N - 1) * (N - 2) / N**2
    found = pairs * of_layers("rkd", student, teacher, angle=0)
    found = found + triples * of_layers("rkd", student, teacher, distance=0)
    same(found, loss(*told(student, teacher)), student)


def test_attention_transfer(theirs: ModuleType) -> None:
    """torchdistill takes a mean over the places too."""
    student, teacher = draw(N, 3, 4, 4).requires_grad_(), draw(N, 7, 4, 4, seed=1)
    places = {"student": {"path": "s", "io": "output"}, "teacher": {"path": "t", "io": "output"}}
    loss = theirs.ATLoss({"pair": places}, mode="code")
    same(of_layers("attention_transfer", student, teacher) / (N * 16), loss(*told(student, teacher)), student)


def test_similarities_are_normalised_by_their_euclidean_length(theirs: ModuleType) -> None:
    """torchdistill's SPKD divides rows by the sum of their absolute values."""
    student, teacher = draw(N, 6).requires_grad_(), draw(N, 9, seed=1)
    found = of_layers("similarity_preserving", student, teacher)
    paper = (normalize(student @ student.T) - normalize(teacher @ teacher.T)).square().sum() / N**2
    same(found, paper, student)
    wrong = theirs.SPKDLoss("s", "t", "batchmean")(*told(student, teacher))
    assert abs(wrong - paper) > 0.1 * paper


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize(
    ("beta", "term"),
    [(0.0, {"name": "kl"}), (1.0, {"name": "reverse_kl"}), (0.3, {"name": "jensen_shannon", "beta": 0.3})],
)
def test_jensen_shannon(jsd: Any, temperature: float, beta: float, term: dict[str, Any]) -> None:
    """TRL has no factor T^2."""
    student, teacher = draw(2, 4, V).requires_grad_(), draw(2, 4, V, seed=1)
    labels = torch.tensor([[1, -100, 0, 2], [-100, 2, -100, 4]])
    found = ours(**term, student=student, teacher=teacher, labels=labels, temperature=temperature) * len(labels) / 5
    wanted = jsd(student, teacher, labels=labels, beta=beta, temperature=temperature)
    same(found / temperature**2, wanted, student)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.found = max([self.found, *(t.numel() for t in (result,) if isinstance(t, Tensor))])
        return result


def test_logits_are_never_whole(jsd: Any) -> None:
    """TRL makes the logits of all tokens, and several arrays of their size."""
    tokens, width, classes = 64, 4, 500
    hidden, weight, other = draw(1, tokens, width), draw(classes, width, seed=1), draw(classes, width, seed=2)
    labels = torch.arange(tokens)[None] % classes
    term = build("objective", {"type": "jensen_shannon"})
    with Largest() as largest:
        wanted = jsd(hidden @ weight.T, hidden @ other.T, labels=labels)
    assert largest.found >= tokens * classes
    with Largest() as largest:
        leaf = hidden.clone().requires_grad_()
        total, _ = distribution_loss(
            Head(leaf, weight), Head(hidden, other), labels, [term], [1.0], chunk_bytes=8 * classes * 16
        )
    assert largest.found <= tokens * classes / 4
    torch.testing.assert_close(total.detach() / tokens, wanted, **TOLERANCE)
