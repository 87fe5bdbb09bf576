"""A student cut from its teacher: some of its layers, all of its embeddings and head."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import rebuild

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_layers(teacher: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """A new model with the named layers of the teacher, in the given order, and all else copied.

    Args:
        teacher: any transformer whose config has `num_hidden_layers`; left as it is.
        layers: the layers to keep, counted from 0.

    Raises:
        ModelError: the teacher has no stack of equal layers, or a number is out of range.

    Reference:
        Sanh et al., DistilBERT, 2019, arXiv:1910.01108 (students that start from the teacher's layers).
    """
    depth: int = getattr(teacher.config, "num_hidden_layers", 0)
    stack = _stack(teacher, depth)
    name = type(teacher).__name__
    if stack is None:
        raise ModelError(f"{name} has no stack of layers to choose from", fix="give the student a `config`")
    if not layers or any(not 0 <= i < depth for i in layers):
        raise ModelError(
            f"student.layers does not fit {name}", got=list(layers), allowed=f"numbers from 0 to {depth - 1}"
        )
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    for key, value in teacher.config.to_dict().items():  # layer_types, no_rope_layers: one entry a layer
        if "layer" in key and isinstance(value, list) and len(value) == depth:
            setattr(config, key, [value[i] for i in layers])
    pattern = re.compile(rf"^{re.escape(stack)}\.(\d+)\.")
    given = teacher.state_dict()

    def source(key: str) -> str:
        found = pattern.match(key)
        return pattern.sub(f"{stack}.{layers[int(found[1])]}.", key) if found else key

    return rebuild(teacher, config, lambda key, empty: given[source(key)])


def _stack(model: nn.Module, depth: int) -> str | None:
    """Path of the list that holds the layers: the first of the right length."""
    lists = (n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == depth > 0)
    return next(lists, None)
