"""Factorised embeddings: a narrow table and one map to the width of the stream.

V  rows of a table    D  width of the stream    E  embedding size    U  basis [D, E], U'U = 1
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import Draft
from limbeck.models.shrink.width import embedding_moment, principal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.dense",
    "attention.output.LayerNorm": "attention.LayerNorm",
    "intermediate.dense": "ffn",
    "output.dense": "ffn_output",
    "output.LayerNorm": "full_layer_layer_norm",
}
"""What a map of a BERT layer is called in ALBERT."""

_TABLES = ("word", "position", "token_type")


def factorise_embeddings(model: PreTrainedModel, embedding_size: int) -> PreTrainedModel:
    """A BERT classifier as an ALBERT whose embedding tables are V x E, with one map E -> D behind them.

    ALBERT with one group per layer (`num_hidden_groups == num_hidden_layers`) shares nothing between layers and
    computes what BERT computes, pooler and classifier included; only the embeddings differ. The tables are
    projected on the E directions that hold most of their sum (a truncated SVD, in which the direction of the mean
    over D is kept apart, because LayerNorm takes it off), and

        LayerNorm_D(x) * g + b  ~  diag(g) U LayerNorm_E(U'x) sqrt(e D / E) + b

    with the share e of the variance that the basis keeps. It is equal where the tables lie in E directions.
    (ELECTRA also has factorised embeddings, but a classifier with gelu in place of BERT's tanh.)

    Args:
        model: a `BertModel` or `BertForSequenceClassification`; left as it is.
        embedding_size: the tables' new width, smaller than the stream's.

    Raises:
        ModelError: it is another model, or the size is not smaller.

    Reference:
        Lan et al., ALBERT, 2020, arXiv:1909.11942 (factorised embeddings).
    """
    return factorise(Draft.of(factorisable(model, embedding_size)), embedding_size)


def factorise(draft: Draft, embedding_size: int) -> PreTrainedModel:
    """See `factorise_embeddings`; the draft is of a model that fits, and gets a note."""
    import transformers

    of = draft.body
    basis_DE, kept = principal(embedding_moment(draft), embedding_size, mean_off=True)
    weights: dict[str, Tensor] = {}
    for kind in _TABLES:
        table_VD = draft.matrix(f"{of}embeddings.{kind}_embeddings")
        weights[f"embeddings.{kind}_embeddings.weight"] = table_VD @ basis_DE
    scale_D, shift_D = draft.matrix(f"{of}embeddings.LayerNorm"), draft.bias(f"{of}embeddings.LayerNorm")
    assert shift_D is not None
    factor = math.sqrt(kept * len(basis_DE) / embedding_size)
    weights["embeddings.LayerNorm.weight"] = torch.full((embedding_size,), factor)
    weights["embeddings.LayerNorm.bias"] = torch.zeros(embedding_size)
    weights["encoder.embedding_hidden_mapping_in.weight"] = scale_D[:, None] * basis_DE
    weights["encoder.embedding_hidden_mapping_in.bias"] = shift_D
    for i, layer in enumerate(draft.layers()):
        group = f"encoder.albert_layer_groups.{i}.albert_layers.0."
        for (old, new), kind in itertools.product(_LAYER.items(), ("weight", "bias")):
            weights[f"{group}{new}.{kind}"] = draft.weights[f"{layer}{old}.{kind}"]
    for kind in ("weight", "bias"):
        weights[f"pooler.{kind}"] = draft.weights[f"{of}pooler.dense.{kind}"]
    weights = {f"{'albert.' if of else ''}{key}": value.float() for key, value in weights.items()}
    if of:
        weights |= {key: value for key, value in draft.weights.items() if key.startswith("classifier.")}
    draft.notes.append(
        f"embeddings of {len(basis_DE)} became {embedding_size} x {len(basis_DE)} (model_type albert): "
        f"the factors keep {kept:.1%} of the embeddings' variance"
    )
    kind_of = transformers.AlbertForSequenceClassification if of else transformers.AlbertModel
    config, chosen = _config(draft.config, embedding_size), draft.config._attn_implementation
    new = kind_of._from_config(config, dtype=torch.float32, attn_implementation=chosen)
    new.load_state_dict({key: weights[key] for key in new.state_dict()})
    return new


def factorisable(model: PreTrainedModel, embedding_size: int) -> PreTrainedModel:
    """The model, if its embeddings can be factorised."""
    import transformers

    if type(model) not in (transformers.BertModel, transformers.BertForSequenceClassification):
        raise ModelError(
            f"the embeddings of {type(model).__name__} cannot be factorised",
            allowed="BertModel, BertForSequenceClassification",
            fix="leave student.embedding_size out",
        )
    config: Any = model.config
    if not 1 < embedding_size < config.hidden_size:
        raise ModelError(
            "student.embedding_size has to be smaller than the hidden size",
            got=embedding_size,
            allowed=f"numbers from 2 to {config.hidden_size - 1}",
        )
    if config.is_decoder or config.add_cross_attention or model.base_model.pooler is None:
        raise ModelError("only plain BERT encoders with a pooler have an ALBERT that computes the same")
    return model


def _config(old: Any, embedding_size: int) -> Any:
    """The ALBERT config of a BERT's."""
    import transformers

    same = (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
        "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
        "initializer_range", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id", "id2label", "label2id",
        "problem_type",
    )  # fmt: skip
    dropout = getattr(old, "classifier_dropout", None)
    return transformers.AlbertConfig(
        **{key: getattr(old, key) for key in same},
        embedding_size=embedding_size,
        num_hidden_groups=old.num_hidden_layers,
        classifier_dropout_prob=old.hidden_dropout_prob if dropout is None else dropout,
    )
