"""Tokens x vocabulary are never held: by the size of every tensor that is made, and by the process's peak.

Shapes: N rows, D hidden width, V classes.
"""

from __future__ import annotations

import importlib.util
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limbeck.core.types import Head
from limbeck.objectives import distribution_loss, sweep
from tests.contracts.cases import TERMS
from tests.processes import FORKS

N, D, V, ROWS = 128, 4, 250, 4
CHUNK = 4 * V * ROWS
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "b00_step_memory.py"


class Made(TorchDispatchMode):
    """Notes the shape of every tensor that an operation makes; views of what it was given are not made."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()
        self.bytes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.shapes.add(tuple(tensor.shape))
                self.bytes.append(tensor.nbytes)
        return result

    def largest(self) -> int:
        return max(self.bytes)


def step(terms: list[Any], *, frozen: bool = False, dtype: torch.dtype = torch.float32, **more: Any) -> Made:
    hidden = torch.randn(4, N // 4, D).to(dtype).requires_grad_()
    weight = torch.randn(V, D).to(dtype).requires_grad_(not frozen)
    teacher = Head(torch.randn(4, N // 4, D), torch.randn(V, D))
    labels = (2 * torch.arange(N)).reshape(4, -1) % (V - 10)  # among the shared classes, whichever these are
    with Made() as made:
        distribution_loss(Head(hidden, weight), teacher, labels, terms, [1.0] * len(terms), chunk_bytes=CHUNK, **more)[
            0
        ].backward()
    return made


CASES = [pytest.param([t], None, id=t.type()) for t in TERMS] + [
    pytest.param(TERMS, shared, id=f"all-{name}")
    for name, shared in (("same", None), ("prefix", torch.arange(V - 7)), ("half", torch.arange(0, V, 2)))
]


@pytest.mark.parametrize(("terms", "shared"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_chunk(
    terms: list[Any], shared: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BLOCK", 4 * V)  # as at a real vocabulary, where a block is less than a chunk
    largest = step(terms, shared=shared, dtype=dtype).largest()
    both = CHUNK if any(term.asks_teacher for term in terms) else 2 * CHUNK
    assert both / 4 < largest <= max(CHUNK, 4 * V * D, 4 * N * D)
    assert largest < 4 * N * V / 20


def test_a_frozen_head_costs_no_gradient() -> None:
    assert (V, D) in step(TERMS).shapes
    assert (V, D) not in step(TERMS, frozen=True).shapes


def benchmark() -> Any:
    """The benchmark, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("b00_step_memory", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(form: str, folder: Path) -> None:
    """What one form takes, in a process of its own."""
    sizes = ["--rows", "2048", "--hidden-size", "128", "--vocab-size", "8192", "--chunk-mib", "2"]
    outcome = ["--form", form, "--outcome", str(folder / f"{form}.safetensors")]
    with (folder / f"{form}.json").open("w") as told, redirect_stdout(told):
        benchmark().measure(benchmark().arguments([*sizes, *outcome]))


def test_peak_is_a_fraction_of_the_naive_form(tmp_path: Path) -> None:
    """As many rows to a chunk as at the full vocabulary of 151,936, where the benchmark is run by hand."""
    for form in benchmark().FORMS:
        process = FORKS.Process(target=measure, args=(form, tmp_path))
        process.start()
        process.join(120)
        assert process.exitcode == 0
    naive, ours = (json.loads((tmp_path / f"{form}.json").read_text()) for form in ("naive", "limbeck"))
    assert naive["peak_mib"] > 128  # student's and teacher's logits
    assert ours["peak_mib"] < 0.25 * naive["peak_mib"]
    differences = benchmark().compare(tmp_path / "naive.safetensors", tmp_path / "limbeck.safetensors")
    assert max(differences.values()) < 1e-5
