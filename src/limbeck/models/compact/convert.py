"""A pretrained model as a compact one: what corresponds is copied, the rest is new and has to be distilled.

Shapes: V vocabulary, D hidden width, E embedding width, L layers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError, nearest
from limbeck.models.compact.config import CompactConfig
from limbeck.models.compact.modeling import CompactForCausalLM, CompactForSequenceClassification, CompactModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.models.compact.modeling import CompactPreTrainedModel

DECODERS = ("llama", "mistral", "qwen2", "qwen3")
ENCODERS = ("bert", "roberta", "xlm-roberta")

CHANGES = (
    "embedding_size",
    "tie_word_embeddings",
    "segment_length",
    "summary_tokens",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "max_position_embeddings",
    "attention_dropout",
    "hidden_dropout_prob",
    "classifier_dropout",
    "initializer_range",
    "use_cache",
)
"""Fields of the config that may differ from the pretrained model's; the others would leave nothing to copy."""

_SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "initializer_range", "id2label", "label2id", "problem_type"),
)
_DECODER_PARTS = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    **{f"self_attn.{x}": f"self_attn.{x}" for x in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
    **{f"mlp.{x}": f"mlp.{x}" for x in ("gate_proj", "up_proj", "down_proj")},
}
_ENCODER_PARTS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.o_proj": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "mlp.up_proj": "intermediate.dense",
    "mlp.down_proj": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


@dataclass
class Conversion:
    """Where a converted model's weights come from; names as in its state dict."""

    copied: list[str] = field(default_factory=list)
    """Equal to the pretrained model's."""
    approximated: dict[str, str] = field(default_factory=dict)
    """Made from the pretrained model's, and how."""
    new: dict[str, str] = field(default_factory=dict)
    """Without a counterpart, and how they begin."""
    dropped: dict[str, str] = field(default_factory=dict)
    """What the pretrained model has and the converted one has not."""

    def __str__(self) -> str:
        lines = [f"copied: {len(self.copied)} tensors"]
        for title in ("approximated", "new", "dropped"):
            lines += [f"{title}: {name}: {why}" for name, why in getattr(self, title).items()]
        return "\n".join(lines)


def check_changes(changes: Iterable[str]) -> None:
    """Make sure that fields of the config can change in a conversion.

    Raises:
        ModelError: one cannot.
    """
    if strange := sorted(set(changes) - set(CHANGES)):
        guess = nearest(strange[0], CHANGES)
        fix = f"did you mean '{guess}'?" if guess else "convert first, then cut layers or widths"
        raise ModelError(
            f"{', '.join(strange)} cannot change in a conversion", allowed=", ".join(sorted(CHANGES)), fix=fix
        )


