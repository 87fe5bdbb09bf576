"""Training: stages of steps, validation, checkpoints. The loop is ours and small; the engine is Accelerate."""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from limbeck.core.errors import RecipeError
from limbeck.core.progress import bar, say
from limbeck.core.types import Batch
from limbeck.models.shrink.prune import become, empty, pruned, sizes_left, sizes_of
from limbeck.tasks import Feature
from limbeck.teachers.gated import gated
from limbeck.teachers.local import MovingTeacher
from limbeck.training.augment import Augmenter
from limbeck.training.balance import term_sizes, weights_now
from limbeck.training.batches import Order, goes_by_student, order_of, share
from limbeck.training.checkpoint import Checkpoints, Progress, load_optimizer, load_weights, seed_step
from limbeck.training.conflict import term_gradients
from limbeck.training.distiller import Distiller
from limbeck.training.dry_run import dry_run
from limbeck.training.engine import make_accelerator, micro_batch
from limbeck.training.job import Job, StageJob
from limbeck.training.log import Log
from limbeck.training.on_policy import Writer, Written, silenced
from limbeck.training.optim import learning_rate, make_optimizer, select_trained
from limbeck.training.prune import taylor
from limbeck.training.row_losses import row_losses
from limbeck.training.shown import Answers, write_plan
from limbeck.training.step import Now, Teacher, optimizer_step
from limbeck.training.validate import better, validate

if TYPE_CHECKING:
    from accelerate import Accelerator


def train(job: Job, folder: Path) -> list[dict[str, Any]]:
    """Train `job.student` through all stages; killed and called again, it goes on to the same result.

    Args:
        job: what to do.
        folder: takes `plan.json` and the logs (see `Log`); checkpoints lie in it under a hidden name.

    Returns:
        Of every stage: its name, the step of its best weights, and their validation metrics.

    Raises:
        TrainingError: loss or gradient are not finite.
        RecipeError: batch sizes do not fit the number of processes.
    """
    accelerator = make_accelerator(job.training, job.logs)
    folder.mkdir(parents=True, exist_ok=True)
    job.student.to(accelerator.device)
    for each in job.stages:
        micro_batch(each.stage, accelerator.num_processes, f"stage {each.stage.name}")
        if not len(each.train) or not len(each.validation):
            raise RecipeError(
                f"stage {each.stage.name} has no rows left to train or validate on", got=each.train.counts
            )
    dry_run(job, accelerator, folder)
    if job.training.report_to:
        accelerator.init_trackers("limbeck", config={"title": job.title, "seed": job.seed})
    run = _Run(job, accelerator, Checkpoints(folder / ".checkpoints"))
    total = write_plan(job, folder, accelerator)
    with bar(job.unit) as progress_bar, run.stopped_gently():
        run.log = Log(folder, run.progress.step, accelerator, progress_bar, job.title, total)
        if run.progress.step:
            say(f"{job.title}: going on from step {run.progress.step} of {total}")
        with closing(run.log):
            while run.progress.stage < len(job.stages):
                run.stage(job.stages[run.progress.stage])
    if job.training.gradient_checkpointing:
        job.student.activation_checkpointing_disable()
    select_trained(job.student, (), job.learnable)
    if job.training.report_to:
        accelerator.end_training()
    return run.progress.done


