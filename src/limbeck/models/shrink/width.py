"""A narrower residual stream: every map that reads or writes it is projected on one orthonormal basis.

    D  old width    d  new width    N  rows that say where the stream has its variance
    P  basis [D, d], P'P = 1; the student's stream is P'x where the teacher's is x

Exact are the maps: a reader W becomes WP, a writer P'W. Norms are where it is approximate:

    RMS norm before a map (Llama): its weights are folded into the map, and what is left commutes with a
        rotation. New weights sqrt(e D / d), for the share e of the variance that the basis keeps.
    Last norm before a tied head: nothing to fold it into, so as the next one.
    LayerNorm after an addition (BERT): the basis sends (1, .., 1) to (1, .., 1), so that the mean is taken off
        alike; its weights g become diag(P' diag(g) P) sqrt(e D / d), the least-squares fit for a normed stream
        without correlations, and its bias P'b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.models.shrink.draft import Draft
from limbeck.models.shrink.heads import narrow_heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def project_width(model: PreTrainedModel, hidden_size: int, hidden_ND: Tensor | None = None) -> PreTrainedModel:
    """A new model with a narrower residual stream; see the file's head for what is exact.

    In a BERT-like encoder the heads get narrower with the stream, by `narrow_heads`.

    Args:
        model: a BERT-like encoder or a decoder of the Llama family; left as it is.
        hidden_size: the new width.
        hidden_ND: hidden states of the teacher, for a basis of these; None takes the basis from the weights.

    Raises:
        ModelError: the architecture is not known, or the width does not fit it.

    Reference:
        Ashkboos et al., SliceGPT, 2024, arXiv:2401.15024 (decoders; its basis is one for each layer and taken
        from activations, here it is one for all, so that the student is a plain model of the same class).
    """
    draft = Draft.of(model)
    cut_width(draft, hidden_size, hidden_ND)
    return draft.build()


def cut_width(draft: Draft, hidden_size: int, hidden_ND: Tensor | None = None) -> None:
    """Project a draft on `hidden_size` dimensions of its stream; see `project_width`."""
    width, heads = int(draft.config.hidden_size), int(draft.config.num_attention_heads)
    if not 1 < hidden_size <= width:
        raise ModelError(
            f"student.hidden_size does not fit {type(draft.model).__name__}",
            got=hidden_size,
            allowed=f"numbers from 2 to {width}",
        )
    if draft.anatomy.tied_heads and hidden_size % heads:
        raise ModelError(
            "student.hidden_size is not a multiple of the number of attention heads",
            got=f"hidden_size {hidden_size}, num_attention_heads {heads}",
            fix=f"hidden_size={hidden_size // heads * heads or heads}, or another num_attention_heads",
        )
    if hidden_size < width:
        basis_Dd, kept = stream_basis(draft, hidden_size, hidden_ND)
        project(draft, basis_Dd, kept)
        draft.notes.append(
            f"hidden_size {width} became {hidden_size}: the basis keeps {kept:.1%} of the stream's variance "
            f"({'by hidden states' if hidden_ND is not None else 'by weights'}); norms are approximate"
        )
    if draft.anatomy.tied_heads:
        narrow_heads(draft, hidden_size // heads)


def stream_basis(draft: Draft, size: int, hidden_ND: Tensor | None = None) -> tuple[Tensor, float]:
    """The directions of the stream that hold the most, P [D, d], and the share of its second moment in them.

    Without hidden states the moment is the mean of those of the embeddings and of the maps that write to the
    stream, each divided by its trace so that none drowns the others.
    """
    if hidden_ND is not None:
        moments = [hidden_ND.double().mT @ hidden_ND.double()]
    else:
        writers = (draft.matrix(name).mT for name in draft.names(draft.anatomy.out, draft.anatomy.down))
        moments = [embedding_moment(draft), *(x.mT @ x for x in writers)]
    shares = [moment / moment.trace() for moment in moments if moment.trace() > 0]
    return principal(torch.stack(shares).mean(0), size, mean_off=not draft.anatomy.pre_norm)


def embedding_moment(draft: Draft) -> Tensor:
    """The second moment [D, D] of a sum of one row of each embedding table, drawn independently."""
    tables = [draft.matrix(f"{draft.body}{table}") for table in draft.anatomy.embeddings]
    mean_D = torch.stack([table.mean(0) for table in tables]).sum(0)
    return torch.outer(mean_D, mean_D) + sum(torch.cov(table.mT, correction=0) for table in tables)


def principal(moment_DD: Tensor, size: int, *, mean_off: bool) -> tuple[Tensor, float]:
    """The eigenvectors of the largest eigenvalues, as an orthonormal basis.

    Args:
        moment_DD: a second moment.
        size: dimensions of the basis, d.
        mean_off: make a basis for rows that a LayerNorm takes the mean off: the mean's own direction is one of
            the d, and a reflection puts it where the new LayerNorm takes it off, so that centring and
            projecting can be swapped. P then sends (1, .., 1) / sqrt(d) to (1, .., 1) / sqrt(D).

    Returns:
        P [D, d] in float64 and the share of the moment that it keeps, the mean's direction not counted if it
        is taken off.
    """
    width = len(moment_DD)
    if not mean_off:
        values, vectors = torch.linalg.eigh(moment_DD)
        return vectors[:, -size:].flip(1), float(values[-size:].sum() / values.sum())
    mean_D = torch.full((width,), width**-0.5, dtype=torch.float64)
    centring = torch.eye(width, dtype=torch.float64) - torch.outer(mean_D, mean_D)
    values, vectors = torch.linalg.eigh(centring @ moment_DD @ centring)
    best = values[width - size + 1 :]
    plain_Dd = torch.cat([mean_D[:, None], vectors[:, width - size + 1 :].flip(1)], dim=1)
    return plain_Dd @ _reflection(size), float(best.sum() / values.sum())


def project(draft: Draft, basis_Dd: Tensor, kept: float) -> None:
    """Express a draft's stream in another basis; `kept` is the share of its variance that the basis holds."""
    names, body = draft.anatomy, draft.body
    width, size = basis_Dd.shape
    scale = math.sqrt(kept * width / size)
    for name in (f"{body}{table}" for table in names.embeddings):
        draft.put(name, draft.matrix(name) @ basis_Dd)
    readers = draft.names(names.query, names.key, names.value, *names.up)
    if names.pre_norm:
        _fold_norms(draft, basis_Dd, scale)
    else:
        for name in [f"{body}{names.first_norm}", *draft.names(*names.norms)]:
            weight, bias = draft.weights[f"{name}.weight"].double(), draft.bias(name)
            assert bias is not None
            draft.put(name, _diagonal(basis_Dd, weight) * scale, basis_Dd.mT @ bias)
    for name in readers + _head(draft, size):
        draft.put(name, draft.matrix(name) @ basis_Dd)
    for name in draft.names(names.out, names.down):
        bias = draft.bias(name)
        draft.put(name, basis_Dd.mT @ draft.matrix(name), None if bias is None else basis_Dd.mT @ bias)
    if _tied(draft):
        draft.weights["lm_head.weight"] = draft.weights[f"{body}{names.embeddings[0]}.weight"]
    if not names.tied_heads:
        draft.config.head_dim = draft.head_dim  # some configs would derive another one from the width
    draft.config.hidden_size = size


