"""B6: packing a million ragged lengths into rows of 4096, limbeck's packer beside TRL's, in one process.

    pip install -c constraints.txt trl==1.16.0
    python benchmarks/b06_packing.py              # a million lengths, five rounds
    python benchmarks/b06_packing.py --quick      # twenty thousand, one round; writes nothing

Lengths are drawn three ways: `log-normal` as of chats and traces (median 400), `uniform` over 1 to 2048, and `short`
(geometric, mean 120).

    limbeck              `data.packing.pack` on the lengths
    trl                  `_pack_bfd` in `trl.data_utils`, which `pack_dataset(strategy="bfd")` calls, on all texts at
                         once; the texts hold Arrow's nulls, so that no token is moved
    limbeck, laid out    the same, and rows of tokens (a byte each) laid out in Arrow
    trl, laid out        the same of TRL's
    trl, dataset         `pack_dataset(dataset, 4096, "bfd")` as its trainers call it: a thousand texts at a time

The clock is the process's own time. Fill is tokens over rows
times 4096; no packer can do better than `best`, and none cuts a text. Forms take turns, round by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import _bench

CAPACITY = 4096
DRAWS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "log-normal": lambda draw, n: draw.lognormal(6, 1, n),
    "uniform": lambda draw, n: draw.integers(1, CAPACITY // 2 + 1, n),
    "short": lambda draw, n: draw.geometric(1 / 120, n),
}


def main() -> None:
    options = arguments()
    found: dict[str, Any] = {}
    for name in options.lengths:
        lengths = np.clip(DRAWS[name](np.random.default_rng(0), options.texts), 1, CAPACITY).astype(np.int64)
        found[name] = measured(lengths, options.rounds)
    result = {
        "benchmark": "B6: packing ragged lengths into rows",
        "settings": {"texts": options.texts, "capacity": CAPACITY, "rounds": options.rounds},
        "lengths": found,
        "machine": _bench.machine("trl"),
    }
    show(result)
    if not options.quick:
        _bench.write(options.results, "b06-packing", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", nargs="+", choices=DRAWS, default=list(DRAWS))
    options = parser.parse_args()
    if options.quick:
        options.texts, options.rounds = 20_000, 1
    return options


def measured(lengths: Any, rounds: int) -> dict[str, Any]:
    """Rows, fill and speed of every form."""
    forms = forms_of(lengths)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    rows: dict[str, int] = {}
    for _ in range(rounds):
        for name, form in forms.items():
            begun = time.process_time()
            rows[name] = form()
            seconds[name].append(time.process_time() - begun)
    tokens = int(lengths.sum())
    made = {
        name: {
            "rows": rows[name],
            "fill": tokens / (rows[name] * CAPACITY),
            "seconds": statistics.median(taken),
            "spread": [min(taken), max(taken)],
            "lengths_per_second": len(lengths) / statistics.median(taken),
        }
        for name, taken in seconds.items()
    }
    return {"tokens": tokens, "best": tokens / (-(-tokens // CAPACITY) * CAPACITY), "forms": made}


def forms_of(lengths: Any) -> dict[str, Callable[[], int]]:
    """Every form as something that packs once and gives its number of rows."""
    import datasets
    import pyarrow as pa
    from trl import data_utils

    from limbeck.data.packing import pack

    datasets.disable_progress_bars()
    datasets.disable_caching()
    data_utils._pack_bfd(pa.table({"input_ids": pa.array([[1]])}), CAPACITY)  # what is loaded at the first call
    ends = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.zeros(int(ends[-1]), dtype=np.int8)
    table = pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(ends), pa.array(tokens))})
    bare = pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(ends), pa.nulls(len(tokens)))})
    dataset = datasets.Dataset(table)

    def laid_out() -> int:
        found = pack(lengths, CAPACITY)
        order = np.lexsort((found.start, found.row))
        taken = table["input_ids"].combine_chunks().take(pa.array(order))
        used = np.bincount(found.row, weights=lengths, minlength=found.rows).astype(np.int64)
        edges = pa.array(np.concatenate([[0], np.cumsum(used)]))
        return len(pa.LargeListArray.from_arrays(edges, taken.flatten()))

    return {
        "limbeck": lambda: pack(lengths, CAPACITY).rows,
        "limbeck, laid out": laid_out,
        "trl": lambda: len(data_utils._pack_bfd(bare, CAPACITY)),
        "trl, laid out": lambda: len(data_utils._pack_bfd(table, CAPACITY)),
        "trl, dataset": lambda: len(data_utils.pack_dataset(dataset, CAPACITY, "bfd")),
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    for name, told in result["lengths"].items():
        print(f"\n{name}: {told['tokens']:,} tokens; no packer can fill more than {told['best']:.4%}")
        for form, at in told["forms"].items():
            speed = at["lengths_per_second"]
            slow = told["forms"]["trl, laid out" if form.endswith("laid out") else "trl"]["lengths_per_second"]
            print(f"  {form:18} fill {at['fill']:8.4%}  {speed:12,.0f} lengths/s  {speed / slow:6.1f} x trl")


if __name__ == "__main__":
    main()
