"""What the benchmarks of distillation losses share: inputs, a gate, interleaved rounds, peaks of memory.

A form is a function from inputs to a loss whose `backward()` fills the gradients of `hidden` and `weight`.

Shapes: N rows, H width, V vocabulary, K classes that a sparse teacher names.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _bench

Inputs = dict[str, Any]
Form = Callable[[Inputs], Any]


def arguments(document: str, command: Sequence[str] | None = None) -> argparse.Namespace:
    parser = _bench.parser(document)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--hidden-size", type=int, default=512, help="width of student and teacher")
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="at most")
    parser.add_argument("--minutes", type=float, default=5.0, help="bound on the rounds of one type")
    parser.add_argument("--forms", nargs="+", help="only these")
    parser.add_argument("--measure-peak", nargs=2, metavar=("FORM", "DTYPE"), help="used by the script itself")
    return parser.parse_args(command)


def run(name: str, title: str, options: argparse.Namespace, forms: dict[str, Form], floor: Form, bench: Any) -> None:
    """Gate, rounds and peaks of all forms; prints a table and writes JSON.

    Args:
        name: of the results' file.
        title: what is measured.
        options: the command line.
        forms: by name, what is compared.
        floor: the matrix products alone, on the same inputs.
        bench: the script's module: `made(options, dtype)` gives inputs, `exact(inputs, form)` value and gradients in
            float64.
    """
    import torch

    torch.set_num_threads(options.threads)
    forms = {k: f for k, f in forms.items() if options.forms is None or k in options.forms}
    if options.measure_peak:
        form, dtype = options.measure_peak
        print(json.dumps(_peak(forms[form], bench, options, dtype)))
        return
    result: dict[str, Any] = {
        "benchmark": title,
        "settings": {k: v for k, v in vars(options).items() if k not in ("results", "measure_peak", "forms")},
        "machine": {**_bench.machine(), "load_at_the_start": os.getloadavg()},
        "types": {},
    }
    for dtype in options.dtypes:
        made = bench.made(options, dtype)
        told = {form: {**_gate(form, f, made, bench)} for form, f in forms.items()}
        timed = _rounds({"floor": floor, **forms}, made, options)
        del made
        gc.collect()
        for form in forms:
            told[form] |= timed[form] | _spawn_peak(form, dtype, options)
        result["types"][dtype] = {"floor_seconds": timed["floor"]["seconds"], "forms": told}
        _show(dtype, result["types"][dtype])
    result["machine"]["load_at_the_end"] = os.getloadavg()
    _bench.write(options.results, name, result)


def _gate(form: str, function: Form, made: Inputs, bench: Any) -> dict[str, float]:
    """Relative errors of value and gradients against float64; a form that computes something else is refused."""
    value, hidden, weight = bench.exact(made, form)
    loss = _step(function, made)
    errors = {
        "value_error": abs(float(loss) - float(value)) / abs(float(value)),
        "hidden_gradient_error": float((made["hidden"].grad.double() - hidden).norm() / hidden.norm()),
        "weight_gradient_error": float((made["weight"].grad.double() - weight).norm() / weight.norm()),
    }
    bound = 1e-4 if made["hidden"].dtype.itemsize >= 4 else 0.1
    if max(errors.values()) > bound:
        raise SystemExit(f"{form} computes something else: {errors}")
    return errors


def _step(function: Form, made: Inputs) -> Any:
    made["hidden"].grad = made["weight"].grad = None
    loss = function(made)
    if loss is not None:
        loss.backward()
        return loss.detach()
    return None


def _rounds(forms: dict[str, Form], made: Inputs, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """CPU seconds of each form in interleaved rounds, and their ratios to the floor of the same round."""
    spent: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    began = time.perf_counter()
    for _ in range(options.rounds):
        for form, function in forms.items():
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            _step(function, made)
            spent[form].append((time.process_time() - cpu, time.perf_counter() - wall))
        if (time.perf_counter() - began) * (1 + 1 / len(spent["floor"])) > 60 * options.minutes:
            break
    told = {}
    for form, times in spent.items():
        ratios = [mine[0] / floor[0] for mine, floor in zip(times, spent["floor"], strict=True)]
        told[form] = {
            "over_products": statistics.median(ratios),
            "spread": [min(ratios), max(ratios)],
            "rounds": len(times),
            "seconds": statistics.median(t[0] for t in times),
            "wall_seconds": statistics.median(t[1] for t in times),
        }
    return told


def _spawn_peak(form: str, dtype: str, options: argparse.Namespace) -> dict[str, float]:
    names = ("rows", "hidden_size", "vocab_size", "threads")
    flags = [part for n in names for part in (f"--{n.replace('_', '-')}", str(getattr(options, n)))]
    command = [sys.executable, sys.argv[0], *flags, "--measure-peak", form, dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak(function: Form, bench: Any, options: argparse.Namespace, dtype: str) -> dict[str, float]:
    """How far a step raises this process's resident memory above inputs and the gradient of the head."""
    small = argparse.Namespace(**{**vars(options), "rows": 64, "hidden_size": 16, "vocab_size": 512})
    _step(function, bench.made(small, dtype))  # what is loaded on first use is not the step's
    made = bench.made(options, dtype)
    gc.collect()
    before = _bench.resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    _step(function, made)
    return {"transient_mib": (_bench.highest() - before - made["weight"].grad.nbytes) / _bench.MIB}


def _show(dtype: str, told: dict[str, Any]) -> None:
    print(f"{dtype}: matrix products alone {told['floor_seconds']:.2f} s of CPU")
    print(f"{'form':<22}{'/ products':>11}{'spread':>14}{'transient MiB':>15}{'dW error':>10}")
    for form, each in told["forms"].items():
        low, high = each["spread"]
        print(
            f"{form:<22}{each['over_products']:>11.2f}{f'{low:.2f}-{high:.2f}':>14}"
            f"{each['transient_mib']:>15.0f}{each['weight_gradient_error']:>10.1e}"
        )
