"""The heat map against CKA of all samples at once, and pooling that sees no padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.alignment.cka import cka_map, linear_cka
from limbeck.core.errors import DataError
from limbeck.evaluation.interpretability.cka import HeatMap, pooled
from tests.alignment.test_cka import naive_hsic, normal
from tests.evaluation.interpretability.rows import language, model_for, plain, texts, view_of


def layers(n: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Layers of two models, of other widths, partly alike, far from zero."""
    xs = [normal(n, 5, seed=seed) + 30, normal(n, 40, seed=seed + 1)]
    return xs, [normal(n, 3, seed=seed + 2), xs[0][:, :3] + normal(n, 3, seed=seed + 3), xs[1] @ normal(40, 7)]


@pytest.mark.parametrize("rows", [1, 5, 23])
def test_the_map_is_that_of_the_written_out_form_whatever_the_blocks(rows: int) -> None:
    xs, ys = layers(23)
    found = cka_map(xs, ys, block_bytes=8 * 23 * 5 * rows)
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            wanted = naive_hsic(x, y) / (naive_hsic(x, x) * naive_hsic(y, y)).sqrt()
            assert abs(found[i, j] - wanted) < 1e-9
            assert abs(found[i, j] - linear_cka(x, y)) < 1e-9


@pytest.mark.parametrize("size", [1, 4, 7, 23])
def test_batch_by_batch_is_the_whole(size: int) -> None:
    xs, ys = layers(23)
    heat = HeatMap()
    for at in torch.arange(23).split(size):
        heat.update([x[at] for x in xs], [y[at] for y in ys])
    torch.testing.assert_close(heat.value(), cka_map(xs, ys), rtol=0, atol=1e-12)


def test_independent_layers_are_not_alike_at_32_samples() -> None:
    found = cka_map(list(normal(8, 32, 512)), list(normal(8, 32, 256, seed=1)))
    assert found.abs().max() < 0.2
    assert abs(found.mean()) < 0.02


def test_a_layer_that_sees_all_alike_is_like_nothing() -> None:
    same = torch.full((9, 3), 0.1, dtype=torch.float64)
    assert (cka_map([same, normal(9, 3)], [normal(9, 3)]) == torch.tensor([[0.0], [1.0]])).tolist()[0] == [True]
    with pytest.raises(DataError, match="3 and 3 samples"):
        cka_map([normal(3, 2)], [normal(3, 2)])


def test_pooling_by_shape() -> None:
    held, real = normal(2, 4, 3), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    held[1, 2:] = float("nan")
    torch.testing.assert_close(pooled(held, real), torch.stack([held[0].mean(0), held[1, :2].mean(0)]))
    image = normal(2, 3, 4, 5)
    torch.testing.assert_close(pooled(image, None), image.flatten(2).mean(2))
    assert torch.equal(pooled(held[:, 0], None), held[:, 0])


@pytest.mark.parametrize(("name", "make"), [("bert", texts), ("llama", language), ("gpt2", language)])
def test_what_is_pooled_is_each_layers_output_without_padding(name: str, make: object) -> None:
    rows, codec = make()  # type: ignore[operator]
    model = model_for(name, codec)
    view = view_of(model, rows, codec)
    look = view.look(list(view.features))
    for i, sample in enumerate(view.features):
        states = plain(model, view, sample, output_hidden_states=True).hidden_states[1:]
        for layer, wanted in list(zip(look.pooled, states, strict=True))[:-1]:  # the last one is normed there
            torch.testing.assert_close(layer[i], wanted[0].mean(0), rtol=1e-8, atol=1e-8)
