"""All cuts of a student from its teacher, in the order in which they fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import Draft
from limbeck.models.shrink.embeddings import factorisable, factorise
from limbeck.models.shrink.heads import check_heads, cut_heads, cut_units
from limbeck.models.shrink.layers import keep_layers
from limbeck.models.shrink.vocabulary import trim_vocabulary
from limbeck.models.shrink.width import cut_width

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ShrinkPlan:
    """What is cut; None leaves a thing as the teacher has it. Named as in a config.

    Attributes:
        layers: the layers to keep, counted from 0.
        hidden_size: width of the stream.
        num_attention_heads: query heads of a layer.
        intermediate_size: units of an MLP.
        vocabulary: `trim` keeps the tokens that are used and what spells the rest.
        embedding_size: width of the embedding tables, smaller than the hidden size.
    """

    layers: Sequence[int] | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    vocabulary: Literal["trim"] | None = None
    embedding_size: int | None = None


@dataclass(frozen=True)
class Shrunk:
    """A student cut from its teacher.

    Attributes:
        model: the student; float32 if its heads, units, width or embeddings were cut.
        tokenizer: the student's; the teacher's own one if the vocabulary was not trimmed.
        token_map: the teacher's id of each of the student's [rows]; None if the vocabulary was not trimmed.
        notes: one line for each thing that is only approximately kept.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    token_map: Tensor | None
    notes: tuple[str, ...]


def shrink(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    plan: ShrinkPlan,
    used_ids: Iterable[int] = (),
    hidden_ND: Tensor | None = None,
) -> Shrunk:
    """A student cut from its teacher: layers, vocabulary, heads, units, width, embeddings, in this order.

    The vocabulary goes before the width, so that the basis of the stream is that of the tokens in use.

    Args:
        teacher: left as it is.
        tokenizer: the teacher's; needed for `vocabulary: trim` only.
        plan: what is cut.
        used_ids: every token id that occurs in the training rows, for `vocabulary: trim`.
        hidden_ND: hidden states of the teacher on training rows [N, D], all layers together; a better ground for
            the width's basis than the weights, which decide if it is None.

    Raises:
        ModelError: a cut does not fit the teacher, or two cuts do not fit each other.
    """
    model, token_map = teacher, None
    if plan.layers is not None:
        model = keep_layers(model, plan.layers)
    if plan.vocabulary == "trim":
        used = list(used_ids)
        if tokenizer is None or not used:
            raise ModelError("student.vocabulary=trim needs a text task: a tokenizer, and rows that use its tokens")
        trimmed = trim_vocabulary(model, tokenizer, used)
        model, tokenizer, token_map = trimmed.model, trimmed.tokenizer, trimmed.token_map
    notes: list[str] = []
    if plan.num_attention_heads or plan.intermediate_size or plan.hidden_size:
        draft = Draft.of(model)
        if plan.num_attention_heads:
            cut_heads(draft, plan.num_attention_heads)
        if plan.intermediate_size:
            cut_units(draft, plan.intermediate_size)
        if plan.hidden_size:
            cut_width(draft, plan.hidden_size, hidden_ND)
        check_heads(draft)
        model, notes = draft.build(), draft.notes
    if plan.embedding_size:
        draft = Draft.of(factorisable(model, plan.embedding_size))
        model = factorise(draft, plan.embedding_size)
        notes = notes + draft.notes
    if model is teacher:
        raise ModelError("nothing is cut from the teacher", fix="student.layers, hidden_size, vocabulary, ...")
    return Shrunk(model, tokenizer, token_map, tuple(notes))
