"""Self-distillation: what the term computes, whom it teaches, and what it refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build
from limbeck.core.types import Batch, Blend, Dense
from limbeck.objectives import Context, Layer, Pair
from limbeck.objectives.base import BatchTerm, FeatureLoss
from tests.models.conftest import new

B, T, K = 3, 4, 2
CONFIG = SimpleNamespace(num_labels=K)
LABELS = torch.tensor([0, 1, 1])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def made(*shapes: tuple[int, ...], **fields: object) -> FeatureLoss:
    term = build("objective", {"type": "deep_to_shallow", "layers": ["a"], **fields})
    assert isinstance(term, BatchTerm)
    pairs = [Pair(Layer("a", ("a",), (torch.Size((B, *shape)),), CONFIG), None) for shape in shapes]
    return term.build(pairs).double()


def given(logits: Tensor, mask: Tensor | None = None, blend: Blend | None = None) -> Context:
    inputs = {} if mask is None else {"attention_mask": mask}
    return Context(Batch(("x", "y", "z"), inputs, LABELS, blend=blend), said=Dense(logits))


def naive(loss: FeatureLoss, means: list[list[Tensor]], logits: Tensor, hard: float, t: float) -> float:
    """In loops, from each layer's mean of each sample."""
    total = 0.0
    for layer, classifier in zip(means, loss.classifiers, strict=True):  # type: ignore[arg-type]
        for i, row in enumerate(layer):
            mine = [float(v) for v in (classifier.weight @ row + classifier.bias).detach()]

            def softmax(values: list[float], t: float) -> list[float]:
                sizes = [math.exp(v / t) for v in values]
                return [s / sum(sizes) for s in sizes]

            p, q = softmax(logits[i].tolist(), t), softmax(mine, t)
            soft = t * t * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            total += (1 - hard) * soft - hard * math.log(softmax(mine, 1)[int(LABELS[i])])
    return total / len(means)


@pytest.mark.parametrize(("hard", "t"), [(0.0, 1.0), (0.3, 3.0), (1.0, 2.0)])
def test_is_what_it_says(hard: float, t: float) -> None:
    loss = made((T, 5), (3,), hard_share=hard, temperature=t)
    text, row = torch.randn(B, T, 5, dtype=torch.float64), torch.randn(B, 3, dtype=torch.float64)
    logits = torch.randn(B, K, dtype=torch.float64)
    means = [text[i, : int(MASK[i].sum())].mean(0) for i in range(B)]
    found = loss([[text], [row]], [[], []], given(logits, MASK))
    assert found.item() == pytest.approx(naive(loss, [means, list(row)], logits, hard, t))
    picture = made((5, 2, 3))
    pixels = torch.randn(B, 5, 2, 3, dtype=torch.float64)
    wanted = naive(picture, [[pixels[i].flatten(1).mean(1) for i in range(B)]], logits, 0.5, 3.0)
    assert picture([[pixels]], [[]], given(logits)).item() == pytest.approx(wanted)


def test_the_final_answer_gets_no_gradient_and_padding_none_either() -> None:
    loss = made((T, 5))
    text = torch.randn(B, T, 5, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(B, K, dtype=torch.float64, requires_grad=True)
    loss([[text]], [[]], given(logits, MASK)).backward()
    assert logits.grad is None
    assert text.grad is not None
    assert (text.grad[MASK == 0] == 0).all()
    assert (text.grad[MASK == 1] != 0).any()
    torch.autograd.gradcheck(lambda x: loss([[x]], [[]], given(logits, MASK)), text, fast_mode=True)


def test_blended_labels_share() -> None:
    loss, row = made((3,), hard_share=1.0), torch.randn(B, 3, dtype=torch.float64)
    logits, other = torch.zeros(B, K), 1 - LABELS

    def value(share: float) -> float:
        return loss([[row]], [[]], given(logits, blend=Blend(other, torch.full((B,), share)))).item()

    assert value(0.0) == pytest.approx(loss([[row]], [[]], given(logits)).item())
    assert value(0.25) == pytest.approx(0.75 * value(0.0) + 0.25 * value(1.0))


def test_language_models_are_refused() -> None:
    term = build("objective", {"type": "deep_to_shallow", "layers": ["a"]})
    assert isinstance(term, BatchTerm)
    with pytest.raises(RecipeError, match="token by token"):
        term.taps("model.layers.0", new("qwen3"))
