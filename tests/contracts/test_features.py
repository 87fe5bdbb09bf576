"""The contract of every feature term. Parts are found by name, so a new one is tested once it has an oracle and a spec.

Shapes: B samples, T positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from limbeck.core.errors import RecipeError
from limbeck.core.parts import find, names, reference, summary
from limbeck.objectives import Context, FeatureTerm
from limbeck.objectives.relational.crd import _keys
from tests.contracts.feature_cases import (
    LABELS,
    LENGTHS,
    SPECS,
    WEIGHTS,
    B,
    Case,
    Given,
    Spec,
    T,
    filled,
    make,
    mask_of,
)
from tests.contracts.feature_oracles import ORACLES, naive

NOT_ZERO = {"crd": "a contrast: the own sample never has all of the softmax"}
"""Terms that are not 0 for equal features, and why."""
DOES_NOT_ADD_UP = {
    **dict.fromkeys(("cka", "crd", "pkt", "rkd", "similarity_preserving"), "samples are compared with each other"),
    "multilevel": "its level `global` compares samples with each other, and its weights come from the micro-batch",
}
"""Terms whose value for two batches is not the sum of both, and why."""

FOUND = [n for n in names("objective") if issubclass(find("objective", n), FeatureTerm)]
EVERY = [pytest.param(n, s, id=f"{n}-{i}") for n in FOUND for i, s in enumerate(SPECS.get(n, []))]
every_term = pytest.mark.parametrize(("name", "spec"), EVERY)
padded = pytest.mark.parametrize(
    ("name", "spec"), [p for p in EVERY if p.values[1].text and len(p.values[1].student[0]) > 1]
)


def grads(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def close(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, **more)


@pytest.mark.parametrize("name", FOUND)
def test_has_oracle_spec_and_documentation(name: str) -> None:
    assert name in ORACLES, f"add an oracle for '{name}' to tests/contracts/feature_oracles.py"
    assert SPECS.get(name), f"add specs for '{name}' to {__file__}"
    cls = find("objective", name)
    text = inspect.getdoc(cls) or ""
    assert summary(cls).endswith("."), "the first line says what the term is"
    assert any(sign in text.split("Reference:")[0] for sign in ("sum_", "||", "mean_")), "it shows its formula"
    assert "arXiv" in reference(cls)


@every_term
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_equals_its_oracle(name: str, spec: Spec, weights: Tensor | None) -> None:
    given = filled(make(name, spec))
    found = given.run(weights)
    keys = _keys(given.batch()).tolist()
    each = [1.0] * B if weights is None else weights.tolist()
    layers = given.layers(given.leaves), given.layers(given.told)
    wanted = naive(Case(given.part, given.loss, *layers, given.real(), each, keys, LABELS.tolist(), spec.heads))
    close(found, wanted)
    close(grads(found, given.wanted()), grads(wanted, given.wanted()))


@every_term
def test_gradcheck(name: str, spec: Spec) -> None:
    """Through the student's layers and through the term's own parameters."""
    given, taps = filled(make(name, spec)), len(spec.student)
    inputs, parameters = given.inputs(), dict(given.loss.named_parameters())
    if name == "multilevel" and given.part.weighting == "dissimilarity":
        given.loss.term = replace(given.part, weighting="fixed")  # its weights have no gradient, by definition

    def loss(*flat: Tensor) -> Tensor:
        leaves = [list(flat[i : i + taps]) for i in range(0, len(inputs), taps)]
        own = dict(zip(parameters, flat[len(inputs) :], strict=True))
        layers = given.layers(leaves), given.layers(given.told)
        return functional_call(given.loss, own, (*layers, Context(given.batch())))

    assert torch.autograd.gradcheck(loss, [*inputs, *parameters.values()], fast_mode=True)


@every_term
def test_equal_layers_do_not_differ(name: str, spec: Spec) -> None:
    if name in NOT_ZERO:
        pytest.skip(NOT_ZERO[name])
    if spec.fields.get("layer_map") == "attention":
        pytest.skip("a layer learns from all of the teacher's layers, of which one is equal")
    given = make(name, replace(spec, teacher=spec.student, heads=(2, 2) if not spec.maps else spec.heads))
    for projector in given.loss.projectors:
        if hasattr(projector, "weight"):
            nn.init.dirac_(projector.weight) if projector.weight.ndim == 4 else nn.init.eye_(projector.weight)
            nn.init.zeros_(projector.bias)
    value = given.run(told=[[x.detach() for x in taps] for taps in given.leaves])
    assert abs(value) < 1e-12
    assert all(g.abs().max() < 1e-7 for g in grads(value, given.inputs()))


@padded
@pytest.mark.parametrize("garbage", [1e4, -3e30])
def test_padding_does_nothing(name: str, spec: Spec, garbage: float) -> None:
    given = filled(make(name, spec, torch.float32))
    assert given.mask is not None
    padding = ~given.mask.bool()
    before = given.run()

    def spoil(side: list[list[Tensor]], value: float) -> list[list[Tensor]]:
        return [[_fill(x, padding, value) for x in taps] for taps in side]

    clean = given.layers(given.leaves), given.layers(given.told)
    spoilt = [[x.detach().requires_grad_() for x in taps] for taps in spoil(clean[0], garbage)]
    plain = [[x.detach().requires_grad_() for x in taps] for taps in clean[0]]
    context = Context(given.batch())
    found = given.loss(spoilt, spoil(clean[1], -garbage), context)
    close(found, before)
    flat = [[x for taps in side for x in taps] for side in (spoilt, plain)]
    mine, wanted = grads(found, flat[0]), grads(given.loss(plain, clean[1], context), flat[1])
    close(mine, wanted)
    for g in mine:
        assert (_rows(g)[padding] == 0).all()


def _rows(x: Tensor) -> Tensor:
    """A layer with its positions second: [B, T, ...]."""
    return x if x.ndim == 3 else x.transpose(1, 2)


def _fill(x: Tensor, padding: Tensor, value: float) -> Tensor:
    if x.ndim == 3:
        return x.masked_fill(padding[..., None], value)
    return x.masked_fill(padding[:, None, :, None] | padding[:, None, None, :], value)


@padded
def test_side_of_the_padding_does_not_matter(name: str, spec: Spec) -> None:
    right = filled(make(name, spec))
    left = replace(right, mask=mask_of(left=True))

    def move(x: Tensor) -> Tensor:
        moved = [
            row.roll(T - n, 0) if x.ndim == 3 else row.roll((T - n, T - n), (1, 2))
            for row, n in zip(x, LENGTHS, strict=True)
        ]
        return torch.stack(moved)

    left.leaves = [[move(x.detach()).requires_grad_() for x in taps] for taps in right.leaves]
    left.told = [[move(x) for x in taps] for taps in right.told]
    mine, theirs = right.run(), left.run()
    close(mine, theirs)
    close([move(g) for g in grads(mine, right.inputs())], grads(theirs, left.inputs()))


def part_of(given: Given, rows: slice) -> Tensor:
    leaves, told = (
        [[x[rows] for x in taps] for taps in side] for side in (given.layers(given.leaves), given.layers(given.told))
    )
    return given.loss(leaves, told, Context(given.batch().rows(torch.arange(B)[rows])))


@every_term
def test_batches_add_up(name: str, spec: Spec) -> None:
    given = filled(make(name, spec))
    whole, halves = given.run(), part_of(given, slice(0, 2)) + part_of(given, slice(2, B))
    assert given.part.adds_up is (name not in DOES_NOT_ADD_UP)
    assert given.part.unit == ("position" if name == "multilevel" or given.part.adds_up else "batch")
    if given.part.adds_up:
        close(halves, whole)
        close(grads(halves, given.wanted()), grads(whole, given.wanted()))
    elif spec.fields.get("levels") is None:
        assert abs(halves - whole) > 1e-6, "it adds up after all: say so in the part"


@every_term
def test_teacher_gets_no_gradient(name: str, spec: Spec) -> None:
    given = filled(make(name, spec))
    for leaf in [x for taps in given.told for x in taps]:
        leaf.requires_grad_()
    given.run().backward()
    assert all(x.grad is None for taps in given.told for x in taps)
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in given.inputs())
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for n, p in given.loss.named_parameters() if "bias" not in n
    )


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computes_in_float32_under_autocast(name: str, spec: Spec, dtype: torch.dtype) -> None:
    given = filled(make(name, spec, dtype))
    exact = [[x.detach().float().requires_grad_() for x in taps] for taps in given.leaves]
    wanted = given.run(leaves=exact, told=[[x.float() for x in taps] for taps in given.told])
    slopes = grads(wanted, [x for taps in exact for x in taps])
    if spec.maps:  # probabilities are rounded by the model itself
        close(given.run(), wanted.detach(), rtol=0.1, atol=0.05, check_dtype=True)
        return
    with torch.autocast("cpu", torch.bfloat16):
        found = given.run()
    close(found, wanted, rtol=0, atol=0)
    mine = grads(found, given.inputs())
    assert all(g.dtype == dtype for g in mine)
    close(mine, [g.to(dtype) for g in slopes], rtol=0, atol=0)


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_values(name: str, spec: Spec, dtype: torch.dtype) -> None:
    given = filled(make(name, spec, dtype))
    extremes = (
        lambda x: x.sign() * 1e4,
        lambda x: torch.where(x > 0, 1e4 * x, 1e-8 * x),
        torch.zeros_like,
        torch.ones_like,
    )
    for extreme in extremes:
        leaves = [[extreme(x.detach()).requires_grad_() for x in taps] for taps in given.leaves]
        value = given.run(leaves=leaves, told=[[extreme(-x) for x in taps] for taps in given.told])
        assert torch.isfinite(value)
        flat = [x for taps in leaves for x in taps]
        assert all(torch.isfinite(g).all() for g in grads(value, [*flat, *given.loss.parameters()]))


@every_term
def test_weights_of_samples(name: str, spec: Spec) -> None:
    given = filled(make(name, spec))
    value = given.run(WEIGHTS)
    spoilt = [[x.clone() for x in taps] for taps in given.told]
    for x in (x for taps in spoilt for x in taps):
        x[WEIGHTS == 0] = 0
    close(given.run(WEIGHTS, told=spoilt), value)  # a teacher who was not asked says zeros
    slopes = grads(value, given.inputs())
    assert all((g[WEIGHTS == 0] == 0).all() for g in slopes)
    assert all((g[WEIGHTS > 0] != 0).any() for g in slopes)
    close(given.run(WEIGHTS / 2), value / 2)
    nobody = given.run(torch.zeros(B))
    assert nobody == 0
    assert all((g == 0).all() for g in grads(nobody, given.wanted()))
    close(given.run(torch.ones(B)), given.run())


@every_term
def test_gradient_follows_the_teacher(name: str, spec: Spec) -> None:
    given, other = filled(make(name, spec)), make(name, spec, seed=1)
    found = [grads(given.run(told=told), given.inputs()) for told in (given.told, other.told)]
    assert all((a - b).abs().max() > 1e-6 for a, b in zip(*found, strict=True))


@every_term
def test_state_goes_round(name: str, spec: Spec) -> None:
    given, other = make(name, spec), make(name, spec, seed=3)
    for _ in range(2):
        given.run()  # whoever remembers, remembers
    other.loss.load_state_dict({k: v.clone() for k, v in given.loss.state_dict().items()})
    close(other.run(leaves=given.leaves, told=given.told), given.run())
    again = make(name, spec)
    close(dict(make(name, spec).loss.state_dict()), dict(again.loss.state_dict()), rtol=0, atol=0)


@every_term
def test_one_sample(name: str, spec: Spec) -> None:
    given = make(name, spec)
    if given.part.adds_up or name == "crd" or "global" not in getattr(given.part, "levels", ["global"]):
        assert torch.isfinite(part_of(given, slice(0, 1)))
    else:  # in training, batches of this size would say nothing all along
        with pytest.raises(RecipeError, match="per_device_train_batch_size"):
            part_of(given, slice(0, 1))
    given.loss.eval()
    value = part_of(given, slice(0, 1))
    slopes = grads(value, given.wanted())
    assert all(torch.isfinite(g).all() for g in slopes)
    if given.part.unit == "batch":
        assert value == 0
        assert all((g == 0).all() for g in slopes)
