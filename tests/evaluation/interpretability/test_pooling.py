"""What is pooled of a layer, which sees no padding."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.evaluation.interpretability.pooling import pooled
from tests.alignment.test_cka import normal
from tests.evaluation.interpretability.rows import language, model_for, plain, texts, view_of


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


def test_a_layer_with_other_positions_than_the_rows_is_refused() -> None:
    with pytest.raises(ModelError, match="24 positions of rows of 21 tokens"):
        pooled(normal(2, 24, 3), torch.ones(2, 21).bool())
