"""A small valid recipe as a mapping, and ways to break it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import load_recipe

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "src/limbeck/cli/templates").glob("*.yaml")])

_RESNET = {"config": {"model_type": "resnet", "num_channels": 1}}


def recipe(**sections: Any) -> dict[str, Any]:
    """A recipe that is valid as it is; sections given take the place of its own, None removes one."""
    plain: dict[str, Any] = {
        "task": "image-classification",
        "output": "runs/x",
        "teacher": {**_RESNET, "finetune": {"epochs": 2}},
        "student": _RESNET,
        "data": {"train": "digits"},
        "stages": [
            {
                "name": "distil",
                "epochs": 3,
                "terms": [
                    {"type": "cross_entropy", "weight": {"type": "linear", "start": 0.7, "end": 0.3}},
                    {"type": "kl", "temperature": 2},
                ],
            }
        ],
    }
    return copy.deepcopy({k: v for k, v in {**plain, **sections}.items() if v is not None})


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The recipe with one value set; `path` is keys and list positions, parted by dots."""
    made = recipe()
    *inner, last = path.split(".")
    node: Any = made
    for key in inner:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    node[int(last) if isinstance(node, list) else last] = value
    return made


def refusal(raw: Any, *overrides: str) -> str:
    """The message with which a recipe is refused."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(raw, overrides)
    return str(caught.value)
