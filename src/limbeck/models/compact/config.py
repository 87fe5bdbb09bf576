"""The configuration of limbeck's own small model."""

from __future__ import annotations

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from limbeck.core.errors import ModelError


@strict
class CompactConfig(PreTrainedConfig):
    """A small transformer for long inputs: one configuration for encoders and decoders.

    Args:
        embedding_size: width E of the token table, at most `hidden_size`; None is `hidden_size`. A smaller one
            factorises the table into [V, E] and [E, D]; a decoder's head goes the same way back.
        is_decoder: True is a language model that sees the past alone, False an encoder that sees both sides.
        segment_length: S tokens of a segment; 0 is full attention.
        summary_tokens: m vectors that stand for a segment where it is too far away to be seen; 0 is none.
        relative_attention_num_buckets: number of distances that a learned bias tells apart.
        relative_attention_max_distance: distances from here on share one bucket.
        gated_mlp: three matrices and a gate (SwiGLU with `silu`); False is two.
        norm_first: normalise what a sub-layer reads (True), or what it leaves behind, as BERT does (False).
        qk_norm: normalise queries and keys per head, as Qwen3 does.
        type_vocab_size: number of `token_type_ids` that are told apart; 0: they are ignored.
        initializer_range: standard deviation of new weights; None is 1 / sqrt(hidden_size). The usual 0.02 is made
            for wide models: narrow ones hardly begin to learn with it (docs/compact.md has the figures).
        max_position_embeddings: longest input that the model is meant for; no weight depends on it.

    Raises:
        ModelError: sizes that do not fit each other.

    Reference:
        Lan et al., ALBERT, 2019, arXiv:1909.11942 (factorised embeddings).
    """

    model_type: ClassVar[str] = "compact"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]
    attribute_map: ClassVar[dict[str, str]] = {"rms_norm_eps": "norm_eps", "layer_norm_eps": "norm_eps"}

    vocab_size: int = 32000
    hidden_size: int = 256
    embedding_size: int | None = None
    intermediate_size: int = 688
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    is_decoder: bool = False
    segment_length: int = 512
    summary_tokens: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 1024
    hidden_act: str = "silu"
    gated_mlp: bool = True
    norm_type: Literal["rms_norm", "layer_norm"] = "rms_norm"
    norm_first: bool = True
    norm_eps: float = 1e-6
    qk_norm: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float = 0.0
    hidden_dropout_prob: float = 0.0
    classifier_dropout: float = 0.1
    type_vocab_size: int = 0
    max_position_embeddings: int = 32768
    initializer_range: float | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.num_attention_heads < 1 or (self.head_dim is None and self.hidden_size % self.num_attention_heads):
            raise _wrong(
                "num_attention_heads does not divide hidden_size",
                f"{self.num_attention_heads} and {self.hidden_size}",
                fix="other sizes, or a `head_dim`",
            )
        self.embedding_size, self.head_dim = self.table_width, self.head_width
        self.num_key_value_heads = self.key_heads
        if self.initializer_range is None:
            self.initializer_range = self.hidden_size**-0.5
        super().__post_init__(**kwargs)

    @property
    def table_width(self) -> int:
        """E, the width of the token table."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim

    @property
    def key_heads(self) -> int:
        """Number of heads that keys and values have."""
        return self.num_attention_heads if self.num_key_value_heads is None else self.num_key_value_heads

    def validate_architecture(self):
        """Refuse sizes that do not fit each other."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim"):
            if getattr(self, name) < 1:
                raise _wrong(f"{name} is too small", getattr(self, name), "1 and more")
        if not 1 <= self.table_width <= self.hidden_size:
            raise _wrong("embedding_size does not fit", self.embedding_size, f"1 to {self.hidden_size} (hidden_size)")
        if self.key_heads < 1 or self.num_attention_heads % self.key_heads:
            got = f"{self.num_key_value_heads} for {self.num_attention_heads} heads"
            raise _wrong("num_key_value_heads does not divide num_attention_heads", got)
        for name in ("segment_length", "summary_tokens", "type_vocab_size"):
            if getattr(self, name) < 0:
                raise _wrong(f"{name} is negative", getattr(self, name), "0 and more")
        least = 2 if self.is_decoder else 4
        if self.relative_attention_num_buckets < least or self.relative_attention_num_buckets % 2:
            got = self.relative_attention_num_buckets
            raise _wrong("relative_attention_num_buckets does not fit", got, f"even numbers from {least} on")
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets:
            raise _wrong(
                "relative_attention_max_distance is too small",
                self.relative_attention_max_distance,
                f"more than {self.relative_attention_num_buckets} (relative_attention_num_buckets)",
            )


def _wrong(what: str, got: object, allowed: object = None, fix: str | None = None) -> ModelError:
    return ModelError(f"no compact model can be made: {what}", got=got, allowed=allowed, fix=fix)
