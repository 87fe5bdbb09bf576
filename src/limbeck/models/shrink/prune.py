"""A model that loses heads and units where it stands: whoever holds it holds the smaller one.

L layers    H query heads of a layer    F units of an MLP    B samples    E head size
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.core.recipe.smaller import Prune
from limbeck.models.shrink.draft import ANATOMIES, Draft
from limbeck.models.shrink.heads import cut_heads, cut_units

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Sizes = Mapping[str, int]
"""What a cut changes in a config."""


def sizes_left(model: PreTrainedModel, plan: Prune) -> dict[str, int]:
    """What a plan leaves of a model: `num_attention_heads`, `intermediate_size`.

    Raises:
        ModelError: the architecture is not known, its heads fill its width, or a share is too small to take anything.
    """
    config: Any = model.config
    anatomy = ANATOMIES.get(config.model_type)
    if anatomy is None:
        raise ModelError(
            f"{type(model).__name__} cannot be pruned", got=f"model_type {config.model_type}", allowed=list(ANATOMIES)
        )
    found: dict[str, int] = {}
    if plan.heads:
        if anatomy.tied_heads:
            raise ModelError(
                f"in {type(model).__name__} heads x head size is the hidden size, so no head can go alone",
                got=f"prune.heads {plan.heads:g}",
                fix="prune.mlp alone; fewer heads with student.num_attention_heads and student.hidden_size",
            )
        heads = int(config.num_attention_heads)
        groups = int(getattr(config, "num_key_value_heads", None) or heads)
        found["num_attention_heads"] = _left(groups, plan.heads, "prune.heads", "heads or groups") * (heads // groups)
    if plan.mlp:
        found["intermediate_size"] = _left(int(config.intermediate_size), plan.mlp, "prune.mlp", "units")
    return found


def _left(count: int, share: float, field: str, what: str) -> int:
    left = max(1, round(count * (1 - share)))
    if left == count:
        raise ModelError(f"{field} takes nothing", got=f"{share:g} of {count} {what}", fix="a larger share, or 0")
    return left


def pruned(model: PreTrainedModel, left: Sizes, importance: Mapping[str, Tensor]) -> PreTrainedModel:
    """A new model with the most important heads and units.

    Args:
        model: left as it is.
        left: from `sizes_left`.
        importance: [L, H] and [L, F] by the same names; those that are missing go by their weights.
    """
    draft = Draft.of(model)
    if "num_attention_heads" in left:
        cut_heads(draft, left["num_attention_heads"], importance.get("num_attention_heads"))
    if "intermediate_size" in left:
        cut_units(draft, left["intermediate_size"], importance.get("intermediate_size"))
    return draft.build()


def sizes_of(model: PreTrainedModel) -> dict[str, int]:
    """Every number in a model's config that a cut can change."""
    config: Any = model.config
    names = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
    return {name: int(getattr(config, name)) for name in names if getattr(config, name, None) is not None}


def sizes_after(model: PreTrainedModel, plan: Prune) -> dict[str, int]:
    """Every one of these numbers once a plan has been carried out.

    Raises:
        ModelError: as `sizes_left`.
    """
    before, left = sizes_of(model), sizes_left(model, plan)
    after = {**before, **left}
    if "num_attention_heads" in left:  # whole groups go, and a head stays as wide as it is
        groups = before.get("num_key_value_heads", before["num_attention_heads"])
        after["num_key_value_heads"] = left["num_attention_heads"] * groups // before["num_attention_heads"]
        after["head_dim"] = Draft.of(model).head_dim
    return after


def empty(model: PreTrainedModel, sizes: Sizes) -> PreTrainedModel:
    """A new model of the same class with other sizes, for weights that are about to be loaded."""
    config = copy.deepcopy(model.config)
    for name, size in sizes.items():
        setattr(config, name, size)
    return type(model)._from_config(config, dtype=model.dtype)


def become(model: PreTrainedModel, other: PreTrainedModel) -> None:
    """Give a model the modules and the config of another one of its class."""
    device = model.device
    for name, module in other.named_children():
        setattr(model, name, module.to(device))
    model.config = other.config


class Masks:
    """A factor of one at every head and unit, so that a loss can be asked what each of them is worth.

        with Masks(model, left).there() as masks:
            loss = ...
            masks.slopes(loss)

    Args:
        model: of an architecture that can be pruned.
        left: the names of what is looked at, as keys.
    """

    def __init__(self, model: PreTrainedModel, left: Sizes):
        config: Any = model.config
        draft = Draft.of(model)
        places = {"num_attention_heads": draft.anatomy.out, "intermediate_size": draft.anatomy.down}
        self.modules = {(kind, i): f"{layer}{places[kind]}" for kind in left for i, layer in enumerate(draft.layers())}
        self.counts = {kind: int(getattr(config, kind)) for kind in left}
        self.model = model
        self.factors: dict[tuple[str, int], Tensor] = {}

    @contextmanager
    def there(self) -> Iterator[Masks]:
        """The factors are in the model inside of the `with`; new ones each time."""
        self.factors = {}
        hooks = [
            self.model.get_submodule(name).register_forward_pre_hook(self._hook(key))
            for key, name in self.modules.items()
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, key: tuple[str, int]) -> Any:
        count = self.counts[key[0]]

        def multiply(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = given[0]
            if key not in self.factors:  # where activations are computed twice, both times the same ones
                self.factors[key] = torch.ones(len(x), count, device=x.device, dtype=x.dtype, requires_grad=True)
            parts = x.unflatten(-1, (count, -1))
            factor = self.factors[key].view(len(x), *[1] * (parts.ndim - 3), count, 1)
            return ((parts * factor).flatten(-2), *given[1:])

        return multiply

    def slopes(self, loss: Tensor) -> dict[str, Tensor]:
        """sum over samples of |dL / d factor|, [L, H] and [L, F], by the names in `left`."""
        keys = list(self.factors)
        found = torch.autograd.grad(loss, [self.factors[key] for key in keys], allow_unused=True)
        none = {kind: torch.zeros(count, device=loss.device) for kind, count in self.counts.items()}
        by_key = {
            key: none[key[0]] if slope_BN is None else slope_BN.float().abs().sum(0)
            for key, slope_BN in zip(keys, found, strict=True)
        }
        return {kind: torch.stack([by_key[k] for k in sorted(keys) if k[0] == kind]) for kind in self.counts}
