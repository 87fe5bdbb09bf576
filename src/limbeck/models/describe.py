"""A model's layers, as a person looks for them: names, kinds, shapes."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import load_config
from limbeck.models.taps import unknown_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS = 8


@dataclass(frozen=True)
class LayerRow:
    """One module of a model.

    Attributes:
        name: its full name, as `match` takes it.
        kind: its class.
        shape: what it gives out, with B for the batch and T for the tokens; of a tuple, every tensor.
        parameters: how many it holds, its children's among them.
    """

    name: str
    kind: str
    shape: str
    parameters: int


def describe_layers(name: str, pattern: str | None = None, revision: str | None = None) -> list[LayerRow]:
    """The modules of a model in their order, with the shapes of one pass. Weights are not read, only the config.

    Args:
        name: a folder or a hub name.
        pattern: keep only names that fit, with `*`.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: there is no such model, or the pattern fits nothing.
    """
    config = load_config(Model(model=name, revision=revision))
    maker = getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
    if maker is None:
        raise ModelError(f"transformers has no class for '{name}'", got=config.architectures)
    model = maker.from_config(config) if maker is transformers.AutoModel else maker(config)
    rows = layers_of(model.eval())
    if pattern is None:
        return rows
    kept = [row for row in rows if fnmatch.fnmatchcase(row.name, pattern)]
    if not kept:
        raise unknown_layer(pattern, [row.name for row in rows], type(model).__name__)
    return kept


@torch.no_grad()
def layers_of(model: PreTrainedModel) -> list[LayerRow]:
    """Every module of a model but itself, and what it gives out in a pass over two made-up samples."""
    shapes: dict[str, str] = {}

    def reader(name: str) -> Any:
        def read(module: nn.Module, given: Any, output: Any) -> None:
            shapes.setdefault(name, _shape(output))

        return read

    hooks = [module.register_forward_hook(reader(name)) for name, module in model.named_modules() if name]
    try:
        model(**_two_samples(model))
    finally:
        for hook in hooks:
            hook.remove()
    return [
        LayerRow(name, type(module).__name__, shapes.get(name, "not run"), sum(p.numel() for p in module.parameters()))
        for name, module in model.named_modules()
        if name
    ]


def _two_samples(model: PreTrainedModel) -> dict[str, Tensor]:
    config = model.config
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", None) or 64
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(2, getattr(config, "num_channels", 3), height, width)}
    return {"input_ids": torch.ones(2, TOKENS, dtype=torch.long)}


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        names = {0: "B"} | ({1: "T"} if output.ndim == 3 and output.shape[1] == TOKENS else {})
        return " x ".join(names.get(i, str(n)) for i, n in enumerate(output.shape))
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return ", ".join(_shape(value) for value in values if isinstance(value, Tensor))
