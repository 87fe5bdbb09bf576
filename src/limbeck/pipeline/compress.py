"""compress: the student with smaller numbers, let through if it answers as well as before.

compress/student/                   the compressed student with its card
compress/scores.json                accuracy and size, before (`student`) and after (`compressed`), on validation rows
compress/gate.json                  what was let through, and by what
compress/details/sensitivity.json   how much each layer suffers alone, if that was asked for

Shapes: N rows, C classes.
"""

from __future__ import annotations

import shutil
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
from limbeck.core.errors import BudgetError
from limbeck.core.parts import config_of
from limbeck.core.progress import say
from limbeck.core.recipe.compress import Tolerance
from limbeck.core.types import Sample
from limbeck.data.draw import subsample
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.evaluation.paired import drop_bound
from limbeck.evaluation.statistics import mean
from limbeck.exporters._base import copy_beside
from limbeck.exporters._graph import save, strip
from limbeck.exporters.onnx import FILE, graph_of
from limbeck.pipeline._job import RunJob
from limbeck.runtime.card import Card, weights_in, write_card
from limbeck.runtime.onnx_runner import OnnxRunner
from limbeck.runtime.student import ServedStudent, codec_of, runner_of
from limbeck.tasks import Feature

OPSET = 21
"""Of the graph that is compressed."""
BATCH = 16
"""Rows at a time, for calibration and comparison."""
SHOWN = 5
"""Layers that a refusal names."""
COMPARED = 256
"""Rows by which it is told how much a layer suffers."""

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
        job: the run of a classifier.
        made: the artifacts so far, `train` among them.

    Raises:
        BudgetError: the compressed student is worse than the gate allows, or too few rows can show that it is not;
            there is no artifact then.
    """
    part = cast("Compressor | None", job.recipe.compress)
    if part is None:
        return None
    inputs = {"compress": config_of(part), **job.data_inputs()}
    parents = {"train": made["train"]}
    return job.step("compress", inputs, parents, lambda folder: _work(job, part, parents["train"], folder))


def _work(job: RunJob, part: Compressor, train: Artifact, folder: Path) -> Mapping[str, Any]:
    held = _drawn(job.splits.validation, part.tolerance.max_samples, job.recipe.data.seed)
    refuse_too_few(part.tolerance, len(held))
    bench, target = _Bench(job, part, train.path / "student", held, folder / ".scratch"), folder / "student"
    shutil.rmtree(target, ignore_errors=True)  # of a try that was killed
    target.mkdir()
    facts = part.compress(bench.source, target / FILE, bench.calibration)
    strip(target / FILE)
    now = bench.logits(target / FILE)
    verdict = judge(part.tolerance, bench.whole.argmax(1), now.argmax(1), bench.targets)
    if not verdict.passed:
        say("  refused by the gate; each layer is compressed alone now, to see which suffers")
        raise _refusal(part, verdict, bench.suffering())
    temperature = temperature_of(softmax(now.astype(np.float64), axis=1), bench.targets)
    copy_beside(train.path / "student", target, bench.card)
    card = replace(bench.card, format="onnx", precision=part.precision, file=FILE, temperature=temperature)
    write_card(card, target)
    sizes = {"student": _weight(train.path / "student", bench.card), "compressed": _weight(target, card)}
    write_json(folder / "scores.json", _scores(job, bench, now, sizes, verdict))
    write_json(folder / "gate.json", {**asdict(verdict), "limits": part.tolerance.model_dump()})
    if part.sensitivity:
        (folder / "details").mkdir(exist_ok=True)
        write_json(folder / "details" / "sensitivity.json", [asdict(each) for each in bench.suffering()])
    fall = f"accuracy {0.0 - verdict.drop:+.2%} (fall below {verdict.upper:.2%}), same answers {verdict.agreement:.1%}"
    say(f"  {fall}; {sizes['student'] / 1e6:.1f} -> {sizes['compressed'] / 1e6:.1f} MB")
    return {**facts, "precision": part.precision, "counts": {"rows": verdict.n}, "bytes": sizes}


class _Bench:
    """A trained student, as a graph that is compressed and as what the compressed ones are compared with.

    Args:
        job: the run.
        part: how it is compressed.
        trained: its folder.
        held: the rows of the comparison.
        scratch: takes graphs that are thrown away.

    Attributes:
        card: of the student as it was trained.
        source: it as an ONNX file.
        calibration: training rows for ranges, in batches.
        targets: what is right, [N].
        whole: what it says of the rows, [N, C].
    """

    def __init__(self, job: RunJob, part: Compressor, trained: Path, held: Sequence[Sample], scratch: Path):
        self.part, self.scratch, self.source = part, scratch, scratch / FILE
        scratch.mkdir(exist_ok=True)
        self.card = Card(task=config_of(job.task), labels=job.label_names)
        self.codec = codec_of(trained, self.card)
        student = ServedStudent(self.card, self.codec, runner_of(trained, self.card, self.codec, "torch"))
        self.features = student.encode(held)
        self.targets = np.array([feature.values["label"] for feature in self.features])
        self.whole = _logits(student, self.features)
        save(graph_of(trained, self.card, OPSET), self.source)
        rows = student.encode(_drawn(job.splits.train, part.calibration_samples, job.recipe.data.seed))
        known = OnnxRunner(self.source).inputs
        batches = [student.arrays([rows[i] for i in places]) for places in _batches(rows)]
        self.calibration = [{name: x for name, x in arrays.items() if name in known} for arrays in batches]

    def logits(self, path: Path, rows: int | None = None) -> Floats:
        """What a compressed graph says of the rows, or of the first of them, [N, C]."""
        return _logits(ServedStudent(self.card, self.codec, OnnxRunner(path)), self.features[:rows])

    def suffering(self) -> list[Hurt]:
        """How much each layer alone suffers, the worst first."""
        return sensitivity(
            self.part, self.source, self.scratch, self.calibration, lambda path: self.logits(path, COMPARED)
        )


def refuse_too_few(tolerance: Tolerance, n: int) -> None:
    """Refuse a bound that no student could keep: with so few rows it is above the limit if no answer changes.

    Raises:
        BudgetError: it could not.
    """
    same = np.ones(n, dtype=bool)
    least = drop_bound(same, same, tolerance.confidence)
    if tolerance.bound is not None and least > tolerance.bound:
        raise BudgetError(
            f"{n} validation rows are too few for the gate: if the answer to none of them changes, the bound is "
            f"{least:.4f}",
            allowed=f"compress.tolerance.bound {tolerance.bound:g}",
            fix="more validation rows, or a wider bound",
        )


def judge(tolerance: Tolerance, was: NDArray[np.int64], now: NDArray[np.int64], targets: NDArray[np.int64]) -> Verdict:
    """Hold answers after against answers before.

    Args:
        tolerance: the limits.
        was: the class that the trained student says, [N].
        now: the class that the compressed one says, [N].
        targets: the right one, [N].
    """
    right, still = was == targets, now == targets
    drop, upper = float(right.mean() - still.mean()), drop_bound(right, still, tolerance.confidence)
    agreement = float((was == now).mean())
    crossed = []
    if tolerance.drop is not None and drop > tolerance.drop:
        crossed.append(f"accuracy falls by {drop:.4f}, allowed {tolerance.drop:g}")
    if tolerance.bound is not None and upper > tolerance.bound:
        crossed.append(f"the fall may be {upper:.4f} ({tolerance.confidence:.0%} bound), allowed {tolerance.bound:g}")
    if tolerance.agreement is not None and agreement < tolerance.agreement:
        crossed.append(f"the answer is the same on {agreement:.4f} of the rows, asked for {tolerance.agreement:g}")
    return Verdict(not crossed, drop, upper, agreement, len(targets), tuple(crossed))


def _refusal(part: Compressor, verdict: Verdict, hurt: Sequence[Hurt]) -> BudgetError:
    """What is told of a student that lost too much: how much, and by which layers."""
    return BudgetError(
        f"the student compressed by {part.type()} is beyond the gate, on {verdict.n} validation rows",
        got="; ".join(verdict.crossed),
        allowed=f"layers that suffer most: {', '.join(_told(each) for each in hurt[:SHOWN])}",
        fix=f"leave some out: compress.keep=[{', '.join(each.layer for each in hurt[:2])}]; or widen the tolerance",
    )


def _told(hurt: Hurt) -> str:
    return f"{hurt.layer} (KL {hurt.kl:.2g}, {hurt.changed:.1%} of the answers)"


def _drawn(samples: Sequence[Sample], most: int | None, seed: int) -> list[Sample]:
    count = len(samples)
    return [samples[i] for i in subsample(range(count), count if most is None else most, count=count, seed=seed)]


def _batches(features: Sequence[Feature]) -> list[list[int]]:
    """Places of rows of like length, the longest first."""
    order = sorted(range(len(features)), key=lambda i: -features[i].length)
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


def _logits(student: ServedStudent, features: Sequence[Feature]) -> Floats:
    """What a student says of all rows, [N, C], in their order."""
    places = _batches(features)
    said = np.concatenate([student.logits([features[i] for i in each]) for each in places])
    back = np.empty_like(said)
    back[np.concatenate(places)] = said
    return back


def _weight(folder: Path, card: Card) -> int:
    return sum(each.stat().st_size for each in weights_in(folder, card))


def _scores(job: RunJob, bench: _Bench, now: Floats, sizes: Mapping[str, int], verdict: Verdict) -> Any:
    book = Book(job.recipe.evaluate.model_copy(update={"split": "validation"}))
    for model, said in (("student", bench.whole), ("compressed", now)):
        right = said.argmax(1) == bench.targets
        book.estimate(model, "accuracy", "accuracy", "share", mean, right.astype(float))
        book.exact(model, "efficiency", "bytes_on_disk", "bytes", sizes[model], 1)
    book.exact("compressed", "agreement", "agreement_with_student", "share", verdict.agreement, verdict.n)
    book.exact("compressed", "comparison", "accuracy_drop", "share", verdict.drop, verdict.n)
    book.exact("compressed", "comparison", "accuracy_drop_bound", "share", verdict.upper, verdict.n)
    return book.rows()
