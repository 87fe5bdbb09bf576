"""limbeck's own small transformer: language model, and classifier.

Shapes: B rows, T tokens, t new tokens, D hidden width, E embedding width, V vocabulary, H heads, S tokens of a
segment, K near keys, n segments, W kept tokens, P places for summaries, m summary vectors of a segment.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutput,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from limbeck.core.errors import ModelError
from limbeck.models.compact.attention import CompactAttention, RMSNorm, SummaryPool
from limbeck.models.compact.cache import CompactCache, Step
from limbeck.models.compact.config import CompactConfig
from limbeck.models.compact.positions import RelativeBias
from limbeck.models.compact.segments import Layout

_FAR = 128
"""Segments from which on all distances share one bucket."""


def _norm(config: CompactConfig) -> nn.Module:
    kind = RMSNorm if config.norm_type == "rms_norm" else nn.LayerNorm
    return kind(config.hidden_size, config.norm_eps)


class CompactMLP(nn.Module):
    """down(act(gate x) * up x), or down(act(up x)) without a gate.

    Reference:
        Shazeer, GLU Variants Improve Transformer, 2020, arXiv:2002.05202.
    """

    def __init__(self, config: CompactConfig):
        super().__init__()
        wide, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(wide, inner, bias=bias) if config.gated_mlp else None
        self.up_proj = nn.Linear(wide, inner, bias=bias)
        self.down_proj = nn.Linear(inner, wide, bias=bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        up = self.up_proj(hidden_states)
        up = self.act_fn(up) if self.gate_proj is None else self.act_fn(self.gate_proj(hidden_states)) * up
        return self.down_proj(up)


class CompactLayer(GradientCheckpointingLayer):
    """Attention and MLP, each beside a residual path; normalised before or after.

    Reference:
        Xiong et al., On Layer Normalization in the Transformer Architecture, 2020, arXiv:2002.04745.
    """

    def __init__(self, config: CompactConfig, layer_idx: int):
        super().__init__()
        self.norm_first = config.norm_first
        self.self_attn = CompactAttention(config, layer_idx)
        self.mlp = CompactMLP(config)
        self.attention_norm, self.mlp_norm = _norm(config), _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        near: Tensor,
        far: Tensor | None,
        layout: Layout | Step,
        past_key_values: CompactCache | None = None,
    ) -> Tensor:
        """[B, T, D] to [B, T, D]; the other arguments are those of `CompactAttention`."""
        x, given = hidden_states, (near, far, layout, past_key_values)
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.attention_norm(x), *given))
            return x + self.dropout(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.dropout(self.self_attn(x, *given)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class CompactPreTrainedModel(PreTrainedModel):
    """What all compact models share."""

    config: CompactConfig
    config_class = CompactConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["CompactLayer"]  # noqa: RUF012 (here and below: transformers' own form)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _can_record_outputs = {"hidden_states": CompactLayer}  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SummaryPool):  # small queries would all take the same mean
            init.normal_(module.query, std=1.0)


class CompactModel(CompactPreTrainedModel):
    """The backbone: embeddings, layers, and for a decoder the way back to the embeddings' width.

    Args:
        config: of the model.
    """

    def __init__(self, config: CompactConfig):
        super().__init__(config)
        narrow, wide = config.table_width, config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, narrow)  # no padding_idx: it may be the end token's
        self.embed_in = nn.Linear(narrow, wide, bias=False) if narrow < wide else None
        self.embed_types = nn.Embedding(config.type_vocab_size, wide) if config.type_vocab_size else None
        self.layers = nn.ModuleList(CompactLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = _norm(config)  # after the last layer, or after the embeddings where each layer ends with one
        self.embed_out = nn.Linear(wide, narrow, bias=False) if config.is_decoder and narrow < wide else None
        count, heads, both = config.relative_attention_num_buckets, config.num_attention_heads, not config.is_decoder
        self.near_bias = RelativeBias(count, config.relative_attention_max_distance, heads, both_ways=both)
        self.has_summaries = bool(config.segment_length and config.summary_tokens)
        far = max(_FAR, count + 1)
        self.far_bias = RelativeBias(count, far, heads, both_ways=both) if self.has_summaries else None
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: CompactCache | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of a batch.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 0 where there is padding, on any side; with a cache only its last t are read.
            past_key_values: tokens that came before.
            inputs_embeds: [B, T, E] in the place of `input_ids`.
            token_type_ids: [B, T]; not read where `type_vocab_size` is 0.
            use_cache: keep what is needed to go on; a decoder's default is the config's.
            kwargs: `position_ids` and the like are not read: positions count the valid tokens.

        Returns:
            `last_hidden_state`: an encoder's [B, T, D]; a decoder's [B, T, E], which the output matrix multiplies.
        """
        self._check(input_ids, attention_mask, past_key_values, inputs_embeds, bool(kwargs.get("output_attentions")))
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        rows, length = x.shape[:2]
        if self.embed_in is not None:
            x = self.embed_in(x)
        if self.embed_types is not None:
            types = x.new_zeros(rows, length, dtype=torch.long) if token_type_ids is None else token_type_ids
            x = x + self.embed_types(types)
        config = self.config
        if past_key_values is None and use_cache and config.is_decoder:
            past_key_values = CompactCache(config.num_hidden_layers, config.segment_length)
        layout: Layout | Step
        if past_key_values is not None and past_key_values.get_seq_length():
            layout = past_key_values.advance(length, attention_mask)
            near, far = self._step_bias(layout, x.dtype), None
        else:
            layout = Layout.of(length, config.segment_length, config.is_decoder, attention_mask)
            if past_key_values is not None:
                past_key_values.begin(layout, rows, x.device)
            near, far = self._bias(layout, x.device)
        x = x if config.norm_first else self.norm(x)
        for layer in self.layers:
            x = layer(x, near, far, layout, past_key_values=past_key_values)
        x = self.norm(x) if config.norm_first else x
        if self.embed_out is not None:
            x = self.embed_out(x)
        return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=past_key_values)

    def _check(
        self, input_ids: Any, attention_mask: Tensor | None, past: Any, inputs_embeds: Any, attentions: bool
    ) -> None:
        if (input_ids is None) == (inputs_embeds is None):
            raise ModelError("a compact model needs either `input_ids` or `inputs_embeds`")
        if attentions:
            raise ModelError("a compact model makes no attention maps", fix="tap q_proj, k_proj and v_proj")
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ModelError("a compact model needs a padding mask", got=list(attention_mask.shape), allowed="[B, T]")
        decodes = self.config.is_decoder
        if past is not None and not (decodes and isinstance(past, CompactCache)):
            got = f"{type(past).__name__} for {'a decoder' if decodes else 'an encoder'}"
            raise ModelError("a decoder keeps its past in a CompactCache", got=got, fix="use_cache=True makes one")

    def _bias(self, layout: Layout, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Biases [H, S, K] by distance and [H, 2n - 1] by distance in segments."""
        near = self.near_bias(layout.distances_SK(device))
        if self.far_bias is None:
            return near, None
        if layout.count == 1:  # parallel training waits for all parameters, those without a use too
            return near + 0.0 * self.far_bias.table.weight.sum() if self.training else near, None
        return near, self.far_bias(torch.arange(1 - layout.count, layout.count, device=device))

    def _step_bias(self, step: Step, dtype: torch.dtype) -> Tensor:
        """The masked bias [B, H, t, W + P m] of new tokens over the kept ones and the summaries."""
        query, key = step.queries_Bt[:, :, None], step.positions_BW[:, None, :]
        bias, seen = self.near_bias(query - key), (key >= 0) & (query >= key)
        if step.segment:
            number = query // step.segment
            seen = seen & (torch.div(key, step.segment, rounding_mode="floor") >= number - 1)
            if self.far_bias is not None and step.places:
                apart = number - torch.arange(step.places, device=query.device)
                many = self.config.summary_tokens
                bias = torch.cat([bias, self.far_bias(apart).repeat_interleave(many, -1)], -1)
                seen = torch.cat([seen, (apart > 0).repeat_interleave(many, -1)], -1)
        return torch.where(seen[:, None], bias.transpose(0, 1).to(dtype), torch.finfo(dtype).min)


class CompactForCausalLM(CompactPreTrainedModel, GenerationMixin):
    """A language model. Its output matrix [V, E] is the token table, unless `tie_word_embeddings` is false.

    logits = embed_out(hidden) W^T, so that a factorised table serves both ends.

    Args:
        config: of the model, with `is_decoder`.

    Raises:
        ModelError: the config is an encoder's.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: CompactConfig):
        if not config.is_decoder:
            raise ModelError("a compact language model is a decoder", got="is_decoder: false", fix="is_decoder: true")
        super().__init__(config)
        self.model = CompactModel(config)
        self.lm_head = nn.Linear(config.table_width, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the model makes its own, see CompactCache

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: CompactCache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, T, V]; with `labels` [B, T] (not shifted, -100 ignored) also the loss."""
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(out.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=out.past_key_values, hidden_states=out.hidden_states
        )


class CompactForSequenceClassification(CompactPreTrainedModel):
    """A classifier: the mean of the valid tokens' hidden states, then one matrix.

    Args:
        config: of the model, an encoder's.

    Raises:
        ModelError: the config is a decoder's.
    """

    def __init__(self, config: CompactConfig):
        if config.is_decoder:
            raise ModelError("a compact classifier is an encoder", got="is_decoder: true", fix="is_decoder: false")
        super().__init__(config)
        self.num_labels = int(config.num_labels or 0)
        self.model = CompactModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits [B, num_labels]; with `labels` also the loss."""
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)
        hidden = out.last_hidden_state
        mask = hidden.new_ones(hidden.shape[:2]) if attention_mask is None else attention_mask.to(hidden.dtype)
        mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        logits = self.classifier(self.dropout(mean))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=out.hidden_states)
