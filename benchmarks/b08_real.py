"""B8 on trained models: a finished run's teacher beside its student as 8-bit integers, on the run's own test rows.

    pip install -c constraints.txt -e '.[onnx]'
    python benchmarks/b08_real.py runs/banking77 --teacher runs/banking77/prepare/teacher

Latency is that of one row at a time from numbers to logits, one thread, the same 100 rows for all, in turns; the median
of each round, and their spread. Accuracy is on all test rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _bench
from b09_int8 import card_of, compressed

ROWS = 100


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        models, features, targets = everything(options.run, options.teacher, Path(scratch))
        result = {
            "benchmark": "B8: a trained teacher and its student as 8-bit integers",
            "settings": {"run": options.run.name, "rounds": options.rounds, "rows": ROWS, "threads": 1},
            "milliseconds": latencies(models, features[:ROWS], options.rounds),
            "accuracy": {name: accuracy(model, features, targets) for name, model in models.items()},
            "machine": _bench.machine("onnxruntime"),
        }
    show(result)
    _bench.write(options.results, f"b08-{options.name or options.run.name}", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run of a classifier")
    parser.add_argument("--teacher", type=Path, required=True, help="the teacher's folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default=None, help="of the result; left out: the run's")
    return parser.parse_args()


def everything(run: Path, teacher: Path, scratch: Path) -> tuple[dict[str, Any], Sequence[Any], np.ndarray]:
    """All models by name, the test rows in numbers, and their classes."""
    from limbeck.core.recipe import load_recipe
    from limbeck.pipeline._job import RunJob
    from limbeck.runtime.onnx_runner import OnnxRunner
    from limbeck.runtime.student import ServedStudent, codec_of, runner_of

    job = RunJob(load_recipe(json.loads((run / "recipe.json").read_text())))
    card, found = card_of(job), {}
    for name, folder in (("teacher", teacher), ("student", run / "train" / "student")):
        codec = codec_of(folder, card)
        found[f"{name}, torch"] = ServedStudent(card, codec, runner_of(folder, card, codec, "torch", threads=1))
        own = scratch / name
        own.mkdir()
        known = codec.encode(job.splits.train[:256]).features
        batches = [found[f"{name}, torch"].arrays(known[i : i + 16]) for i in range(0, len(known), 16)]
        paths = {"ONNX Runtime": own / "fp32.onnx", "limbeck int8": compressed(folder, card, own, batches)["limbeck"]}
        for engine, path in paths.items():
            found[f"{name}, {engine}"] = ServedStudent(card, codec, OnnxRunner(path, threads=1))
    features = codec.encode(job.splits.test).features
    return found, features, np.array([feature.values["label"] for feature in features])


def latencies(models: dict[str, Any], features: Sequence[Any], rounds: int) -> dict[str, Any]:
    """Median milliseconds of a row, by model."""
    encoded = {name: [model.codec.encode([f.source]).features for f in features] for name, model in models.items()}
    took: dict[str, list[float]] = {name: [] for name in models}
    for name in _bench.turns(list(models), rounds):
        times = []
        for row in encoded[name]:
            inputs = models[name].arrays(row)
            start = time.perf_counter()
            models[name].runner.run(inputs)
            times.append(time.perf_counter() - start)
        took[name].append(float(np.median(times)) * 1e3)
    return {name: _bench.spread(values) for name, values in took.items()}


def accuracy(model: Any, features: Sequence[Any], targets: np.ndarray) -> float:
    """Share of right answers; each model reads the rows by its own codec."""
    answers = model.predict([feature.source for feature in features])
    names = {label: i for i, label in enumerate(model.labels)}
    return float(np.mean([names[answer.label] == target for answer, target in zip(answers, targets, strict=True)]))


def show(result: dict[str, Any]) -> None:
    """The table."""
    times, right = result["milliseconds"], result["accuracy"]
    for name in times:
        print(f"{name:28}{times[name]['median']:10.3f} ms{right[name]:10.2%}")
    ours = "student, limbeck int8"
    for other in ("teacher, torch", "teacher, ONNX Runtime"):
        ratio = times[other]["median"] / times[ours]["median"]
        print(f"{ours} against {other}: {ratio:.1f} times as fast, {right[ours] / right[other]:.1%} of its accuracy")


if __name__ == "__main__":
    main()
