"""Peak memory and time of one loss step, CE + T^2 KL with T = 2: limbeck's pass against the naive form.

    python benchmarks/b00_step_memory.py                        # N=2048, H=512, V=151,936: the naive form needs ~12 GiB
    python benchmarks/b00_step_memory.py --vocab-size 16384     # a quick look

Each form runs in a process of its own, on the same inputs: hidden states and output matrices of a student and a
teacher. The peak is the process's highest resident size less its size just before the step, so the inputs are
not in it, and gradients are. Differences are the largest absolute one over the largest absolute value of the
naive form's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _bench

FORMS = ("naive", "limbeck")


def main() -> None:
    options = arguments()
    if options.form is not None:
        measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        told = [spawn(form, options, Path(folder)) for form in FORMS]
        differences = compare(*(Path(folder) / f"{form}.safetensors" for form in FORMS))
    naive, ours = told
    result = {
        "benchmark": "one step of CE + T^2 KL (T=2) over a vocabulary, value and gradients",
        "settings": {k: v for k, v in vars(options).items() if k not in ("form", "results", "outcome")},
        "forms": told,
        "share_of_naive_peak": round(ours["peak_mib"] / naive["peak_mib"], 4),
        "largest_relative_difference": differences,
        "machine": _bench.machine(),
    }
    show(result)
    if options.results is not None:
        _bench.write(options.results, "step-memory", result)


def arguments(command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--rows", type=int, default=2048, help="valid positions")
    parser.add_argument("--hidden-size", type=int, default=512, help="width of student and teacher")
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunk-mib", type=float, help="limbeck's bound on a chunk of logits; left out: its default")
    parser.add_argument("--form", choices=FORMS, help="measure one form in this process (used by the script itself)")
    parser.add_argument("--outcome", type=Path, help="where that process puts value and gradients")
    return parser.parse_args(command)


def spawn(form: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure a form in a process of its own."""
    flags = {**vars(options), "form": form, "outcome": folder / f"{form}.safetensors"}
    given = (str(part) for k, v in flags.items() if v is not None for part in (f"--{k.replace('_', '-')}", v))
    command = [sys.executable, __file__, *given]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> None:
    """One step in this process; prints what it took."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(options.threads)
    inputs = made(options.rows, options.hidden_size, options.vocab_size)
    bound = {} if options.chunk_mib is None else {"chunk_bytes": int(options.chunk_mib * _bench.MIB)}
    step = {"naive": naive_step, "limbeck": partial(limbeck_step, **bound)}[options.form]
    step(made(8, 4, 16)).backward()  # what is loaded on first use is not the step's
    before, began = _bench.resident(), time.perf_counter()
    loss = step(inputs)
    loss.backward()
    seconds, peak = time.perf_counter() - began, _bench.highest()
    outcome = {"value": loss.detach(), "hidden": inputs["hidden"].grad, "weight": inputs["weight"].grad}
    save_file(outcome, options.outcome)
    taken = {"peak_mib": round((peak - before) / _bench.MIB, 1), "seconds": round(seconds, 2)}
    print(json.dumps({"form": options.form, **taken}))


def made(rows: int, width: int, vocabulary: int) -> dict[str, Any]:
    """Inputs of a step: heads that give logits of the size of a trained model's, and labels, some of them masked."""
    import torch

    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, width, generator=draw).mul_(2 / width**0.5)
    labels = torch.randint(0, vocabulary, (rows,), generator=draw)
    labels[:: max(rows // 8, 2)] = -100
    return {
        "hidden": torch.randn(rows, width, generator=draw).requires_grad_(),
        "weight": weight.requires_grad_(),
        "teacher_hidden": torch.randn(rows, width, generator=draw),
        "teacher_weight": torch.randn(vocabulary, width, generator=draw).mul_(2 / width**0.5),
        "labels": labels,
    }


def naive_step(given: dict[str, Any]) -> Any:
    """As it is usually written: all logits, then PyTorch's losses."""
    import torch
    from torch.nn import functional as F

    student = given["hidden"] @ given["weight"].T
    with torch.no_grad():
        teacher = given["teacher_hidden"] @ given["teacher_weight"].T
    hard = F.cross_entropy(student, given["labels"], ignore_index=-100, reduction="sum")
    valid = given["labels"] != -100
    rows = F.kl_div(F.log_softmax(student / 2, -1), F.log_softmax(teacher / 2, -1), log_target=True, reduction="none")
    return (hard + 4 * rows.sum(1)[valid].sum()) / valid.sum()


def limbeck_step(given: dict[str, Any], **bound: int) -> Any:
    """limbeck's pass over the same."""
    from limbeck.core.parts import build
    from limbeck.core.types import Head
    from limbeck.objectives import distribution_loss

    terms = [build("objective", "cross_entropy"), build("objective", {"type": "kl", "temperature": 2})]
    student, teacher = Head(given["hidden"], given["weight"]), Head(given["teacher_hidden"], given["teacher_weight"])
    total, _ = distribution_loss(student, teacher, given["labels"], terms, [1.0, 1.0], **bound)
    return total / (given["labels"] != -100).sum()


def compare(one: Path, other: Path) -> dict[str, float]:
    """Largest differences of value and gradients, relative to the largest value."""
    from safetensors.torch import load_file

    naive, ours = load_file(one), load_file(other)
    return {key: float((ours[key] - naive[key]).abs().max() / naive[key].abs().max()) for key in naive}


def show(result: dict[str, Any]) -> None:
    sizes = result["settings"]
    print(f"N={sizes['rows']:,} H={sizes['hidden_size']:,} V={sizes['vocab_size']:,}, {sizes['threads']} thread(s)")
    print(f"{'form':<10}{'peak MiB over inputs':>22}{'seconds':>10}")
    for form in result["forms"]:
        print(f"{form['form']:<10}{form['peak_mib']:>22,.1f}{form['seconds']:>10.2f}")
    print(f"limbeck needs {result['share_of_naive_peak']:.1%} of the naive form's peak")
    print(
        "largest relative difference: "
        + ", ".join(f"{k} {v:.1e}" for k, v in result["largest_relative_difference"].items())
    )


if __name__ == "__main__":
    main()
