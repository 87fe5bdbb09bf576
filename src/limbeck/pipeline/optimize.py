"""optimize: the student cheaper to ask, by one pass after the other, each compared with it and timed beside it.

optimize/student/       the student with what was kept: a graph, or a Hugging Face folder whose card tells how it is run
optimize/passes.json    every pass: what it changed, what it cost and saved, and what became of it

Shapes: N rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import ValidationError

from limbeck.core import artifacts
from limbeck.core.artifacts import Artifact, locked, versions, write_json
from limbeck.core.errors import LimbeckError, ModelError, RecipeError
from limbeck.core.parts import build, config_of
from limbeck.core.progress import say
from limbeck.core.recipe import Model, Optimize, dump_recipe
from limbeck.core.recipe.load import lines_of
from limbeck.evaluation.efficiency.latency import Watched, latencies
from limbeck.exporters._traced import first_line
from limbeck.models.load import load_model
from limbeck.optimization import Optimization
from limbeck.optimization._base import Subject
from limbeck.optimization._forms import Cost, Form, GraphForm, Likeness, in_batches
from limbeck.optimization._language import LanguageForm
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.export import Trained, opened, plain_folder, trained
from limbeck.runtime.card import write_card
from limbeck.runtime.student import codec_of, load_student, task_in
from limbeck.runtime.torch_runner import on_threads
from limbeck.runtime.writer import load_writer
from limbeck.tasks.causal_lm import CausalCodec

WRITERS = ("fuse_qkv", "fuse_mlp", "static_cache", "quantized_cache", "compile", "cuda_graphs")
"""Passes of language models, where the recipe names none."""
GRAPHS = ("fuse_norms", "fuse_qkv", "fuse_mlp", "fuse_attention")
"""Passes of other students."""
AS_IT_IS, TOGETHER, KEPT = "as it is", "together", "kept"
MARGIN = 1.02
"""Times within so much of each other are the same."""


def optimize(job: RunJob, made: Mapping[str, Artifact]) -> Artifact | None:
    """The artifact `optimize`; None where the recipe has no such section.

    Args:
        job: the run.
        made: the artifacts `train` or `compress`, and `evaluate` where there is one.

    Raises:
        ModelError: the student cannot be run, or a pass that must be kept cannot be done.
        MissingExtra: ONNX Runtime is not installed.
    """
    plan = job.recipe.optimize
    return None if plan is None else optimize_one(trained(job, made), plan, job.output, job.force)


def optimize_at(
    where: Path,
    passes: Sequence[Optimization] | None = None,
    *,
    output: Path | None = None,
    task: dict[str, Any] | None = None,
    rows: Path | None = None,
    force: bool = False,
    **settings: Any,
) -> Artifact:
    """Optimise the student of a run, or one in a folder.

    Args:
        where: a run's folder, or a Hugging Face folder.
        passes: in order; left out: what the run's recipe says, or the usual ones.
        output: the artifact is `<output>/optimize`; left out: in the run, or here.
        task: of a folder without a card; left out: what its config tells.
        rows: a file with real rows of a folder's task; left out: made-up ones.
        force: do again what is up to date.
        settings: other fields of the section `optimize`.

    Raises:
        RecipeError: a run is given what it knows itself, or a setting is wrong.
        ArtifactError: the run has no student yet.
        LimbeckError: as `optimize`.
    """
    is_run = (where / "recipe.json").is_file()
    if is_run and (task is not None or rows is not None):
        raise RecipeError("a run knows its task and has rows", fix="leave out task and rows")
    plan = Optimize()
    if is_run:
        job, there = opened(where, force)
        student, plan = trained(job, there), job.recipe.optimize or plan
    else:
        student = plain_folder(where, task, rows)
    changes = {**settings, **({} if passes is None else {"passes": list(passes)})}
    try:
        plan = Optimize.model_validate({**dict(plan), **changes})
    except ValidationError as error:
        raise RecipeError("wrong settings of `optimize`:\n" + "\n".join(lines_of(error.errors()))) from None
    place = output or (where if is_run else Path())
    with locked(place):
        return optimize_one(student, plan, place, force)


def optimize_one(student: Trained, plan: Optimize, place: Path, force: bool = False) -> Artifact:
    """The artifact `<place>/optimize` of a student.

    Args:
        student: what is optimised.
        plan: how.
        place: the run's folder, or another.
        force: do again what is up to date.
    """
    subject = _subject(student)
    passes = [cast(Optimization, each) for each in plan.passes] if plan.passes is not None else usual(subject)
    if not passes:
        raise RecipeError("`optimize.passes` is empty", fix="leave it out for the usual ones, or leave out `optimize`")
    inputs = {
        "optimize": {**dump_recipe(plan), "passes": [config_of(each) for each in passes]},
        "device": subject.device.type,
        "torch": versions().get("torch"),
        **student.inputs,
    }
    say("[bold]optimize[/bold]")
    work = partial(_work, student, subject, plan, passes)
    made, done = artifacts.step(place, "optimize", inputs=inputs, parents=student.parents, work=work, force=force)
    say(f"optimize: {_sentence(made.manifest) if done else 'up to date'}")
    return made


def usual(subject: Subject) -> list[Optimization]:
    """The passes of a student for which nobody names any."""
    return [cast(Optimization, build("optimization", name)) for name in (WRITERS if subject.writes else GRAPHS)]


def _sentence(told: Mapping[str, Any]) -> str:
    kept = ", ".join(told["kept"])
    return (
        f"kept {kept}; {told['speedup']:.2f} times as fast" if kept else "nothing was kept: the student stays as it is"
    )


def _subject(student: Trained) -> Subject:
    card = student.card
    if card.format not in ("pytorch", "onnx"):
        what = f"a student in the format {card.format} cannot be optimised"
        raise ModelError(what, allowed="pytorch, onnx", fix="the student as it was trained or compressed")
    writes = isinstance(codec_of(student.folder, card), CausalCodec)
    if writes and card.format != "pytorch":
        raise ModelError("language models are optimised in torch", got=card.format, fix="the student as it was trained")
    model = None
    if card.format == "pytorch":
        model = load_model(Model(model=str(student.folder)), task_in(card).auto_class, settings={}).eval()
    device = torch.device("cuda" if torch.cuda.is_available() and (writes or _graphs_run_on_cuda()) else "cpu")
    return Subject(student.folder, card, model, writes, device)


def _graphs_run_on_cuda() -> bool:
    """Whether ONNX Runtime, if it is here, was built for CUDA."""
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@dataclass(frozen=True)
class Times:
    """Milliseconds of requests, or of one token of them.

    Attributes:
        wall: by the clock.
        cpu: that they keep a core busy, which on a CPU passes are judged by: it is not others' work.
    """

    wall: np.ndarray[Any, Any]
    cpu: np.ndarray[Any, Any]

    def told(self) -> dict[str, float]:
        """Median and spread."""
        ends = zip((10, 50, 90), np.percentile(self.wall, (10, 50, 90)), strict=True)
        found = {f"p{q}": float(value) for q, value in ends} | {"cpu": float(np.median(self.cpu))}
        return {name: float(f"{value:.4g}") for name, value in found.items()}


@dataclass(frozen=True)
class Tried:
    """A form of the student, measured.

    Attributes:
        likeness: of its answers to the student's.
        cost: what can be counted.
        took: by rows in a request.
    """

    likeness: Likeness
    cost: Cost
    took: Mapping[int, Times]

    def told(self, name: str, became: str, gain: float | None) -> dict[str, Any]:
        """A line of `passes.json`.

        Args:
            name: the pass.
            became: what becomes of it.
            gain: how many times as fast it is as the form before it.
        """
        times = {str(size): each.told() for size, each in self.took.items()}
        size, most = max(self.took.items())
        likeness = {**asdict(self.likeness), "max_difference": float(f"{self.likeness.max_difference:.2g}")}
        likeness["relative"] = float(f"{self.likeness.relative:.2g}")
        per_second = float(f"{1000 * size / float(np.median(most.wall)):.4g}")
        facts = {**asdict(self.cost), "milliseconds": times, "per_second": per_second, **likeness}
        return {"pass": name, "became": became, "gain": gain and float(f"{gain:.3g}"), **facts}


class _Bench:
    """Forms of one student, and what they are measured on."""

    def __init__(self, student: Trained, subject: Subject, plan: Optimize, scratch: Path):
        self.subject, self.plan, self.scratch, self.count = subject, plan, scratch, 0
        runs, most = (5, 16) if subject.writes else (20, 64)
        self.runs, most = plan.runs or runs, plan.max_samples or most
        self.original = self.form(())
        places = np.linspace(0, len(student.rows) - 1, min(len(student.rows), 4 * most)).round().astype(int)
        self.rows = self.original.readable([student.rows[i] for i in dict.fromkeys(places.tolist())], most)
        if not self.rows:
            raise ModelError("the student can read none of the rows that its forms are to be compared on")

    def form(self, passes: Sequence[Optimization]) -> Form:
        """The student with these passes.

        Raises:
            ModelError: it cannot be made.
        """
        self.count += 1
        if not self.subject.writes:
            return GraphForm(self.subject, passes, self.scratch / str(self.count))
        like = cast(LanguageForm, self.original) if self.count > 1 else None
        return LanguageForm(self.subject, passes, self.plan.max_new_tokens, like)

    def tried(self, form: Form, before: Form) -> tuple[Tried, float]:
        """A form, measured, and how many times as fast it is as another one, with which it takes turns."""
        likeness, gains = form.likeness(self.original, self.rows), []
        took: dict[int, Times] = {}
        for size in (1, self.plan.batch_size):
            forms = {"after": form} if form is before else {"before": before, "after": form}
            watched = {name: Watched(each.request(self.rows, size)) for name, each in forms.items()}
            wall = latencies(watched, self.runs)
            cpu = {name: 1000 * np.asarray(each.cpu_seconds[-self.runs :]) for name, each in watched.items()}
            took[size] = Times(wall["after"] / form.steps, cpu["after"] / form.steps)
            judged = wall if self.subject.device.type == "cuda" else cpu
            gains.append(float(np.median(judged.get("before", judged["after"])) / np.median(judged["after"])))
        cost = form.cost(in_batches(self.rows, self.plan.batch_size)[0])
        return Tried(likeness, cost, took), float(np.prod(gains) ** (1 / len(gains)))


def _work(
    student: Trained, subject: Subject, plan: Optimize, passes: Sequence[Optimization], folder: Path
) -> Mapping[str, Any]:
    for left in folder.iterdir():  # by a try that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with on_threads(1):
        lines, now, speedup, rows = _passed(_Bench(student, subject, plan, folder / ".scratch"), passes)
    target = folder / "student"
    target.mkdir()
    write_card(now.save(target), target)
    load_writer(target) if subject.writes else load_student(target)  # as those who get it will
    write_json(folder / "passes.json", lines)
    return {
        "passes": lines,
        "kept": [each.type() for each in now.passes],
        "speedup": float(f"{speedup:.3g}"),
        "engine": "torch" if subject.writes else "onnxruntime",
        "device": subject.device.type,
        "batch_size": plan.batch_size,
        "max_new_tokens": plan.max_new_tokens if subject.writes else None,
        "rows": rows,
        "notes": ["compared on made-up rows: give real ones with --rows"] if student.made_up else [],
    }


def _passed(bench: _Bench, passes: Sequence[Optimization]) -> tuple[list[dict[str, Any]], Form, float, int]:
    """All passes: their lines, the form with those that were kept, how many times as fast it is, and rows compared."""
    first, _ = bench.tried(bench.original, bench.original)
    lines, now, best = [first.told(AS_IT_IS, "", None)], bench.original, first
    for each in passes:
        line, form, found = _tried(bench, each, now, best)
        lines.append(line)
        say(f"  {each.type()}: {line['became']}")
        if form is not None and found is not None:
            now, best = form, found
    speedup = 1.0
    if now is not bench.original:
        together, speedup = bench.tried(now, bench.original)
        slower = speedup * MARGIN < 1 and not any(each.keep for each in now.passes)
        lines.append(together.told(TOGETHER, "not kept: slower" if slower else KEPT, speedup))
        if slower:  # each one gained no more than the machine's moods
            now, speedup = bench.original, 1.0
    return lines, now, speedup, len(bench.rows)


def _tried(
    bench: _Bench, each: Optimization, now: Form, best: Tried
) -> tuple[dict[str, Any], Form | None, Tried | None]:
    """A pass on top of those that were kept: its line, and the form with it if it is kept."""
    if (refused := each.refusal(bench.subject)) is not None:
        if each.keep:
            raise ModelError(f"{each.type()} does not apply, but is to be kept", got=refused, fix="leave the pass out")
        return {"pass": each.type(), "became": f"does not apply: {refused}"}, None, None
    try:
        form = bench.form([*now.passes, each])
        found, gain = bench.tried(form, now)
    except (LimbeckError, RuntimeError, ValueError, ImportError, LookupError, AttributeError) as error:
        if each.keep:
            raise ModelError(f"{each.type()} cannot be done, but is to be kept", got=first_line(error)) from error
        return {"pass": each.type(), "became": f"cannot be done: {first_line(error)}"}, None, None
    became = verdict(each, found, best, gain, rounded=bench.subject.card.precision in ("int8", "int4"))
    line = found.told(each.type(), became, gain)
    return (line, form, found) if became.startswith(KEPT) else (line, None, None)


def verdict(each: Optimization, found: Tried, before: Tried, gain: float, rounded: bool = False) -> str:
    """What becomes of a pass, in words.

    Args:
        each: the pass.
        found: the student with it.
        before: the student without it.
        gain: how many times as fast it is.
        rounded: the student computes with integers.
    """
    lighter = (found.cost.cache_bytes or 0) * MARGIN < (before.cost.cache_bytes or 0)
    counts = found.cost.operators, before.cost.operators
    fewer = counts[0] is not None and counts[1] is not None and counts[0] < counts[1]
    wrong = None
    if not found.likeness.passes(each, rounded):
        wrong = f"same answers {found.likeness.same_answers:.1%}, largest difference {found.likeness.relative:.1%}"
    elif gain * MARGIN < 1:
        wrong = "slower"
    elif gain <= MARGIN and not lighter and not fewer:
        wrong = "nothing gained"
    if wrong is None:
        return KEPT
    return f"{KEPT}, as asked: {wrong}" if each.keep else f"not kept: {wrong}"
