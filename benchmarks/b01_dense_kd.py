"""B1: cross-entropy + T^2 KL from a teacher's hidden states, N=1024, H=512, V=151,936, T=2: time and memory.

    taskset -c 1 python benchmarks/b01_dense_kd.py                     # about 20 minutes and 10 GiB
    python benchmarks/b01_dense_kd.py --rows 256 --vocab-size 32768    # a quick look

Time is CPU time over that of the four matrix products alone, taken in the same round; memory is what a step needs over
its inputs and the gradient of the head. Peers that are not installed are left out:
`pip install --no-deps liger-kernel trl torchtune`. Liger has no T^2 (its weight is set to 4 here), TRL has no
cross-entropy (it does the KL alone), torchtune takes all logits.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _bench
import _kd

T = 2.0
ROWS = 256
"""Rows to a chunk of the peers that have them; twice as many for Liger."""


def main() -> None:
    options = _kd.arguments(__doc__)
    forms: dict[str, _kd.Form] = {
        "limbeck": limbeck,
        "limbeck, 144 MiB": partial(limbeck, chunk_bytes=144 * _bench.MIB),
        "naive": naive,
        "checkpointed": checkpointed,
    }
    peers: dict[str, _kd.Form] = {"liger": liger, "trl": trl, "torchtune": torchtune}
    # The nearest peer with smaller and larger chunks, so that its place does not hang on our choice of them.
    peers |= {f"liger, {rows} rows": partial(liger, rows=rows) for rows in (128, 1024)}
    forms |= {k: f for k, f in peers.items() if installed(k.split(",")[0])}
    _kd.run("b01-dense-kd", "dense KD: cross-entropy + T^2 KL, T=2", options, forms, products, sys.modules[__name__])


def installed(peer: str) -> bool:
    return importlib.util.find_spec({"liger": "liger_kernel"}.get(peer, peer)) is not None


def made(options: argparse.Namespace, dtype: str) -> _kd.Inputs:
    """Hidden states and heads that give logits of the size of a trained model's."""
    import torch

    draw, kind = torch.Generator().manual_seed(0), getattr(torch, dtype)
    rows, width, classes = options.rows, options.hidden_size, options.vocab_size

    def normal(*shape: int, scale: float = 1.0) -> Any:
        return torch.randn(shape, generator=draw).mul_(scale).to(kind)

    return {
        "hidden": normal(rows, width).requires_grad_(),
        "weight": normal(classes, width, scale=2 / width**0.5).requires_grad_(),
        "teacher_hidden": normal(rows, width),
        "teacher_weight": normal(classes, width, scale=2 / width**0.5),
        "labels": torch.randint(0, classes, (rows,), generator=draw),
    }


def exact(given: _kd.Inputs, form: str) -> tuple[Any, Any, Any]:
    """Value and gradients in float64, by hand, a few rows at a time."""
    import torch

    hard = 0.0 if form == "trl" else 1.0
    if (known := given.get(f"exact {hard}")) is not None:
        return known
    hidden, weight = given["hidden"].detach().double(), given["weight"].detach().double()
    teacher_hidden, teacher_weight = given["teacher_hidden"].double(), given["teacher_weight"].double()
    value, dh, dw, count = 0.0, torch.empty_like(hidden), torch.zeros_like(weight), len(hidden)
    for start in range(0, count, 64):
        rows = slice(start, start + 64)
        logits, told = hidden[rows] @ weight.T, teacher_hidden[rows] @ teacher_weight.T
        p, q = torch.log_softmax(told / T, 1), torch.log_softmax(logits / T, 1)
        value += float(T**2 * (p.exp() * (p - q)).sum())
        slope = T * (q.exp() - p.exp())
        log_probs, labels = torch.log_softmax(logits, 1), given["labels"][rows, None]
        value -= hard * float(log_probs.gather(1, labels).sum())
        slope += hard * log_probs.exp()
        slope.scatter_add_(1, labels, torch.full_like(labels, -hard, dtype=slope.dtype))
        dh[rows] = slope @ weight / count
        dw.addmm_(slope.T, hidden[rows], alpha=1 / count)
    given[f"exact {hard}"] = value / count, dh, dw
    return given[f"exact {hard}"]