def _reflection(size: int) -> Tensor:
    """The Householder reflection that swaps the first axis and (1, .., 1) / sqrt(size)."""
    between = torch.full((size,), -(size**-0.5), dtype=torch.float64)
    between[0] += 1
    unit = between / between.norm()
    return torch.eye(size, dtype=torch.float64) - 2 * torch.outer(unit, unit)


def _diagonal(basis_Dd: Tensor, weight_D: Tensor) -> Tensor:
    """diag(P' diag(g) P): a norm's weights in the new basis."""
    return (basis_Dd.square() * weight_D[:, None]).sum(0)


def _fold_norms(draft: Draft, basis_Dd: Tensor, scale: float) -> None:
    """Move the weights of norms into the maps behind them, and leave one number in their place."""
    names, body, size = draft.anatomy, draft.body, basis_Dd.shape[1]
    plain_d = torch.full((size,), scale, dtype=torch.float64)
    for layer in draft.layers():
        for norm, readers in names.norms.items():
            for reader in readers:
                name = f"{layer}{reader}"
                draft.put(name, draft.matrix(name) * draft.matrix(f"{layer}{norm}"))
            draft.put(f"{layer}{norm}", plain_d)
    last = f"{body}{names.last_norm}"
    weight_D = draft.matrix(last)
    if _tied(draft):
        draft.put(last, _diagonal(basis_Dd, weight_D) * scale)
        draft.notes.append("the norm before the tied head is approximate even at full width")
        return
    for name in _outer(draft):
        draft.put(name, draft.matrix(name) * weight_D)
    draft.put(last, plain_d)


def _tied(draft: Draft) -> bool:
    return bool(draft.config.tie_word_embeddings) and "lm_head.weight" in draft.weights


def _outer(draft: Draft) -> list[str]:
    """The maps outside of the body that read the stream of a decoder."""
    return [name for name in ("lm_head", "score") if f"{name}.weight" in draft.weights and not _tied(draft)]


def _head(draft: Draft, size: int) -> list[str]:
    """The maps of the head that read the stream; a hidden layer between them and the classes is made smaller."""
    if draft.anatomy.pre_norm:
        return _outer(draft)
    pairs = ((f"{draft.body}pooler.dense", "classifier"), ("classifier.dense", "classifier.out_proj"))
    found = [pair for pair in pairs if f"{pair[0]}.weight" in draft.weights]
    for dense, after in found:  # its units are no directions of the stream: the largest stay
        units = draft.matrix(dense).norm(dim=1)
        if f"{after}.weight" in draft.weights:
            units = units * draft.matrix(after).norm(dim=0)
        kept = units.topk(size).indices.sort().values
        draft.keep_outputs(dense, kept)
        if f"{after}.weight" in draft.weights:
            draft.keep_inputs(after, kept)
    if found:
        return [dense for dense, _ in found]
    return [name for name in ("classifier",) if f"{name}.weight" in draft.weights]
