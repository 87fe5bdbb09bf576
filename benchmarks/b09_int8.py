"""B9: what 8-bit integers cost in accuracy: students of finished runs, compressed by limbeck and by two others.

    pip install -c constraints.txt -e '.[onnx]' torchao==0.18.0
    python benchmarks/b09_int8.py runs/banking77 runs/quickstart ...

Every run's student is compressed and asked the run's test rows, before and after:

    limbeck      `compress: int8` with its defaults, ranges from training rows where it needs them
    ORT          `quantize_dynamic` with its defaults, on limbeck's export; students without convolutions
    torchao      `Int8DynamicActivationInt8WeightConfig` on the student in torch; its linear layers alone

The drop is accuracy before minus after, in points, row by row; its bound is Tango's one-sided 95 % upper bound.
`pooled` takes the rows of all runs together. The gate is not asked: what it would have refused is measured too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _bench


def main() -> None:
    options = arguments()
    torch.set_num_threads(1)
    runs, rights = {}, {}
    for folder in options.runs:
        runs[folder.name], rights[folder.name] = measured(folder, options.rows)
        print(folder.name, runs[folder.name], flush=True)
    result = {
        "benchmark": "B9: accuracy of students as 8-bit integers",
        "settings": {"rows": options.rows, "runs": [folder.name for folder in options.runs]},
        "runs": runs,
        "pooled": pooled(list(rights.values())),
        "machine": _bench.machine("onnxruntime", "torchao"),
    }
    print(json.dumps(result["pooled"], indent=2))
    _bench.write(options.results, "b09-int8", result)


def arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs of classifiers")
    parser.add_argument("--rows", type=int, default=None, help="test rows, at most; left out: all")
    return parser.parse_args()


def measured(folder: Path, most: int | None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A run's student before and after: accuracy, drop, bound, agreement; and which rows each has right."""
    from limbeck.core.recipe import load_recipe
    from limbeck.pipeline._job import RunJob
    from limbeck.pipeline.compress import _batches, _drawn, _logits
    from limbeck.runtime.onnx_runner import OnnxRunner
    from limbeck.runtime.student import ServedStudent, codec_of, runner_of

    job = RunJob(load_recipe(json.loads((folder / "recipe.json").read_text())))
    student = folder / "train" / "student"
    card = card_of(job)
    codec = codec_of(student, card)
    before = ServedStudent(card, codec, runner_of(student, card, codec, "torch", threads=1))
    features = before.encode(_drawn(job.splits.test, most, 0))
    targets = np.array([feature.values["label"] for feature in features])
    known = before.encode(_drawn(job.splits.train, 256, job.recipe.data.seed))
    training = [before.arrays([known[i] for i in places]) for places in _batches(known)]
    said = {"student": _logits(before, features).argmax(1)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in compressed(student, card, Path(scratch), training).items():
            said[name] = _logits(ServedStudent(card, codec, OnnxRunner(path, threads=1)), features).argmax(1)
    quantized = in_torchao(student, job.task.auto_class)
    if quantized is not None:
        said["torchao"] = _logits(ServedStudent(card, codec, quantized), features).argmax(1)
    right = {name: answers == targets for name, answers in said.items()}
    told = {name: facts(right["student"], each) for name, each in right.items() if name != "student"}
    for name, row in told.items():
        row["agreement"] = float((said[name] == said["student"]).mean())
    return {"accuracy": float(right["student"].mean()), "rows": len(targets), **told}, right


def card_of(job: Any) -> Any:
    """How a run's student is asked."""
    from limbeck.core.parts import config_of
    from limbeck.runtime.card import Card

    return Card(task=config_of(job.task), labels=job.label_names)


def compressed(student: Path, card: Any, folder: Path, rows: list[Any]) -> dict[str, Path]:
    """The student by limbeck's defaults and by ONNX Runtime's."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    from limbeck.compression._graph import has_convolutions, read
    from limbeck.compression.int8 import Int8
    from limbeck.exporters.onnx import graph_of
    from limbeck.runtime.onnx_runner import OnnxRunner

    source = folder / "fp32.onnx"
    onnx.save(graph_of(student, card, 21), source)
    known = OnnxRunner(source, threads=1).inputs
    rows = [{name: x for name, x in batch.items() if name in known} for batch in rows]
    Int8().compress(source, folder / "limbeck.onnx", rows)
    found = {"limbeck": folder / "limbeck.onnx"}
    if not has_convolutions(read(source)):  # integers of convolutions need other types than its defaults
        quantize_dynamic(read(source), folder / "ort.onnx")
        found["ORT"] = folder / "ort.onnx"
    return found


def in_torchao(student: Path, auto_class: str) -> Any:
    """The student with torchao's integers, as a runner; None where it has no linear layer but its head."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    from limbeck.runtime.student import load_student

    runner = load_student(student, engine="torch", threads=1).runner
    linear = [each for each in runner.model.modules() if isinstance(each, torch.nn.Linear)]
    if len(linear) < 2:
        return None
    quantize_(runner.model, Int8DynamicActivationInt8WeightConfig())
    return runner


def facts(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Drop and bound in points."""
    from limbeck.evaluation.paired import drop_bound

    drop, bound = float(before.mean() - after.mean()), drop_bound(before, after, 0.95)
    return {"drop_points": round(100 * drop, 3), "bound_points": round(100 * bound, 3)}


def pooled(rights: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """The same over the rows of all runs."""
    found = {}
    for name in ("limbeck", "ORT", "torchao"):
        there = [each for each in rights if name in each]
        if there:
            before = np.concatenate([each["student"] for each in there])
            found[name] = {"rows": len(before), **facts(before, np.concatenate([each[name] for each in there]))}
    return found


if __name__ == "__main__":
    main()