def from_pretrained_model(model: PreTrainedModel, **changes: Any) -> tuple[CompactPreTrainedModel, Conversion]:
    """A compact model with a pretrained model's weights, and a report of where each comes from.

    Attention, MLP and norms are copied. Token tables are copied, or factorised by a truncated SVD where
    `embedding_size` is smaller. Positions are not: rotations are dropped, learned absolute positions leave their
    mean behind; the relative bias begins at zero, so the model has to be distilled before it is of use.

    Args:
        model: a Llama, Mistral, Qwen2 or Qwen3 language model, or a BERT or RoBERTa encoder or classifier; left as
            it is. A MiniLM is a BERT. Cut layers or widths first (`limbeck.models.shrink`).
        changes: fields of `CompactConfig` that shall differ, see `CHANGES`.

    Returns:
        The model (a language model, a classifier, or a bare backbone: what was given), and the report.

    Raises:
        ModelError: another architecture, or a change that leaves nothing to copy.
    """
    check_changes(changes)
    kind, name = model.config.model_type, type(model).__name__
    makers: dict[str, type[CompactPreTrainedModel]] = {"Model": CompactModel}
    makers |= {"ForCausalLM": CompactForCausalLM} if kind in DECODERS else {}
    makers |= {"ForSequenceClassification": CompactForSequenceClassification} if kind in ENCODERS else {}
    maker = next((m for end, m in makers.items() if name.endswith(end)), None)
    if kind not in (*DECODERS, *ENCODERS) or maker is None or getattr(model.config, "is_decoder", False):
        raise ModelError(
            f"{name} ('{kind}') cannot be converted to a compact model",
            allowed=f"causal language models: {', '.join(DECODERS)}; encoders and classifiers: {', '.join(ENCODERS)}",
            fix="student: {config: {model_type: compact, ...}} starts from new weights",
        )
    body = getattr(model, model.base_model_prefix, model)
    given = body.state_dict()
    fields = (_decoder_fields if kind in DECODERS else _encoder_fields)(model.config, given)
    config = CompactConfig(**{**_shared_fields(model), **fields, **changes})
    compact = maker._from_config(config, dtype=model.dtype).to(model.device)
    report = Conversion()
    weights = _layers(config, given, report)
    if kind in DECODERS:
        table = given["embed_tokens.weight"]
        head = model.state_dict().get("lm_head.weight", table)
        weights |= _tables(config, table, None if head.data_ptr() == table.data_ptr() else head, report)
        report.dropped["rotary positions"] = "the relative bias has to learn what they did"
    else:
        weights |= _tables(config, given["embeddings.word_embeddings.weight"], None, report)
        weights["embed_types.weight"] = _types(given, report)
        if "pooler.dense.weight" in given:
            report.dropped["pooler"] = "the classifier reads the mean of the tokens"
    if getattr(model.config, "sliding_window", None):
        report.dropped["sliding window"] = "segments take its place"
    _put(compact, weights, report)
    if getattr(model, "generation_config", None) is not None:
        compact.generation_config = copy.deepcopy(model.generation_config)
    return compact, report


def _shared_fields(model: PreTrainedModel) -> dict[str, Any]:
    """Fields that both kinds name alike."""
    return {name: getattr(model.config, name, None) for name in _SHARED}


def _decoder_fields(config: Any, given: Mapping[str, Tensor]) -> dict[str, Any]:
    first = "layers.0.self_attn"
    return {
        "is_decoder": True,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": given[f"{first}.q_proj.weight"].shape[0] // config.num_attention_heads,
        "norm_eps": config.rms_norm_eps,
        "qk_norm": f"{first}.q_norm.weight" in given,
        "attention_bias": f"{first}.q_proj.bias" in given,
        "mlp_bias": "layers.0.mlp.up_proj.bias" in given,
        "attention_dropout": getattr(config, "attention_dropout", 0.0) or 0.0,
        "tie_word_embeddings": bool(config.tie_word_embeddings),
    }


def _encoder_fields(config: Any, given: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "is_decoder": False,
        "norm_eps": config.layer_norm_eps,
        "norm_type": "layer_norm",
        "norm_first": False,
        "gated_mlp": False,
        "attention_bias": True,
        "mlp_bias": True,
        "attention_dropout": config.attention_probs_dropout_prob,
        "hidden_dropout_prob": config.hidden_dropout_prob,
        "type_vocab_size": given["embeddings.token_type_embeddings.weight"].shape[0],
    }


def _layers(config: CompactConfig, given: Mapping[str, Tensor], report: Conversion) -> dict[str, Tensor]:
    """Weights of all layers and of the norm beside them, by the converted backbone's names."""
    parts, stack = (_DECODER_PARTS, "layers") if config.is_decoder else (_ENCODER_PARTS, "encoder.layer")
    modules = {"norm": "norm" if config.is_decoder else "embeddings.LayerNorm"}
    for i in range(config.num_hidden_layers):
        modules |= {f"layers.{i}.{ours}": f"{stack}.{i}.{theirs}" for ours, theirs in parts.items()}
    found = {}
    for ours, theirs in modules.items():
        for end in ("weight", "bias"):
            if f"{theirs}.{end}" in given:
                found[f"{ours}.{end}"] = given[f"{theirs}.{end}"]
    report.copied += found
    return found


