"""B2: cross-entropy + KL from a recorded teacher's K = 64 likeliest classes and their tail, half of the rows masked.

    taskset -c 1 python benchmarks/b02_sparse_kd.py                     # about 10 minutes and 8 GiB
    python benchmarks/b02_sparse_kd.py --rows 256 --vocab-size 32768    # a quick look

N=1024, H=512, V=151,936, T=1. Time is CPU time over that of the three matrix products of the valid rows alone, taken in
the same round; memory is what a step needs over its inputs and the gradient of the head. The naive and the
checkpointed form multiply the masked rows too, as such code does.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _bench
import _kd

K = 64
ROWS = 256
"""Rows to a chunk of the checkpointed form."""


def main() -> None:
    options = _kd.arguments(__doc__)
    forms: dict[str, _kd.Form] = {
        "limbeck": limbeck,
        "limbeck, 144 MiB": partial(limbeck, chunk_bytes=144 * _bench.MIB),
        "naive": naive,
        "checkpointed": checkpointed,
    }
    title = "sparse KD: cross-entropy + KL over 64 classes and a tail, half of the rows masked"
    _kd.run("b02-sparse-kd", title, options, forms, products, sys.modules[__name__])


def made(options: argparse.Namespace, dtype: str) -> _kd.Inputs:
    """A student's hidden states and head, and what was recorded of a teacher."""
    import torch

    draw, kind = torch.Generator().manual_seed(0), getattr(torch, dtype)
    rows, width, classes = options.rows, options.hidden_size, options.vocab_size
    labels = torch.randint(0, classes, (rows,), generator=draw)
    labels[::2] = -100
    named = torch.log_softmax(torch.randn(rows, K + 1, generator=draw) * 2, -1)
    return {
        "hidden": torch.randn(rows, width, generator=draw).to(kind).requires_grad_(),
        "weight": torch.randn(classes, width, generator=draw).mul_(2 / width**0.5).to(kind).requires_grad_(),
        "ids": torch.stack([torch.randperm(classes, generator=draw)[:K] for _ in range(rows)]),
        "logprobs": named[:, :K],
        "tail": named[:, K],
        "labels": labels,
    }


def exact(given: _kd.Inputs, form: str) -> tuple[Any, Any, Any]:
    """Value and gradients in float64, a few rows at a time."""

    if (known := given.get("exact")) is not None:
        return known
    valid = (given["labels"] != -100).nonzero().flatten()
    hidden = given["hidden"].detach().double().requires_grad_()
    weight = given["weight"].detach().double().requires_grad_()
    value = 0.0
    for rows in valid.split(32):
        part = [given[k][rows].double() for k in ("logprobs", "tail")]
        loss = _rows_loss(hidden[rows] @ weight.T, given["ids"][rows], *part, given["labels"][rows]) / len(valid)
        loss.backward()
        value += float(loss.detach())
    given["exact"] = value, hidden.grad, weight.grad
    return given["exact"]


def products(given: _kd.Inputs) -> None:
    """The three matrix products of the valid rows, and nothing else."""
    hidden, weight = given["hidden"].detach()[given["labels"] != -100], given["weight"].detach()
    logits = hidden @ weight.T
    logits @ weight
    logits.T @ hidden


def limbeck(given: _kd.Inputs, **more: Any) -> Any:
    from limbeck.core.parts import build
    from limbeck.core.types import Head, TopK
    from limbeck.objectives import distribution_loss

    terms = [build("objective", "cross_entropy"), build("objective", "kl")]
    teacher = TopK(given["ids"], given["logprobs"], given["tail"])
    student = Head(given["hidden"], given["weight"])
    total, _ = distribution_loss(student, teacher, given["labels"], terms, [1.0, 1.0], **more)
    return total / (given["labels"] != -100).sum()


def _rows_loss(logits: Any, ids: Any, logprobs: Any, tail: Any, labels: Any) -> Any:
    """Sum over rows; the rest of the student's mass is summed apart from the named classes."""
    import torch
    from torch.nn import functional as F

    log_probs = F.log_softmax(logits, -1)
    named = log_probs.gather(1, ids)
    rest = log_probs.scatter(1, ids, -torch.inf).logsumexp(1)
    soft = (logprobs.exp() * (logprobs - named)).sum(1) + tail.exp() * (tail - rest)
    hard = F.nll_loss(log_probs, labels, ignore_index=-100, reduction="sum")
    return hard + soft[labels != -100].sum()


def naive(given: _kd.Inputs) -> Any:
    """As it is usually written: all logits, then PyTorch's losses."""
    logits = (given["hidden"] @ given["weight"].T).float()
    parts = (given[k] for k in ("ids", "logprobs", "tail", "labels"))
    return _rows_loss(logits, *parts) / (given["labels"] != -100).sum()


def checkpointed(given: _kd.Inputs) -> Any:
    """A chunk of rows at a time, its logits made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def chunk(hidden: Any, weight: Any, *parts: Any) -> Any:
        return _rows_loss((hidden @ weight.T).float(), *parts)

    total = 0.0
    for start in range(0, len(given["labels"]), ROWS):
        rows = slice(start, start + ROWS)
        parts = [given[k][rows] for k in ("ids", "logprobs", "tail", "labels")]
        total = total + checkpoint(chunk, given["hidden"][rows], given["weight"], *parts, use_reentrant=False)
    return total / (given["labels"] != -100).sum()


if __name__ == "__main__":
    main()
