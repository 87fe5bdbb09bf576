"""How long 10,000 rows of recorded predictions take from Parquet to a page: scores, report, comparison of runs.

    python benchmarks/report_render.py [--rows 10000] [--classes 77] [--runs 4] [--rounds 3]

Predictions of a teacher, a student and a baseline are drawn at random (texts of twenty words, softmax of noise with a
peak at the answer) and written to Parquet as the step `evaluate` does. Timed are CPU seconds of one process: reading
and scoring them by all metrics that fit; writing the report; and `limbeck compare` of several such runs, every pair of
students with 10,000 bootstrap resamples and McNemar's test.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from _bench import highest, machine, parser, spread
from _bench import write as save
from limbeck.core.artifacts import seal, write_json
from limbeck.core.recipe import Evaluate
from limbeck.evaluation.book import Book
from limbeck.evaluation.predictions import Predictions, read, write
from limbeck.evaluation.scores import score
from limbeck.pipeline.compare import compare, read_run
from limbeck.report.render import write_report

MODELS = {"teacher": 6.0, "student": 4.5, "baseline": 4.0}


def table(peak: float, rows: int, classes: int, seed: int) -> Predictions:
    """A classifier's predictions; the higher the peak, the better it is."""
    draws, names = np.random.default_rng(seed), [f"class_{i}" for i in range(classes)]
    logits = draws.normal(0, 1.5, (rows, classes))
    texts = np.random.default_rng(0).integers(2_000, size=(rows, 20))
    targets = np.arange(rows) % classes
    logits[np.arange(rows), targets] += peak
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    said = probabilities.argmax(1)
    columns: dict[str, list[Any]] = {
        "id": [f"row-{i}" for i in range(rows)],
        "input": [" ".join(_word(word) for word in line) for line in texts],
        "target": [names[i] for i in targets],
        "prediction": [names[i] for i in said],
        "correct": (said == targets).tolist(),
        "confidence": probabilities.max(1).tolist(),
        "nll": (-np.log(probabilities[np.arange(rows), targets])).tolist(),
        "probabilities": probabilities.tolist(),
    }
    return Predictions(columns, tuple(names))


def _word(number: int) -> str:
    return "".join(chr(97 + number // 26**power % 26) for power in (2, 1, 0))


def leave(run: Path, rows: int, classes: int, seed: int) -> None:
    """The predictions of a run, and what stands beside them in its folder."""
    (run / "train").mkdir(parents=True)
    (run / "evaluate" / "details").mkdir(parents=True)
    for name in ("steps", "evals"):
        (run / "train" / f"{name}.jsonl").write_text("")
    write_json(run / "recipe.json", {"seed": seed, "evaluate": {"split": "test"}})
    for name, peak in MODELS.items():
        write(run / "evaluate" / f"predictions-{name}.parquet", table(peak, rows, classes, seed))
        seed += name != "teacher"


def evaluate(run: Path) -> None:
    """Scores and details of the predictions, from their files to files."""
    plan = Evaluate()
    book = Book(plan)
    score({name: read(run / "evaluate" / f"predictions-{name}.parquet") for name in MODELS}, plan, book, {})
    write_json(run / "evaluate" / "scores.json", book.rows())
    for name, value in book.details.items():
        write_json(run / "evaluate" / "details" / f"{name}.json", value)
    for name in ("train", "evaluate"):
        about: Mapping[str, Any] = {"kind": name, "model": {"name": "drawn"}, "parents": {}, "versions": {}}
        seal(run / name, {**about, "seconds": 0.0})


def render(run: Path, folder: Path) -> None:
    """The report of a run from its folder."""
    write_report(read_run(run), folder)


def timed(work: Callable[..., object], *given: Any) -> float:
    """CPU seconds of some work."""
    began = time.process_time()
    work(*given)
    return time.process_time() - began


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of each part, and of the whole way from predictions to a page."""
    found: dict[str, list[float]] = {"score": [], "render": [], "whole": [], "compare": []}
    size = 0
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            runs = [Path(folder) / f"run-{i}" for i in range(options.runs)]
            for i, run in enumerate(runs):
                leave(run, options.rows, options.classes, 1 + 10 * i)
                scored = timed(evaluate, run)
            rendered = timed(render, runs[-1], Path(folder) / "report")
            size = (Path(folder) / "report" / "index.html").stat().st_size
            found["score"].append(scored)
            found["render"].append(rendered)
            found["whole"].append(scored + rendered)
            found["compare"].append(timed(compare, runs, Path(folder) / "both"))
    return {"cpu_seconds": {name: spread(values) for name, values in found.items()}, "page_bytes": size}


def main() -> None:
    """Measure, print and save."""
    options_of = parser(__doc__)
    for name, default in (("rows", 10_000), ("classes", 77), ("runs", 4), ("rounds", 3)):
        options_of.add_argument(f"--{name}", type=int, default=default)
    options = options_of.parse_args()
    result = measure(options)
    for name, seconds in result["cpu_seconds"].items():
        print(f"{name:8} {seconds['median']:6.2f} s  ({seconds['low']:.2f} to {seconds['high']:.2f})")
    print(f"page {result['page_bytes'] / 1e3:.0f} kB, memory at its peak {highest() / 2**20:.0f} MiB")
    settings = {name: getattr(options, name) for name in ("rows", "classes", "runs", "rounds")}
    save(options.results, "report-render", {"machine": machine(), "settings": settings, **result})


if __name__ == "__main__":
    main()
