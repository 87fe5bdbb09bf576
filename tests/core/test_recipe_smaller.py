"""Recipes that round weights: what would take them off their grid, and compression to another one, is refused."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Quantize, Stage, load_recipe

ROUND: dict[str, Any] = {"name": "round", "terms": [{"type": "cross_entropy"}], "quantize": {}}
RECIPE: dict[str, Any] = {
    "task": "text-classification",
    "output": "runs/a",
    "data": {"train": "a.csv"},
    "student": {"model": "someone/something"},
}
PLAIN: dict[str, Any] = {"name": "plain", "terms": [{"type": "cross_entropy"}]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": [ROUND, PLAIN]}, "off the grid"),
        ({"stages": [ROUND, {**PLAIN, "quantize": {"weights": "int4"}}]}, "off the grid"),
        ({"stages": [ROUND], "student": {"model": "someone/something", "lora": {}}}, "student.lora"),
        ({"teacher": {"model": "someone/something", "finetune": {"quantize": {}}}}, "for the student's stages"),
    ],
)
def test_recipes_that_would_lose_the_grid_are_refused(changes: dict[str, Any], said: str) -> None:
    assert load_recipe({**RECIPE, "stages": [PLAIN, ROUND]}).stages[1].quantize is not None

    with pytest.raises(RecipeError, match=said):
        load_recipe({**RECIPE, "stages": [PLAIN, ROUND], **changes})


LANGUAGE = {"task": "causal-lm"}


@pytest.mark.parametrize(
    ("plan", "compressor", "task", "said"),
    [
        ({}, {"type": "int4"}, {}, "quantize.weights is int8, compress.type is int4"),
        ({"weights": "int4"}, {"type": "int8"}, LANGUAGE, "quantize.weights is int4, compress.type is int8"),
        (
            {"weights": "int4", "group_size": 64},
            {"type": "int4"},
            LANGUAGE,
            "group_size is 64, compress.group_size is 32",
        ),
        ({"group_size": 64}, {"type": "int8"}, {}, "quantize.group_size is 64, compress is a row"),
        ({"per_channel": False}, {"type": "int8"}, {}, "quantize.per_channel is False, compress.per_channel is True"),
        ({"keep": ["classifier"]}, {"type": "int8"}, {}, r"name classifier in `compress\.keep`"),
        ({}, {"type": "int8"}, LANGUAGE, "one for each block of 32"),
    ],
)
def test_what_is_learned_and_what_it_is_rounded_to_are_compared(
    plan: dict[str, Any], compressor: dict[str, Any], task: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({**RECIPE, **task, "stages": [{**ROUND, "quantize": plan}], "compress": compressor})


@pytest.mark.parametrize(
    ("plan", "compressor", "task"),
    [
        ({}, {"type": "int8", "mode": "static"}, {}),
        ({"keep": ["classifier"]}, {"type": "int8", "keep": ["*.pooler", "classifier"]}, {}),
        ({"per_channel": False}, {"type": "int8", "per_channel": False}, {}),
        ({"weights": "int4"}, {"type": "int4"}, LANGUAGE),
        ({"weights": "int4", "group_size": 64}, {"type": "int4", "group_size": 64}, LANGUAGE),
        ({}, {"type": "int8", "mode": "dynamic"}, LANGUAGE),
    ],
)
def test_what_is_learned_may_be_rounded_to_the_same(
    plan: dict[str, Any], compressor: dict[str, Any], task: dict[str, Any]
) -> None:
    recipe = {**RECIPE, **task, "stages": [PLAIN, {**ROUND, "quantize": plan}], "compress": compressor}

    assert load_recipe(recipe).compress is not None


@pytest.mark.parametrize("plan", [{"weights": "int4", "per_channel": False}, {"per_channel": False, "group_size": 32}])
def test_groups_of_a_whole_layer_are_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="groups are parts of a channel"):
        Quantize(**plan)


def test_vllm_does_not_write_for_a_rounded_student() -> None:
    with pytest.raises(ValueError, match="not rounded"):
        Stage(name="s", terms=[{"type": "reverse_kl"}], on_policy={"engine": "vllm"}, quantize={})
