"""LoRA: small matrices learn beside frozen ones, and are merged into them at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from limbeck.core.errors import MissingExtra, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.core.recipe.models import Lora


def add_lora(model: PreTrainedModel, config: Lora) -> PreTrainedModel:
    """Put a low-rank product beside linear maps, and freeze all else but a classifier's head.

    A map W becomes W + (lora_alpha / r) B A, with A random and B zero at first, so the model begins as it was.
    The model stays of its class: its modules keep their names, and the maps can be tapped as before. A head of
    new classes has nothing to be added to, so it learns as a whole; the output matrix of a language model does not
    learn.

    Args:
        model: changed in place, and returned.
        config: rank and scale, and the maps; where these are left out, every linear map of the body.

    Raises:
        MissingExtra: peft is not installed.
        ModelError: a name in `target_modules` fits no linear map.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022, arXiv:2106.09685.
    """
    peft = _peft()
    targets = _targets(model, config.target_modules)
    modules = dict(model.named_modules())
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=all(type(modules[name]).__name__ == "Conv1D" for name in targets),
    )
    peft.inject_adapter_in_model(settings, model)
    if model.get_output_embeddings() is None:
        for name, weight in model.named_parameters():
            if not _in_body(model, name):
                weight.requires_grad_(True)
    return model


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Add the products to the maps that they stand beside: the model is a plain one again, all of it can learn.

    Args:
        model: of `add_lora`; changed in place, and returned. What `save_pretrained` then writes knows nothing of
            LoRA.

    Raises:
        ModelError: a product is not finite, or nothing was added to this model.
    """
    from peft.tuners.lora import LoraLayer

    added = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    if not added:
        raise ModelError(f"no LoRA was added to this {type(model).__name__}")
    for name, module in added:
        layer: Any = module
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise ModelError(f"the LoRA of {name} cannot be merged", got=error) from error
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.requires_grad_(True)


def _peft() -> Any:
    """The library; it takes seconds to import, so only those who ask for it pay."""
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("student.lora", "lora") from error
    return peft


def _targets(model: PreTrainedModel, ends: Sequence[str] | None) -> list[str]:
    """Full names of the maps that get a product."""
    maps = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    if ends is None:
        maps = [name for name in maps if _in_body(model, name)]
        if not maps:
            raise ModelError(f"{type(model).__name__} has no linear layers for LoRA", fix="leave student.lora out")
        return maps
    for end in ends:
        if not any(_ends(name, end) for name in maps):
            known = sorted({name.rpartition(".")[2] for name in maps})
            raise ModelError(
                f"no linear layer of {type(model).__name__} is called {end}",
                allowed=", ".join(known),
                fix="student.lora.target_modules, or leave it out",
            )
    return [name for name in maps if any(_ends(name, end) for end in ends)]


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _in_body(model: PreTrainedModel, name: str) -> bool:
    """Whether a module is part of the body and not of the head; a bare body has no head."""
    return model.base_model is model or name.startswith(f"{model.base_model_prefix}.")