def _tables(config: CompactConfig, table_VD: Tensor, head_VD: Tensor | None, report: Conversion) -> dict[str, Tensor]:
    """The token table and the output matrix, factorised where the config says so."""
    narrow, wide = config.table_width, config.hidden_size
    tie = bool(config.tie_word_embeddings)
    if narrow == wide:
        if tie and head_VD is not None:
            raise ModelError(
                "the teacher has an output matrix of its own, a tied table of the same width cannot hold both",
                fix="a smaller embedding_size (both are then fitted together), or tie_word_embeddings: false",
            )
        weights = {"embed_tokens.weight": table_VD}
        if config.is_decoder and not tie:
            weights["lm_head.weight"] = table_VD if head_VD is None else head_VD
        report.copied += weights
        return weights
    together = [table_VD] if head_VD is None or not tie else [table_VD, head_VD]
    codes, ways, kept = factorise(together, narrow)
    weights = {"embed_tokens.weight": codes, "embed_in.weight": ways[0]}
    how = f"SVD, rank {narrow} of {wide}, keeps {kept:.1%} of the squared norm"
    if config.is_decoder:
        weights["embed_out.weight"] = ways[-1].T
        if not tie:
            source = table_VD if head_VD is None else head_VD
            weights["lm_head.weight"], (way,), share = factorise([source], narrow)
            weights["embed_out.weight"] = way.T
            report.approximated["lm_head.weight"] = f"SVD, rank {narrow} of {wide}, keeps {share:.1%}"
    report.approximated |= {name: how for name in weights if name not in report.approximated}
    return weights


def factorise(tables_VD: list[Tensor], rank: int) -> tuple[Tensor, list[Tensor], float]:
    """The best codes of a given width for one or several tables at once: W_i ~ C U_i^T.

    The truncated SVD of the tables side by side, by the eigenvectors of their small Gram matrix, in float64.

    Args:
        tables_VD: tables [V, D_i] of the same rows.
        rank: width of the codes.

    Returns:
        Codes [V, rank], maps [D_i, rank], and the share of the squared norm that is kept.

    Reference:
        Eckart and Young, The approximation of one matrix by another of lower rank, 1936, doi:10.1007/BF02288367.
    """
    whole = torch.cat([t.detach().double() for t in tables_VD], 1)
    energy, basis = torch.linalg.eigh(whole.T @ whole)
    basis = basis[:, -rank:].flip(1)
    codes = (whole @ basis).to(tables_VD[0].dtype)
    ways = [way.to(codes.dtype) for way in basis.split([t.shape[1] for t in tables_VD])]
    return codes, ways, float(energy[-rank:].sum() / energy.sum())


def _types(given: Mapping[str, Tensor], report: Conversion) -> Tensor:
    """The table of token types, with the mean of the absolute positions added: it is added to every token."""
    positions = given["embeddings.position_embeddings.weight"]
    used = positions[positions.abs().sum(1) > 0]  # RoBERTa's padding position is zero
    report.approximated["embed_types.weight"] = "token types plus the mean of the absolute positions"
    report.dropped["absolute positions"] = "the relative bias has to learn what they did"
    return given["embeddings.token_type_embeddings.weight"] + used.mean(0)


def _put(compact: CompactPreTrainedModel, weights: Mapping[str, Tensor], report: Conversion) -> None:
    """Load the weights; what has none begins new."""
    body = "" if isinstance(compact, CompactModel) else "model."
    named = {name if name == "lm_head.weight" else body + name: weight for name, weight in weights.items()}
    state = compact.state_dict()
    assert named.keys() <= state.keys(), sorted(named.keys() - state.keys())
    with torch.no_grad():
        for name, tensor in state.items():
            short = name.removeprefix("model.")
            if name in named:
                tensor.copy_(named[name])
            elif "_bias.table." in name or short.endswith("o_proj.bias"):
                tensor.zero_()
                report.new[short] = "zero"
            elif short != "lm_head.weight":  # tied to the token table
                report.new[short] = "random" if tensor.any() else "zero"
