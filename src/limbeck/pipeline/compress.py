"""compress: the student with smaller numbers, let through if it answers as well as before.

compress/student/                   the compressed student with its card
compress/scores.json                accuracy and size, before (`student`) and after (`compressed`), on validation rows
compress/gate.json                  what was let through, and by what
compress/details/sensitivity.json   how much each layer suffers alone, if that was asked for

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from limbeck.compression import Compressor
from limbeck.compression._sensitivity import Hurt, sensitivity
from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.errors import BudgetError, RecipeError
from limbeck.core.parts import config_of
from limbeck.core.progress import say
from limbeck.core.recipe.compress import Gate
from limbeck.core.types import Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.evaluation.paired import drop_bound
from limbeck.evaluation.statistics import mean
from limbeck.exporters._base import copy_beside
from limbeck.exporters._graph import save, without_traces
from limbeck.exporters.onnx import FILE, graph_of
from limbeck.pipeline._job import RunJob
from limbeck.runtime import Arrays
from limbeck.runtime.card import Card, write_card
from limbeck.runtime.onnx_runner import OnnxRunner
from limbeck.runtime.student import ServedStudent, codec_of, runner_of
from limbeck.tasks import Feature

OPSET = 21
"""Of the graph that is compressed."""
BATCH = 16
"""Rows at a time, for calibration and comparison."""
SHOWN = 5
"""Layers that a refusal names."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        passed: whether the compressed student is let through.
        drop: accuracy before minus accuracy after; below zero where it rose.
        upper: the one-sided upper bound of the fall.
        agreement: share of rows with the same answer.
        n: rows that were compared.
        crossed: the limits that it does not keep, in words.
    """

    passed: bool
    drop: float
    upper: float
    agreement: float
    n: int
    crossed: tuple[str, ...]


def compress(job: RunJob, made: Mapping[str, Artifact]) -> Artifact | None:
    """The artifact `compress`; None where the recipe has none.

    Args:
        job: the run.
        made: the artifacts so far, `train` among them.

    Raises:
        BudgetError: the compressed student is worse than the gate allows; nothing is left behind.
        RecipeError: the task's students cannot be compressed like this.
    """
    part = cast("Compressor | None", job.recipe.compress)
    if part is None:
        return None
    if job.label_names is None:
        what = f"`compress: {part.type()}` is for classifiers"
        raise RecipeError(what, got=job.task.type(), fix="for language models: export: [{type: onnxruntime_genai}]")
    inputs = {"compress": config_of(part), **job.data_inputs()}
    parents = {"train": made["train"]}
    return job.step("compress", inputs, parents, lambda folder: _work(job, part, parents["train"], folder))


def _work(job: RunJob, part: Compressor, train: Artifact, folder: Path) -> Mapping[str, Any]:
    trained = train.path / "student"
    card = Card(task=config_of(job.task), labels=job.label_names)
    codec = codec_of(trained, card)
    before = ServedStudent(card, codec, runner_of(trained, card, codec, "torch"))
    scratch, target = folder / ".scratch", folder / "student"
    scratch.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    source = scratch / FILE
    save(graph_of(trained, card, OPSET), source)
    runner = OnnxRunner(source)
    rows = [_known(before.arrays(each), runner) for each in _batches(_calibration(job, part, before))]
    facts = part.compress(source, target / FILE, rows)
    _clean(target / FILE)
    copy_beside(trained, target, card)
    held = _drawn(job.splits.validation, part.gate.max_samples, job.recipe.data.seed)
    features = before.encode(held)
    targets = np.array([feature.values["label"] for feature in features])
    was, now = _logits(before, features), _logits(_with(before, target / FILE), features)
    temperature = temperature_of(softmax(now.astype(np.float64), axis=1), targets)
    written = replace(card, format="onnx", precision=part.precision, file=FILE, temperature=temperature)
    write_card(written, target)
    verdict = judge(part.gate, was.argmax(1), now.argmax(1), targets)
    _refuse(job, part, before, verdict, source, rows, features)
    sizes = {"student": _weight(trained), "compressed": _weight(target)}
    write_json(folder / "scores.json", _scores(job, was.argmax(1) == targets, now.argmax(1) == targets, sizes, verdict))
    write_json(folder / "gate.json", {**asdict(verdict), "limits": part.gate.model_dump()})
    fall = f"accuracy {0.0 - verdict.drop:+.2%} (fall below {verdict.upper:.2%}), same answers {verdict.agreement:.1%}"
    say(f"  {fall}; {sizes['student'] / 1e6:.1f} -> {sizes['compressed'] / 1e6:.1f} MB")
    return {**facts, "counts": {"rows": verdict.n}, "bytes": sizes}


def judge(gate: Gate, was: NDArray[np.int64], now: NDArray[np.int64], targets: NDArray[np.int64]) -> Verdict:
    """Hold answers after against answers before.

    Args:
        gate: the limits.
        was: the class that the trained student says, [N].
        now: the class that the compressed one says, [N].
        targets: the right one, [N].
    """
    right, still = was == targets, now == targets
    drop, upper = float(right.mean() - still.mean()), drop_bound(right, still, gate.confidence)
    agreement = float((was == now).mean())
    crossed = []
    if gate.drop is not None and drop > gate.drop:
        crossed.append(f"accuracy falls by {drop:.4f}, allowed {gate.drop:g}")
    if gate.bound is not None and upper > gate.bound:
        crossed.append(f"the fall may be {upper:.4f} ({gate.confidence:.0%} bound), allowed {gate.bound:g}")
    if gate.agreement is not None and agreement < gate.agreement:
        crossed.append(f"the answer is the same on {agreement:.4f} of the rows, asked for {gate.agreement:g}")
    return Verdict(not crossed, drop, upper, agreement, len(targets), tuple(crossed))


def _refuse(
    job: RunJob,
    part: Compressor,
    before: ServedStudent,
    verdict: Verdict,
    source: Path,
    rows: Sequence[Arrays],
    features: Sequence[Feature],
) -> None:
    """Stop a student that lost too much, and say which layers did it."""
    if verdict.passed:
        return
    least = drop_bound(*[np.ones(verdict.n, dtype=bool)] * 2, part.gate.confidence)
    if verdict.crossed and verdict.drop <= 0 and part.gate.bound is not None and least > part.gate.bound:
        raise BudgetError(
            f"{verdict.n} validation rows are too few for the gate: if none of them changes, the bound is {least:.4f}",
            got="; ".join(verdict.crossed),
            fix="give more validation rows, or widen compress.gate.bound",
        )
    say("  refused by the gate; each layer is compressed alone now, to see which suffers")
    few = features[:256]
    hurt = sensitivity(part, source, source.parent, rows, lambda path: _logits(_with(before, path), few))
    worst = [each.layer for each in hurt[:SHOWN]]
    raise BudgetError(
        f"the student compressed by {part.type()} is beyond the gate, on {verdict.n} validation rows",
        got="; ".join(verdict.crossed),
        allowed=f"layers that suffer most: {', '.join(_told(each) for each in hurt[:SHOWN])}",
        fix=f"leave them out: compress.keep=[{', '.join(worst[:2])}]; or widen compress.gate; or train for it",
    )


def _told(hurt: Hurt) -> str:
    return f"{hurt.layer} (KL {hurt.kl:.2g}, {hurt.changed:.1%} of the answers)"


def _calibration(job: RunJob, part: Compressor, student: ServedStudent) -> list[Feature]:
    """Training rows in numbers, by which ranges are found."""
    count = getattr(part, "calibration_samples", BATCH)
    return student.encode(_drawn(job.splits.train, count, job.recipe.data.seed))


def _drawn(samples: Sequence[Sample], most: int | None, seed: int) -> list[Sample]:
    if most is None or most >= len(samples):
        return list(samples)
    places = np.random.default_rng(seed).permutation(len(samples))[:most]
    return [samples[i] for i in sorted(places)]


def _batches(features: Sequence[Feature]) -> list[Sequence[Feature]]:
    ordered = sorted(features, key=lambda each: -each.length)
    return [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]


def _known(arrays: Arrays, runner: OnnxRunner) -> Arrays:
    return {name: x for name, x in arrays.items() if name in runner.inputs}


def _with(student: ServedStudent, path: Path) -> ServedStudent:
    return ServedStudent(student.card, student.codec, OnnxRunner(path))


def _logits(student: ServedStudent, features: Sequence[Feature]) -> Floats:
    """What a student says of all rows, [N, C], in their order."""
    order = sorted(range(len(features)), key=lambda i: -features[i].length)
    found = [student.logits([features[i] for i in order[k : k + BATCH]]) for k in range(0, len(order), BATCH)]
    said = np.concatenate(found)
    back = np.empty_like(said)
    back[order] = said
    return back


def _clean(path: Path) -> None:
    """Take what the exporter noted for programmers out of the graph: it is a third of a small student's bytes."""
    import onnx

    model = onnx.load(path)
    without_traces(model)
    save(model, path)


def _weight(folder: Path) -> int:
    """Bytes of a student's weights."""
    return sum(each.stat().st_size for each in folder.iterdir() if each.suffix in (".safetensors", ".onnx", ".data"))


def _scores(job: RunJob, before: Bools, after: Bools, sizes: Mapping[str, int], verdict: Verdict) -> Any:
    book = Book(job.recipe.evaluate.model_copy(update={"split": "validation"}))
    for model, right in (("student", before), ("compressed", after)):
        book.estimate(model, "accuracy", "accuracy", "share", mean, right.astype(float))
        book.exact(model, "efficiency", "bytes_on_disk", "bytes", sizes[model], 1)
    book.exact("compressed", "agreement", "agreement_with_student", "share", verdict.agreement, verdict.n)
    book.exact("compressed", "comparison", "accuracy_drop", "share", verdict.drop, verdict.n)
    book.exact("compressed", "comparison", "accuracy_drop_bound", "share", verdict.upper, verdict.n)
    return book.rows()
