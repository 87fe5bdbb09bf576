"""Students cut from their teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import load_model, parameters
from limbeck.models.shrink import keep_layers
from tests.models.conftest import CONFIGS, inputs_of, new

STACKS = {
    "qwen3": "model.layers",
    "qwen3-tied": "model.layers",
    "gpt2": "transformer.h",
    "bert": "bert.encoder.layer",
    "vit": None,
    "smollm3": "model.layers",
}


def moved(key: str, layers: list[int]) -> str:
    """The teacher's name of a student's weight: the one number in it, after the stack, is a layer's."""
    parts = key.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if at is not None:
        parts[at] = str(layers[int(parts[at])])
    return ".".join(parts)


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("layers", [[0, 3], [3, 1], [2], [1, 1], [0, 1, 2, 3], [0, 0, 1, 2, 3]])
def test_weights_are_the_teachers(name: str, layers: list[int]) -> None:
    teacher = new(name)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student = keep_layers(teacher, layers)
    given = teacher.state_dict()
    for key, value in student.state_dict().items():
        assert torch.equal(value, given[moved(key, layers)]), key
    assert student.config.num_hidden_layers == len(layers)
    assert teacher.config.num_hidden_layers == 4
    assert all(torch.equal(value, before[key]) for key, value in given.items())
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items()), "no memory is shared"
    if STACKS[name] is not None:
        assert any(key.startswith(f"{STACKS[name]}.{len(layers) - 1}.") for key in student.state_dict())


@pytest.mark.parametrize("name", STACKS)
def test_all_layers_make_the_same_model(name: str) -> None:
    teacher = new(name)
    student, inputs = keep_layers(teacher, [0, 1, 2, 3]).eval(), inputs_of(teacher)
    torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, rtol=0, atol=0)


def test_settings_of_a_layer_go_with_it() -> None:
    """Wrong ones would load without a word and compute something else."""
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    teacher = new("qwen3", layer_types=kinds, sliding_window=4, use_sliding_window=True)
    student = keep_layers(teacher, [3, 0])
    assert student.config.layer_types == [kinds[3], kinds[0]]
    assert teacher.config.layer_types == kinds
    rotary = [bool(layer.self_attn.use_rope) for layer in keep_layers(new("smollm3"), [1, 3]).model.layers]
    assert rotary == [True, False]


def test_layers_that_are_not_there_are_refused() -> None:
    teacher = new("bert")
    for layers in ([], [4], [-1], [0, 9]):
        with pytest.raises(ModelError, match=r"does not fit BertFor(.|\n)*numbers from 0 to 3"):
            keep_layers(teacher, layers)


def test_models_without_a_stack_are_refused() -> None:
    with pytest.raises(ModelError, match="ResNetForImageClassification has no stack of layers"):
        keep_layers(new("resnet"), [0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_embeddings_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    teacher = new("qwen3-tied").to(dtype)
    student = keep_layers(teacher, [0, 2])
    assert student.dtype == dtype
    assert tied(student)
    student.save_pretrained(tmp_path)
    again = load_model(Model(model=str(tmp_path)), CONFIGS["qwen3-tied"][0], settings={}).eval()
    assert tied(again)
    assert parameters(again) == parameters(student) < sum(v.numel() for v in student.state_dict().values())
    inputs = inputs_of(student)
    torch.testing.assert_close(again(**inputs).logits, student.eval()(**inputs).logits, rtol=0, atol=0)


def tied(model: Any) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_buffers_come_along() -> None:
    """The rotary frequencies are not in the state dict; they follow from the config."""
    teacher = new("qwen3", max_position_embeddings=64)
    student = keep_layers(teacher, [0])
    torch.testing.assert_close(dict(student.named_buffers()), dict(teacher.named_buffers()))
    assert student.generation_config.to_dict() == teacher.generation_config.to_dict()
