"""Memory of reading many rows: JSON lines, CSV and Parquet of word problems, each read in a process of its own.

    python benchmarks/b22_stream.py                      # 2,000,000 rows
    python benchmarks/b22_stream.py --rows 200000        # a quick look

Every process reads the file into splits, goes through 1,000 steps of a mixture under a curriculum, and makes the
samples of these steps. What is told is private memory (RssAnon) beyond that of the imports: pages of a mapped file
do not count, the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("jsonl", "csv", "parquet")
MIB = 2**20


def main() -> None:
    options = arguments()
    if options.read is not None:
        print(json.dumps(measure(options.read)))
        return
    print(f"{options.rows:,} rows")
    print("| file | MiB | seconds | peak MiB of private memory | MiB after reading | bytes a row after reading |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"rows.{kind}"
            write(path, options.rows)
            command = [sys.executable, __file__, "--read", str(path)]
            told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = path.stat().st_size / MIB
            each = told["held"] * MIB / options.rows
            seconds, peak, held = told["seconds"], told["peak"], told["held"]
            print(f"| {kind} | {size:,.0f} | {seconds:,.0f} | {peak:,.0f} | {held:,.0f} | {each:,.0f} |")
            path.unlink()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--read", type=Path, help="measure the reading of one file, in this process")
    return parser.parse_args()


def write(path: Path, rows: int) -> None:
    """Word problems with worked answers, in three stages, written a piece at a time."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    draws, step, writer = np.random.default_rng(0), 50_000, None
    with path.open("wb") as stream:
        for first in range(0, rows, step):
            a, b = draws.integers(10, 99, size=(2, min(step, rows - first)))
            problems = [
                {
                    "prompt": f"A museum has {x} films. It buys {y} more and shows each {y} times. How many shows?",
                    "answer": f"{x}+{y}={x + y}. {x + y}*{y}={(x + y) * y}. #### {(x + y) * y}",
                    "stage": ("basic", "specialised", "adversarial")[0 if i % 26 < 20 else 1 if i % 26 < 25 else 2],
                    "hard": int((x + y) * y),
                }
                for i, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True))
            ]
            table = pa.Table.from_pylist(problems)
            if path.suffix == ".jsonl":
                stream.writelines(json.dumps(problem).encode() + b"\n" for problem in problems)
            elif path.suffix == ".csv":
                pa.csv.write_csv(table, stream, pa.csv.WriteOptions(include_header=first == 0))
            else:
                writer = writer or pa.parquet.ParquetWriter(stream, table.schema)
                writer.write_table(table)
        if writer is not None:
            writer.close()


def measure(path: Path) -> dict[str, Any]:
    """Seconds and private memory of reading a file."""
    from limbeck.core.parts import build
    from limbeck.core.recipe import Data
    from limbeck.data.curriculum import Curriculum
    from limbeck.data.dataset import load_splits
    from limbeck.tasks.causal_lm import CausalLM
    from limbeck.training.batches import Order, Pool

    build("source", str(path))
    before, begun = private(), time.perf_counter()
    with Peak() as peak:
        splits = load_splits(Data(train=str(path)), CausalLM(), need_test=False)
        held = private() - before
        third = len(splits.train) // 3
        pools = [Pool(np.arange(i * third, (i + 1) * third), np.full(1000, 8)) for i in range(3)]
        curriculum = build("curriculum", {"type": "competence"})
        assert isinstance(curriculum, Curriculum)
        order = Order(np.ones(len(splits.train), dtype=np.int32), 24, 1000, [0], True, pools, curriculum.span)
        seen = {splits.train[i].id for step in range(1000) for i in order.step(step)}
        assert len(seen) > 1000
    return {"seconds": time.perf_counter() - begun, "peak": peak.highest - before, "held": held}


def private() -> float:
    """Private memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak:
    """The highest private memory between entry and exit, looked at every 20 milliseconds."""

    def __enter__(self) -> Peak:
        import threading

        self.highest, self._done = private(), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.highest = max(self.highest, private())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()


if __name__ == "__main__":
    main()