def products(given: _kd.Inputs) -> None:
    """The four matrix products, and nothing else."""
    hidden, weight = given["hidden"].detach(), given["weight"].detach()
    logits = hidden @ weight.T
    given["teacher_hidden"] @ given["teacher_weight"].T
    logits @ weight
    logits.T @ hidden


def limbeck(given: _kd.Inputs, **more: Any) -> Any:
    from limbeck.core.parts import build
    from limbeck.core.types import Head
    from limbeck.objectives import distribution_loss

    terms = [build("objective", "cross_entropy"), build("objective", {"type": "kl", "temperature": T})]
    student, teacher = Head(given["hidden"], given["weight"]), Head(given["teacher_hidden"], given["teacher_weight"])
    return distribution_loss(student, teacher, given["labels"], terms, [1.0, 1.0], **more)[0] / len(given["labels"])


def _rows_loss(hidden: Any, weight: Any, told: Any, teacher_weight: Any, labels: Any) -> Any:
    import torch
    from torch.nn import functional as F

    logits = (hidden @ weight.T).float()
    with torch.no_grad():
        theirs = (told @ teacher_weight.T).float()
    hard = F.cross_entropy(logits, labels, reduction="sum")
    mine, wanted = F.log_softmax(logits / T, -1), F.log_softmax(theirs / T, -1)
    return hard + T**2 * F.kl_div(mine, wanted, log_target=True, reduction="sum")


def naive(given: _kd.Inputs) -> Any:
    """As it is usually written: all logits, then PyTorch's losses."""
    keys = ("hidden", "weight", "teacher_hidden", "teacher_weight", "labels")
    return _rows_loss(*(given[k] for k in keys)) / len(given["labels"])


def checkpointed(given: _kd.Inputs) -> Any:
    """A chunk of rows at a time, its logits made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    total, count = 0.0, len(given["labels"])
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        parts = given["hidden"][rows], given["weight"], given["teacher_hidden"][rows], given["teacher_weight"]
        total = total + checkpoint(_rows_loss, *parts, given["labels"][rows], use_reentrant=False)
    return total / count


def liger(given: _kd.Inputs, rows: int = 2 * ROWS) -> Any:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(1.0, T**2, beta=0.0, temperature=T, compiled=False, chunk_size=rows)
    parts = (given[k] for k in ("hidden", "weight", "teacher_hidden", "teacher_weight", "labels"))
    return loss(*parts)


def trl(given: _kd.Inputs) -> Any:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    parts = given["hidden"][None], given["teacher_hidden"][None], given["weight"], given["teacher_weight"]
    mask = torch.ones(1, len(given["labels"]), dtype=torch.long)
    return T**2 * _chunked_divergence_loss(*parts, mask, 0.0, temperature=T)[0]


def torchtune(given: _kd.Inputs) -> Any:
    """Its KL leaves out the teacher's entropy, which is added for the gate; gradients do not see it."""
    import torch
    from torch.nn import functional as F

    loss = _torchtune_losses().ForwardKLWithChunkedOutputLoss
    chunks = max(1, len(given["labels"]) // ROWS)
    logits = (given["hidden"] @ given["weight"].T)[None].chunk(chunks, 1)
    told = (given["teacher_hidden"] @ given["teacher_weight"].T)[None].chunk(chunks, 1)
    labels = given["labels"].chunk(chunks)
    softened = [z / T for z in logits], [z / T for z in told]
    soft = loss(chunks)(*softened, given["labels"][None])
    entropy = sum(float(torch.distributions.Categorical(logits=z.float()).entropy().sum()) for z in softened[1])
    hard = sum(F.cross_entropy(z[0].float(), y, reduction="sum") for z, y in zip(logits, labels, strict=True))
    return hard / len(given["labels"]) + T**2 * (soft - entropy / len(given["labels"]))


def _torchtune_losses() -> Any:
    """Its file of losses alone: the package does not load without torchao."""
    package = importlib.util.find_spec("torchtune")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "modules" / "loss" / "kd_losses.py"
    spec = importlib.util.spec_from_file_location("torchtune_kd_losses", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
