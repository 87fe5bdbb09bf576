"""Fewer attention heads, smaller heads, fewer units of the MLP.

D  width of the stream        H  query heads       K  key-value heads
E  head size                  F  units of the MLP  G  queries of a group, H / K
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import ANATOMIES, Draft

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def keep_heads(model: PreTrainedModel, n: int, importance: Tensor | None = None) -> PreTrainedModel:
    """A new model with the `n` most important attention heads of every layer, and all else copied.

    The importance of a head is by default the size of what it writes, || W_out[h] W_value[h] ||_F. Where
    queries are grouped, whole groups stay or go, so `n` is a multiple of the group's size.

    Args:
        model: a decoder of the Llama family; left as it is. In BERT-like encoders the heads together are as
            wide as the stream, so theirs go together with the width: see `shrink`.
        n: query heads to keep in each layer.
        importance: a number for each head of each layer [layers, H], the larger the more important.

    Raises:
        ModelError: the architecture is not known, `n` does not fit it, or the heads are bound to the width.

    Reference:
        Michel et al., Are Sixteen Heads Really Better than One?, 2019, arXiv:1905.10650 (heads that can go).
    """
    draft = Draft.of(model)
    cut_heads(draft, n, importance)
    check_heads(draft)
    return draft.build()


def keep_units(model: PreTrainedModel, intermediate_size: int, importance: Tensor | None = None) -> PreTrainedModel:
    """A new model with the most important units of every MLP, and all else copied.

    The importance of a unit is by default its size: the product of the norms of its rows in the maps that feed it
    and of its column in the map that it feeds.

    Args:
        model: a BERT-like encoder or a decoder of the Llama family; left as it is.
        intermediate_size: units to keep in each layer.
        importance: a number for each unit of each layer [layers, F], the larger the more important.

    Raises:
        ModelError: the architecture is not known, or it has fewer units.
    """
    draft = Draft.of(model)
    cut_units(draft, intermediate_size, importance)
    return draft.build()


def check_heads(draft: Draft) -> None:
    """Make sure that the heads of an encoder fill its width, as its architecture demands.

    Raises:
        ModelError: they do not.
    """
    heads, size, width = draft.config.num_attention_heads, draft.head_dim, draft.config.hidden_size
    if draft.anatomy.tied_heads and heads * size != width:
        raise ModelError(
            f"in {type(draft.model).__name__} heads x head size is the hidden size",
            got=f"{heads} heads of {size}, hidden size {width}",
            fix=f"student.hidden_size={heads * size}" if heads * size < width else "a smaller num_attention_heads",
        )


def check_ahead(config: PretrainedConfig, n: int | None, hidden_size: int | None) -> None:
    """Make sure, from the teacher's config alone, that heads and width of a cut will fit.

    Args:
        config: the teacher's, of an architecture whose heads can be cut; any other is left to the cut itself.
        n: query heads to keep; None: all.
        hidden_size: width of the student; None: the teacher's.

    Raises:
        ModelError: they will not.
    """
    anatomy = ANATOMIES.get(config.model_type)
    if anatomy is None:
        return
    if n is not None:
        _group_size(config, n, f"a '{config.model_type}' model")
    heads, width = n or int(config.num_attention_heads), hidden_size or int(config.hidden_size)
    size = int(config.hidden_size) // int(config.num_attention_heads)
    if not anatomy.tied_heads or (width % heads == 0 if hidden_size else heads * size == width):
        return
    raise ModelError(
        f"in a '{config.model_type}' model heads x head size is the hidden size",
        got=f"{heads} heads, hidden size {width}",
        fix=f"student.hidden_size={width // heads * heads if hidden_size and width >= heads else heads * size}",
    )


def _group_size(config: PretrainedConfig, n: int, name: str) -> tuple[int, int]:
    """Key-value heads, and queries of a group, where `n` query heads can be kept."""
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    size = heads // groups
    if not 0 < n <= heads or n % size:
        raise ModelError(
            f"student.num_attention_heads does not fit {name}",
            got=n,
            allowed=f"multiples of {size} up to {heads}" + (" (whole groups of queries)" if size > 1 else ""),
        )
    return groups, size


def cut_heads(draft: Draft, n: int, importance: Tensor | None = None) -> None:
    """Keep `n` query heads of each layer, in their order; see `keep_heads`."""
    groups, size = _group_size(draft.config, n, type(draft.model).__name__)
    dim = draft.head_dim
    for i in range(draft.depth):
        scores_H = _written(draft, i, groups, dim) if importance is None else importance[i].double()
        kept = scores_H.view(groups, size).sum(1).topk(n // size).indices.sort().values
        rows = _rows(kept, dim)
        names = draft.anatomy
        draft.keep_outputs(f"{draft.layer(i)}{names.query}", _rows(kept, size * dim))
        for name in (names.key, names.value):
            draft.keep_outputs(f"{draft.layer(i)}{name}", rows)
        draft.keep_inputs(f"{draft.layer(i)}{names.out}", _rows(kept, size * dim))
    draft.config.num_attention_heads = n
    if not draft.anatomy.tied_heads:
        draft.config.num_key_value_heads = n // size
        draft.config.head_dim = dim  # some configs would derive another one from the number of heads


def _written(draft: Draft, layer: int, groups: int, dim: int) -> Tensor:
    """|| W_out[h] W_value[h] ||_F of every query head [H] of a layer."""
    value_KED = draft.matrix(f"{draft.layer(layer)}{draft.anatomy.value}").view(groups, dim, -1)
    out_DH = draft.matrix(f"{draft.layer(layer)}{draft.anatomy.out}")
    out_HDE = out_DH.view(out_DH.shape[0], -1, dim).transpose(0, 1)
    value_HED = value_KED.repeat_interleave(out_HDE.shape[0] // groups, dim=0)
    # || A B ||^2 = trace(A'A BB'): E x E is small, D x D is not
    return ((out_HDE.mT @ out_HDE) * (value_HED @ value_HED.mT)).sum((1, 2)).clamp(min=0).sqrt()


def narrow_heads(draft: Draft, size: int) -> None:
    """Make every head of an encoder smaller, by the best approximation of what its products say.

    A layer sees a head only through the scores (W_q x + b_q)'(W_k y + b_k) and through W_out (W_v y + b_v).
    Both products, biases as one more column, are replaced by their truncated SVD, its singular values shared
    equally by the two factors. Scores are divided by sqrt(size) in the layer; the factors make up for it.

    Args:
        draft: of an encoder whose heads all have keys and values of their own.
        size: new head size.

    Raises:
        ModelError: the heads are smaller already.
    """
    dim, names = draft.head_dim, draft.anatomy
    if size > dim:
        raise ModelError(
            f"the heads of {type(draft.model).__name__} cannot be made larger",
            got=f"hidden_size {draft.config.hidden_size} / {draft.config.num_attention_heads} heads = {size}",
            allowed=f"a head size of at most {dim}",
            fix=f"a larger num_attention_heads, or hidden_size={draft.config.num_attention_heads * dim}",
        )
    if size == dim:
        return
    for layer in draft.layers():
        query, key, value = (_with_bias(draft, f"{layer}{n}", dim) for n in (names.query, names.key, names.value))
        out_DH = draft.matrix(f"{layer}{names.out}")
        out_HED = out_DH.view(out_DH.shape[0], -1, dim).permute(1, 2, 0)
        rescale = (size / dim) ** 0.25
        query, key = (rescale * x for x in _factors(query, key, size))
        out_HED, value = _factors(out_HED, value, size)
        for name, joint in ((names.query, query), (names.key, key), (names.value, value)):
            draft.put(f"{layer}{name}", joint[..., :-1].flatten(0, 1), joint[..., -1].flatten())
        draft.put(f"{layer}{names.out}", out_HED.flatten(0, 1).mT)
    draft.notes.append(f"attention heads of size {dim} became {size}: truncated SVD of query-key and value-output")


def cut_units(draft: Draft, intermediate_size: int, importance: Tensor | None = None) -> None:
    """Keep `intermediate_size` units of every MLP, in their order; see `keep_units`."""
    units = int(draft.config.intermediate_size)
    if not 0 < intermediate_size <= units:
        raise ModelError(
            f"student.intermediate_size does not fit {type(draft.model).__name__}",
            got=intermediate_size,
            allowed=f"numbers from 1 to {units}",
        )
    for i, layer in enumerate(draft.layers()):
        ups, down = [f"{layer}{name}" for name in draft.anatomy.up], f"{layer}{draft.anatomy.down}"
        scores_F = _size(draft, ups, down) if importance is None else importance[i].double()
        kept = scores_F.topk(intermediate_size).indices.sort().values
        for name in ups:
            draft.keep_outputs(name, kept)
        draft.keep_inputs(down, kept)
    draft.config.intermediate_size = intermediate_size


def _size(draft: Draft, ups: list[str], down: str) -> Tensor:
    """The size of every unit [F] of an MLP."""
    size_F = draft.matrix(down).norm(dim=0)
    for name in ups:
        size_F = size_F * draft.matrix(name).norm(dim=1)
    return size_F


def _rows(blocks: Tensor, size: int) -> Tensor:
    """The numbers of the rows in the given blocks of `size` rows."""
    return (blocks[:, None] * size + torch.arange(size)).flatten()


def _with_bias(draft: Draft, name: str, dim: int) -> Tensor:
    """A map's weight with its bias as last column, by head [H, E, D + 1]."""
    bias = draft.bias(name)
    weight = draft.matrix(name)
    column = torch.zeros(len(weight), 1, dtype=weight.dtype) if bias is None else bias[:, None]
    return torch.cat([weight, column], dim=1).view(-1, dim, weight.shape[1] + 1)


def _factors(left_HEA: Tensor, right_HEB: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors of `rank` whose product left' right is nearest to that of the given ones."""
    (left_q, left_r), (right_q, right_r) = torch.linalg.qr(left_HEA.mT), torch.linalg.qr(right_HEB.mT)
    u, s, v = torch.linalg.svd(left_r @ right_r.mT)
    root = s[:, :rank, None].sqrt()
    return root * (left_q @ u[..., :rank]).mT, root * (right_q @ v[:, :rank].mT).mT
