"""A model taken apart: its config, its weights by name, and what each weight is to the residual stream.

The stream is the hidden state that every layer reads and adds to. Cuts of heads, units and width change the
weights of a draft one after another, so a state between two cuts need not be a model that transformers could
build; `Draft.build` makes the model at the end and refuses what does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Where an architecture keeps what; names within a layer follow the layer's own.

    Attributes:
        layer: name of layer `{}`.
        embeddings: tables whose sum enters the stream.
        query, key, value, out: the attention's maps.
        up: maps into the MLP's units; where there are two, the first is the gate.
        down: the map from the MLP's units back to the stream.
        norms: norm within a layer -> the maps that read the stream through it; none where the normed stream
            goes on by itself (post-norm).
        first_norm, last_norm: a norm after the embeddings, and one before the head.
        tied_heads: whether heads x head size is the hidden size in any model of this kind.
    """

    layer: str
    embeddings: tuple[str, ...]
    query: str
    key: str
    value: str
    out: str
    up: tuple[str, ...]
    down: str
    norms: Mapping[str, tuple[str, ...]]
    first_norm: str | None = None
    last_norm: str | None = None
    tied_heads: bool = False

    @property
    def pre_norm(self) -> bool:
        """Whether norms stand before the maps and leave the stream itself as it is."""
        return self.last_norm is not None


_ATTENTION = "attention.self."
ENCODER = Anatomy(
    layer="encoder.layer.{}.",
    embeddings=tuple(f"embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type")),
    query=f"{_ATTENTION}query",
    key=f"{_ATTENTION}key",
    value=f"{_ATTENTION}value",
    out="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
    norms={"attention.output.LayerNorm": (), "output.LayerNorm": ()},
    first_norm="embeddings.LayerNorm",
    tied_heads=True,
)
"""BERT and its kin: norms with a mean, after each addition to the stream."""

DECODER = Anatomy(
    layer="layers.{}.",
    embeddings=("embed_tokens",),
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    norms={
        "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    },
    last_norm="norm",
)
"""Llama and its kin: RMS norms before each map, gated MLPs, grouped queries."""

ANATOMIES: Mapping[str, Anatomy] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), ENCODER),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), DECODER),
}
"""The architectures, by `model_type`, whose heads, units and width can be cut."""


def rebuild(
    model: PreTrainedModel, config: PretrainedConfig, weight: Callable[[str, Tensor], Tensor]
) -> PreTrainedModel:
    """A new model of the same class from another config.

    Args:
        model: the one to start from; left as it is.
        config: the new model's.
        weight: gives the value of each of the new model's weights, from its name and its empty tensor.
    """
    new = type(model)._from_config(config, dtype=model.dtype)
    new.load_state_dict({key: weight(key, empty) for key, empty in new.state_dict().items()})
    if getattr(model, "generation_config", None) is not None:  # classifiers have none
        new.generation_config = copy.deepcopy(model.generation_config)
    return new


@dataclass
class Draft:
    """One model, taken apart.

    Attributes:
        model: the model that it was; never changed.
        config: the new model's config.
        weights: the new model's weights by full name, float32.
        anatomy: where the architecture keeps what.
        notes: one line on each thing that is only approximately kept.
    """

    model: PreTrainedModel
    config: Any
    weights: dict[str, Tensor]
    anatomy: Anatomy
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Draft:
        """Take a model apart.

        Raises:
            ModelError: its architecture is not known here.
        """
        anatomy = ANATOMIES.get(model.config.model_type)
        if anatomy is None:
            raise ModelError(
                f"{type(model).__name__} can be cut by layers and by vocabulary only",
                got=f"model_type {model.config.model_type}",
                allowed=f"for heads, hidden_size and intermediate_size: {', '.join(ANATOMIES)}",
                fix="give the student a `config`",
            )
        given = {k: v.detach().clone() for k, v in model.state_dict().items()}
        weights = {k: v.float() if v.is_floating_point() else v for k, v in given.items()}
        return cls(model, copy.deepcopy(model.config), weights, anatomy)

    @property
    def body(self) -> str:
        """What the names of the body's weights begin with: `bert.`, `model.`, or nothing for a bare body."""
        prefix = f"{self.model.base_model_prefix}."
        return prefix if any(key.startswith(prefix) for key in self.weights) else ""

    @property
    def depth(self) -> int:
        """Number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def head_dim(self) -> int:
        """Size of one attention head, as the weights have it."""
        rows = self.weights[f"{self.layer(0)}{self.anatomy.query}.weight"].shape[0]
        return int(rows) // int(self.config.num_attention_heads)

    def layer(self, i: int) -> str:
        """What the names of layer `i` begin with."""
        return f"{self.body}{self.anatomy.layer.format(i)}"

    def layers(self) -> Iterator[str]:
        """The beginnings of the names of all layers."""
        return (self.layer(i) for i in range(self.depth))

    def names(self, *inside: str) -> list[str]:
        """Full names of what each layer has under these names."""
        return [f"{layer}{name}" for layer in self.layers() for name in inside]

    def matrix(self, name: str) -> Tensor:
        """A map's weight [out, in], or a table's [rows, D], in float64."""
        return self.weights[f"{name}.weight"].double()

    def bias(self, name: str) -> Tensor | None:
        """A map's bias [out] in float64; None where it has none."""
        found = self.weights.get(f"{name}.bias")
        return None if found is None else found.double()

    def put(self, name: str, weight: Tensor, bias: Tensor | None = None) -> None:
        """Set a map's weight, and its bias where it has one."""
        self.weights[f"{name}.weight"] = weight.float().contiguous()
        if bias is not None and f"{name}.bias" in self.weights:
            self.weights[f"{name}.bias"] = bias.float().contiguous()

    def keep_outputs(self, name: str, rows: Tensor) -> None:
        """Keep some of a map's outputs."""
        bias = self.bias(name)
        self.put(name, self.matrix(name)[rows], None if bias is None else bias[rows])

    def keep_inputs(self, name: str, columns: Tensor) -> None:
        """Keep some of a map's inputs."""
        self.put(name, self.matrix(name)[:, columns])

    def build(self) -> PreTrainedModel:
        """The model, in float32.

        Raises:
            ModelError: a weight does not have the shape that the config asks for.
        """
        new = type(self.model)._from_config(self.config, dtype=torch.float32)
        wanted = {key: value.shape for key, value in new.state_dict().items()}
        wrong = [k for k, shape in wanted.items() if k not in self.weights or self.weights[k].shape != shape]
        if wrong:
            raise ModelError(
                f"{type(self.model).__name__} has weights that this cut does not know",
                got=", ".join(wrong[:5]),
                allowed="causal language models and sequence classifiers",
            )
        new.load_state_dict({key: self.weights[key] for key in wanted})
        if getattr(self.model, "generation_config", None) is not None:
            new.generation_config = copy.deepcopy(self.model.generation_config)
        return new
