"""How far a student is from its teacher at each token of an answer.

Shapes: N answer tokens, V vocabulary of the student, U of the teacher, S what they share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from limbeck.core.types import IGNORE, Head, Needs
from limbeck.evaluation.interpretability.view import View
from limbeck.models.heads import signal
from limbeck.objectives.chunk import Chunk, floored
from limbeck.objectives.chunked import CHUNK_BYTES
from limbeck.objectives.distribution.kl import KL


@torch.no_grad()
def at_tokens(
    student: View, teacher: View, sample: str, shared: Tensor | None, chunk_bytes: int = CHUNK_BYTES
) -> dict[str, Any]:
    """KL(teacher || student) and the teacher's entropy at each token of a row's answer, both in nats.

    A large KL where the teacher's entropy is small is a place where the teacher is sure and the student thinks
    otherwise. Tokens x vocabulary is held for a chunk of tokens at a time.

    Args:
        student: a language model.
        teacher: another one that reads the row as the same tokens.
        sample: the row's id.
        shared: sorted ids that mean the same to both [S]; None where the vocabularies are equal.
        chunk_bytes: bound on one chunk's logits.

    Returns:
        id, tokens, kl and entropy, one of each for every answer token.
    """
    batch = student.batch([sample])
    answer = batch.labels[0] != IGNORE
    labels_N = batch.labels[0][answer]
    heads = [signal(view.model, view.batch([sample]), Needs(dist=True)).dist for view in (student, teacher)]
    mine, theirs = (Head(head.hidden[0][answer], head.weight, head.bias) for head in heads if isinstance(head, Head))
    size = max(1, chunk_bytes // (8 * (len(mine.weight) + len(theirs.weight))))
    shared = None if shared is None else shared.to(labels_N.device)
    kl: list[float] = []
    entropy: list[float] = []
    for at in torch.arange(len(labels_N), device=labels_N.device).split(size):
        chunk = Chunk(_logits(mine, at), labels_N[at], _logits(theirs, at), shared)
        kl += KL().rows(chunk).clamp(min=0).tolist()
        teacher_NS = chunk.teacher(1.0)
        entropy += (-(teacher_NS.exp() * teacher_NS).sum(1)).tolist()
    tokens = [student.codec.processor.decode([token]) for token in labels_N.tolist()]
    return {"id": sample, "tokens": tokens, "kl": kl, "entropy": entropy}


def _logits(head: Head, at: Tensor) -> Tensor:
    logits_NV = linear(head.hidden[at].to(head.weight.dtype), head.weight, head.bias)
    return floored(logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float())
