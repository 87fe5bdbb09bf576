"""B11: cross-entropy + T^2 KL on one GPU, N=8192, H=4096, V=151,936, bfloat16, T=2: milliseconds and memory.

    python benchmarks/b11_gpu_kd.py

Each form runs alone on the device, warmed up, in interleaved rounds; time is between CUDA events, memory is the
allocator's peak over inputs and the gradient of the head. Without a CUDA device it says so and measures nothing.
The forms and inputs are those of `b01_dense_kd.py`.
"""

from __future__ import annotations

import os
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import _bench
import _kd
import b01_dense_kd as dense


def main() -> None:
    import torch

    parser = _bench.parser(__doc__)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunk-mib", type=int, nargs="+", default=[84, 168, 336, 672], help="limbeck's, each a form")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("B11 needs a CUDA device and there is none: nothing was measured")
        return
    made = {k: v.detach().cuda() for k, v in dense.made(options, "bfloat16").items()}
    for name in ("hidden", "weight"):
        made[name].requires_grad_()
    forms: dict[str, _kd.Form] = {"products": dense.products}
    forms |= {f"limbeck, {m} MiB": partial(dense.limbeck, chunk_bytes=m * _bench.MIB) for m in options.chunk_mib}
    forms |= {"checkpointed": dense.checkpointed, "naive": dense.naive}
    forms |= {"liger": dense.liger} if dense.installed("liger") else {}
    told = measure(forms, made, options.rounds)
    for form, each in told.items():
        print(f"{form:<20}{each.get('milliseconds', float('nan')):>10.1f} ms{each.get('transient_gib', 0):>8.2f} GiB")
    machine = {**_bench.machine(), "load_at_the_start": os.getloadavg(), "device": torch.cuda.get_device_name()}
    sizes = {k: v for k, v in vars(options).items() if k != "results"}
    result = {"benchmark": "dense KD on a GPU", "settings": sizes, "machine": machine, "forms": told}
    _bench.write(options.results, "b11-gpu-kd", result)


def measure(forms: dict[str, _kd.Form], made: _kd.Inputs, rounds: int) -> dict[str, dict[str, Any]]:
    """Median milliseconds and the allocator's peak; a form that does not fit says so and is left out."""
    import torch

    told: dict[str, dict[str, Any]] = {form: {"all_milliseconds": []} for form in forms}
    for turn in range(rounds + 1):  # the first one warms up
        for form, function in forms.items():
            if "error" in told[form]:
                continue
            made["hidden"].grad = made["weight"].grad = None
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            try:
                begun.record()
                loss = function(made)
                if loss is not None:
                    loss.backward()
                ended.record()
                torch.cuda.synchronize()
            except torch.cuda.OutOfMemoryError:
                told[form]["error"] = "out of memory"
                continue
            if turn:
                told[form]["all_milliseconds"].append(begun.elapsed_time(ended))
            gradient = 0 if made["weight"].grad is None else made["weight"].grad.nbytes
            told[form]["transient_gib"] = (torch.cuda.max_memory_allocated() - before - gradient) / 2**30
    for each in told.values():
        if each["all_milliseconds"]:
            each["milliseconds"] = statistics.median(each["all_milliseconds"])
    return told


if __name__ == "__main__":
    main()