class _Run:
    """A training run under way."""

    log: Log
    distiller: Distiller
    teacher: Teacher | None
    augmenter: Augmenter
    order: Order
    writer: Writer | None

    def __init__(self, job: Job, accelerator: Accelerator, checkpoints: Checkpoints):
        self.job, self.accelerator, self.checkpoints = job, accelerator, checkpoints
        self.progress, self.stop_asked, self.answers = Progress(), False, Answers(job, accelerator)
        self.resumed = checkpoints.newest()
        if self.resumed is not None:
            self.progress = Progress(**json.loads(self.resumed.file("progress.json").read_text()))
            if self.progress.sizes is not None:
                become(job.student, empty(job.student, self.progress.sizes))
            load_weights(job.student, self.resumed)
        self._checkpoint_activations()

    def _checkpoint_activations(self) -> None:
        if self.job.training.gradient_checkpointing:
            self.job.student.activation_checkpointing_enable({"use_reentrant": False})

    def stage(self, each: StageJob) -> None:
        """One stage, or what is left of it."""
        job, progress, plan = self.job, self.progress, each.stage
        self._set_up(each)
        optimizer = make_optimizer(self.distiller, plan)
        self._resume(optimizer)
        wrapped, engine_optimizer = self.accelerator.prepare(self.distiller, optimizer)
        if plan.balance is not None and progress.scales is None:
            progress.scales = term_sizes(self.distiller, self.teacher, self.accelerator, self._batches(each))
        while progress.step_in_stage < each.steps:
            self._step(each, wrapped, engine_optimizer)
            at_end = progress.step_in_stage == each.steps
            if at_end or progress.step_in_stage % each.eval_steps == 0:
                self._validate(each)
                if plan.early_stopping_patience and progress.patience >= plan.early_stopping_patience:
                    break
            stop = self._stop()
            if not at_end and (stop or progress.step % job.training.save_steps == 0):
                self._save(optimizer)
            if stop and not at_end:
                raise SystemExit(143)
        self._end(each, optimizer)
        self.accelerator.free_memory(wrapped, engine_optimizer)
        if self._stop():  # in the stage's last step, or in its last validation; all is saved
            raise SystemExit(143)

    def _set_up(self, each: StageJob) -> None:
        """All of a stage but its optimizer."""
        job, progress, plan = self.job, self.progress, each.stage
        self._distiller(each)
        self.augmenter = Augmenter(plan, job.codec, job.seed)
        self.teacher = gated(job.teacher, plan.gate, job.student) if self.distiller.asks_teacher else None
        if progress.losses is None and goes_by_student(plan, each.train):
            progress.losses = self._losses(each)
        self.order = order_of(plan, each.train, each.steps, (job.seed, progress.stage), progress.losses)
        if plan.prune is not None and not progress.step_in_stage:
            self._prune(each)
        if plan.quantize is not None:
            from limbeck.models.quantize import prepare

            prepare(job.student, plan.quantize)
        self.writer = None
        if plan.on_policy is not None:
            self.writer = Writer(plan, progress.stage, job.student, job.codec, job.seed, job.shared, self.accelerator)

    def _distiller(self, each: StageJob) -> None:
        job = self.job
        select_trained(job.student, each.stage.freeze, job.learnable)
        few = job.read(job.codec.collate(each.train.features[:2])).to(self.accelerator.device)
        self.distiller = job.distiller(each.stage, few)

    def _prune(self, each: StageJob) -> None:
        """Take out of the student what the stage says. A kill before the first checkpoint finds it whole, and again."""
        job, plan = self.job, each.stage.prune
        assert plan is not None
        left = sizes_left(job.student, plan)
        found = {}
        if plan.importance == "taylor":
            count = min(each.steps, math.ceil(plan.rows / each.stage.global_batch_size))
            steps = (self._batches(each, ahead) for ahead in range(count))
            weights = self._first_weights(each)
            found = taylor(self.distiller, self.teacher, self.accelerator, steps, left, weights)
        was = sizes_of(job.student)
        become(job.student, pruned(job.student, left, found))
        self._checkpoint_activations()
        self._distiller(each)
        self.progress.sizes = sizes_of(job.student)
        told = ", ".join(f"{name} {was[name]} -> {size}" for name, size in left.items())
        say(f"{job.title}: stage {each.stage.name}: {told}")

    def _first_weights(self, each: StageJob) -> list[float]:
        """The terms' weights in the stage's first step, of a student that is still whole."""
        scales, balance, args = None, each.stage.balance, (self.distiller, self.teacher, self.accelerator)
        if balance is not None:
            scales = term_sizes(*args, self._batches(each))
        return weights_now(self.distiller.terms, balance, 0.0, replace(self.progress, scales=scales))

    def _resume(self, optimizer: Any) -> None:
        """Put back what a checkpoint holds besides the student."""
        if self.resumed is None:
            return
        for name, module in self._beside().items():
            if name != "terms" or self.progress.step_in_stage:
                load_weights(module, self.resumed, name)
        if self.progress.step_in_stage:
            load_optimizer(optimizer, self.resumed)
        if self.accelerator.scaler is not None and self.progress.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.progress.scaler)
        self.resumed = None

    def _beside(self) -> dict[str, nn.Module]:
        """What learns or moves besides the student."""
        found: dict[str, nn.Module] = {}
        terms = nn.ModuleDict({"losses": self.distiller.losses, "temperatures": self.distiller.temperatures})
        if terms.state_dict():
            found["terms"] = terms
        if isinstance(self.job.teacher, MovingTeacher):
            found["teacher"] = self.job.teacher.model
        return found

    def _losses(self, each: StageJob) -> list[float]:
        """The student's loss on each row. A kill before the first checkpoint finds the same student, and the same."""
        say(f"{self.job.title}: stage {each.stage.name}: its loss on {len(each.train):,} rows, for the curriculum")
        size = self.job.training.per_device_eval_batch_size
        return row_losses(self.accelerator, self.job.student, self.job.codec, each.train.features, size)

    def _drawn(self, each: StageJob, step: int) -> list[Feature]:
        """The samples of a step of the stage, over all processes."""
        return [each.train.features[i] for i in self.order.step(step)]

    def _batches(self, each: StageJob, ahead: int = 0) -> list[Batch]:
        """This process's micro-batches of the step that comes next, or of one after it, with the data's answers."""
        accelerator, plan = self.accelerator, each.stage
        micro = micro_batch(plan, accelerator.num_processes, plan.name)
        drawn = self._drawn(each, self.progress.step_in_stage + ahead)
        parts = share(range(len(drawn)), accelerator.process_index, accelerator.num_processes, micro)
        return self._ready(self.augmenter.batches(drawn, parts, self.progress.step + ahead))

    def _ready(self, batches: Sequence[Batch]) -> list[Batch]:
        return [self.job.read(batch).to(self.accelerator.device) for batch in batches]

    def _own(self, each: StageJob) -> tuple[list[Batch], Written | None]:
        """The same with the student's own answers, if it is the turn of such a step."""
        progress, plan, writer = self.progress, each.stage, self.writer
        if writer is None or not writer.own(progress.step_in_stage):
            return self._batches(each), None
        micro = micro_batch(plan, self.accelerator.num_processes, plan.name)
        batches, written = writer.batches(partial(self._drawn, each), progress, each.steps, micro)
        return self._ready(batches), written

    def _step(self, each: StageJob, wrapped: Any, optimizer: Any) -> None:
        accelerator, progress, plan = self.accelerator, self.progress, each.stage
        seed_step(self.job.seed, progress.step, accelerator.process_index)
        done = progress.step_in_stage / max(1, each.steps - 1)
        rate = learning_rate(plan, progress.step_in_stage, each.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batches, written = self._own(each)
        terms = self.distiller.terms
        weights = weights_now(terms, plan.balance, done, progress)
        if written is not None:
            weights = silenced(terms, weights)
        gradients = self._gradients(batches, weights, done)
        wrapped.train()
        now = Now(weights, done, plan.max_grad_norm, plan.gradient_penalty)
        told = optimizer_step(accelerator, wrapped, self.distiller, self.teacher, optimizer, batches, now)
        if written is not None:  # a label's own term says nothing of a text without labels
            told = replace(told, terms={t.label: told.terms[t.label] for t in terms if not t.reads_labels})
        if self.job.teacher is not None:
            self.job.teacher.update(self.job.student)
        progress.step_in_stage += 1
        progress.step += 1
        figures = None if written is None else written.figures()
        self.log.step(progress.step, plan.name, told, rate, figures, gradients)

    def _gradients(self, batches: Sequence[Batch], weights: Sequence[float], done: float) -> dict[str, Any] | None:
        """The terms' own gradients, if it is the turn of such a step."""
        every = self.job.training.gradient_cosine_steps
        if every is None or self.progress.step_in_stage % every:
            return None
        return term_gradients(self.distiller, self.teacher, self.accelerator, batches[0], weights, done)

    def _validate(self, each: StageJob) -> None:
        progress, size = self.progress, self.job.training.per_device_eval_batch_size
        metrics = validate(self.accelerator, self.job.student, self.job.codec, each.validation.features, size)
        # Where no term reads the answers, these tell nothing of what was learned: the last weights are kept.
        is_best = better(metrics, progress.best) or not self.distiller.asks_student.dist
        progress.patience = 0 if is_best else progress.patience + 1
        progress.stalls += not is_best
        if is_best:
            progress.best, progress.best_step = metrics, progress.step
            if self.accelerator.is_main_process:
                self.checkpoints.save_best(self.job.student, progress.step)
        if self.accelerator.is_main_process:
            self.log.answers(progress.step, each.stage.name, self.answers.of(each))
        self.accelerator.wait_for_everyone()
        self.log.evaluation(progress.step, each.stage.name, metrics, is_best)

    def _end(self, each: StageJob, optimizer: Any) -> None:
        """Go back to the stage's best weights and make them the next one's start."""
        progress = self.progress
        assert progress.best_step is not None
        self.checkpoints.load_best(self.job.student, progress.best_step)
        if each.stage.quantize is not None:
            from limbeck.models.quantize import settle

            settle(self.job.student)
        self.accelerator.wait_for_everyone()  # saving clears the best weights away
        progress.stage, progress.step_in_stage, progress.patience = progress.stage + 1, 0, 0
        found: dict[str, Any] = {"stage": each.stage.name, "best_step": progress.best_step, **(progress.best or {})}
        if progress.written is not None:
            found["on_policy"] = progress.written
        if each.stage.mixture is not None:
            found["mixture"] = self.order.told()
        if each.stage.prune is not None:
            found["sizes"] = progress.sizes
        progress.done.append(found)
        progress.best = progress.best_step = progress.scales = progress.losses = None
        progress.answers = progress.written = None
        progress.stalls = 0
        self._save(optimizer)

    def _stop(self) -> bool:
        """Whether any process was asked to stop; all must agree, or the others would wait for it for ever."""
        if self.accelerator.num_processes == 1:
            return self.stop_asked
        asked = torch.tensor(int(self.stop_asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum"))

    def _save(self, optimizer: Any) -> None:
        if self.accelerator.scaler is not None:
            self.progress.scaler = self.accelerator.scaler.state_dict()
        if self.accelerator.is_main_process:
            self.checkpoints.save(self.job.student, optimizer, self.progress, self._beside())
        self.accelerator.wait_for_everyone()

    @contextmanager
    def stopped_gently(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C: finish the step, save, and leave with status 143."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: Any) -> None:
            say("stopping after this step; the same command goes on from here")
            self.stop_asked = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
