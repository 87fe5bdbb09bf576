"""The hand-written kernel against the pass in PyTorch: its numbers in triton's interpreter, and the whole on a GPU.

Shapes: N rows, D hidden width, V classes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import product

import pytest
import torch

from limbeck.core.parts import build
from limbeck.core.types import Head
from limbeck.objectives import distribution_loss

TRITON = importlib.util.find_spec("triton") is not None
SPECS = [["cross_entropy", {"type": "kl", "temperature": 2}], [{"type": "kl", "temperature": 1.5}]]


def check(device: str) -> None:
    """Values and gradients against float64, which the kernel never sees."""
    draw = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=draw).to(device) for shape in ((7, 5), (5000, 5), (7, 4), (5000, 4))]
    labels = torch.tensor([3, -100, 4999, 0, 4096, 17, 4095], device=device)
    say = torch.tensor([1.0, 1.0, 0.3, 2.0, 0.5, 1.0, 1.0], device=device)
    for spec, common in product(SPECS, (None, 4990, 4000)):
        terms = [build("objective", each) for each in spec]
        found = []
        for dtype in (torch.float32, torch.float64):
            hidden, weight = (p.to(dtype).requires_grad_() for p in parts[:2])
            teacher = Head(parts[2].to(dtype), parts[3].to(dtype))
            total, sums = distribution_loss(
                Head(hidden, weight),
                teacher,
                labels,
                terms,
                [0.7, 1.3][: len(terms)],
                row_weights=say,
                shared=None if common is None else torch.arange(common, device=device),
                chunk_bytes=10**5,
            )
            found.append([total, *sums.values(), *torch.autograd.grad(total, [hidden, weight])])
        for ours, exact in zip(*found, strict=True):
            torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)
    _check_half(device, parts, labels)


def _check_half(device: str, parts: list[torch.Tensor], labels: torch.Tensor) -> None:
    """In bfloat16 a term's weight keeps its digits, rows weighed or not; a class masked out in the teacher is none."""
    kl, found = build("objective", "kl"), []
    for say in (None, torch.ones(7, device=device)):
        hidden, weight = (p.bfloat16().requires_grad_() for p in parts[:2])
        bias = torch.zeros(5000, device=device, dtype=torch.bfloat16)
        bias[1] = -torch.inf
        teacher = Head(parts[2].bfloat16(), parts[3].bfloat16(), bias)
        total, sums = distribution_loss(Head(hidden, weight), teacher, labels, [kl], [0.3], row_weights=say)
        torch.testing.assert_close(total, 0.3 * sums["kl"])
        found.append([total, *torch.autograd.grad(total, [hidden, weight])])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert all(torch.isfinite(each).all() for each in found[0])
    mine, told = (parts[i].bfloat16() @ parts[i + 1].bfloat16().T for i in (0, 2))
    told[:, 1] = -1e5
    leaf = mine.double().requires_grad_()
    logs = [z.double().log_softmax(1)[labels != -100] for z in (told, leaf)]
    exact = 0.3 * (logs[0].exp() * (logs[0] - logs[1])).sum()
    torch.testing.assert_close(found[0][0].double(), exact, rtol=1e-3, atol=0)


@pytest.mark.skipif(not TRITON, reason="triton is not installed")
def test_in_the_interpreter() -> None:
    """In a process of its own, since triton reads its switch when it is imported."""
    code = (
        "from limbeck.objectives.kernels import dense_kd\n"
        "calls, evaluate = [], dense_kd.evaluate\n"
        "dense_kd.evaluate = lambda *a, **k: (calls.append(1), evaluate(*a, **k))[1]\n"
        "from tests.objectives.test_kernels import check\n"
        "check('cpu')\n"
        "assert len(calls) > 18, 'the kernel was not taken'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (TRITON and torch.cuda.is_available()), reason="needs a CUDA device and triton")
def test_on_a_gpu() -> None:
    check("cuda")
