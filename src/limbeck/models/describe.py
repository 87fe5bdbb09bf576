"""A model's layers, as a person looks for them: names, kinds, shapes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import load_config
from limbeck.models.taps import unknown_layer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

TOKENS = 8
_PARTS = re.compile(r"\.(?![^{]*\})")
"""The dots between the parts of a name, not those of a range."""


@dataclass(frozen=True)
class LayerRow:
    """One module of a model, or several that are alike.

    Attributes:
        name: its full name, as `match` takes it; of several, with a range: `encoder.layer.{0..5}`.
        kind: its class.
        shape: what it gives out, with B for the batch and T for the tokens; of a tuple, every tensor.
        parameters: how many each of them holds, its children's among them.
    """

    name: str
    kind: str
    shape: str
    parameters: int


def describe_layers(name: str, patterns: Iterable[str] = (), revision: str | None = None) -> list[LayerRow]:
    """The modules of a model in their order, with the shapes of one pass. Weights are not read, only the config.

    Args:
        name: a folder, a hub name, or a `model_type` of transformers, of which the default config is taken.
        patterns: keep only names that fit one of them, with `*`; a beginning may be left out. None: keep all.
        revision: branch, tag or commit on the hub.

    Raises:
        ModelError: there is no such model, it cannot be run, or a pattern fits nothing.
    """
    config = _config(name, revision)
    model, rows = _run(config, name)
    kept: set[str] = set()
    for pattern in patterns:
        fit = {row.name for row in rows if _fits(row.name, pattern)}
        if not fit:
            raise unknown_layer(pattern, [row.name for row in rows], model)
        kept |= fit
    return [row for row in rows if row.name in kept] if kept else rows


def _config(name: str, revision: str | None) -> PretrainedConfig:
    if name in transformers.CONFIG_MAPPING and not Path(name).exists():
        return transformers.AutoConfig.for_model(name)
    return load_config(Model(model=name, revision=revision))


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")


def _run(config: PretrainedConfig, name: str) -> tuple[str, list[LayerRow]]:
    """The class of a model, and its layers."""
    maker: Any = getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
    if maker is None:
        raise ModelError(f"transformers has no class for '{name}'", got=config.architectures)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0  # decoders that classify want one for more than one text

    def run(device: str) -> tuple[str, list[LayerRow]]:
        with torch.device(device):
            model = maker.from_config(config) if maker is transformers.AutoModel else maker(config)
            return type(model).__name__, layers_of(model.eval())

    try:
        return run("meta")  # without memory for weights: names and shapes of 70 billion are there in a second
    except RuntimeError:
        pass  # a model that looks at values as it runs; with memory the names and shapes are the same
    try:
        return run("cpu")
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(
            f"the layers of '{name}' cannot be seen: it does not run on a made-up sample", got=error
        ) from (error)


@torch.no_grad()
def layers_of(model: PreTrainedModel) -> list[LayerRow]:
    """Every module of a model that can be tapped, but itself, and what it gives out in a pass over two samples."""
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
        LayerRow(name, type(module).__name__, shapes[name], sum(p.numel() for p in module.parameters()))
        for name, module in model.named_modules()
        if name in shapes
    ]


def _two_samples(model: PreTrainedModel) -> dict[str, Tensor]:
    config = model.config
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", None) or 64
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(2, getattr(config, "num_channels", 3), height, width)}
    ids = torch.ones(2, TOKENS, dtype=torch.long)
    return {"input_ids": ids, **({"decoder_input_ids": ids} if config.is_encoder_decoder else {})}


def _shape(output: Any) -> str:
    if isinstance(output, Tensor):
        names = {0: "B"} | ({1: "T"} if output.ndim == 3 and output.shape[1] == TOKENS else {})
        return " x ".join(names.get(i, str(n)) for i, n in enumerate(output.shape))
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    return ", ".join(_shape(value) for value in values if isinstance(value, Tensor))


def together(rows: Sequence[LayerRow]) -> list[LayerRow]:
    """Layers that differ in a number alone as one row: `encoder.layer.{0..5}.output`, at its first one's place."""
    found = list(rows)
    for place in range(max((row.name.count(".") for row in rows), default=-1) + 1):
        groups: dict[LayerRow, list[int]] = {}
        for row in found:
            parts = _PARTS.split(row.name)
            number = int(parts[place]) if place < len(parts) and parts[place].isdigit() else None
            key = row if number is None else replace(row, name=".".join([*parts[:place], "#", *parts[place + 1 :]]))
            groups.setdefault(key, []).append(-1 if number is None else number)
        found = [replace(key, name=_name(key.name, run)) for key, numbers in groups.items() for run in _runs(numbers)]
    return found


def _runs(numbers: Sequence[int]) -> list[range]:
    """Numbers as stretches without a gap."""
    runs: list[range] = []
    for number in numbers:
        if runs and runs[-1].stop == number:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _name(pattern: str, run: range) -> str:
    text = str(run.start) if len(run) == 1 else f"{{{run.start}..{run.stop - 1}}}"
    return pattern.replace("#", text)
