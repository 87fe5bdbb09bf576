"""The hand-written kernel against the pass in PyTorch: its numbers in triton's interpreter, and the whole on a GPU.

Shapes: N rows, D hidden width, V classes.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

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
    for spec in SPECS:
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
                chunk_bytes=10**5,
            )
            found.append([total, *sums.values(), *torch.autograd.grad(total, [hidden, weight])])
        for ours, exact in zip(*found, strict=True):
            torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not TRITON, reason="triton is not installed")
def test_in_the_interpreter() -> None:
    """In a process of its own, since triton reads its switch when it is imported."""
    code = (
        "from limbeck.objectives.kernels import dense_kd\n"
        "calls, evaluate = [], dense_kd.evaluate\n"
        "dense_kd.evaluate = lambda *a, **k: (calls.append(1), evaluate(*a, **k))[1]\n"
        "from tests.objectives.test_kernels import check\n"
        "check('cpu')\n"
        "assert len(calls) > 4, 'the kernel was not taken'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not (TRITON and torch.cuda.is_available()), reason="needs a CUDA device and triton")
def test_on_a_gpu() -> None:
    check("cuda")
