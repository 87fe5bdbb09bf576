"""tune: train the student with other values of the recipe's keys, and keep those that do best on validation rows."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact, digest_of, locked, write_atomically, write_json
from limbeck.core.errors import RecipeError, TrainingError
from limbeck.core.progress import bar, say
from limbeck.core.recipe import Recipe, Tune, dump_recipe, load_recipe
from limbeck.core.yaml import apply_overrides, read_yaml
from limbeck.pipeline.prepare import prepare
from limbeck.pipeline.train import train_student
from limbeck.pipeline.tuning.candidates import Candidates, TrialJob
from limbeck.pipeline.tuning.figure import Point, search_figure, short_names
from limbeck.pipeline.tuning.rewrite import plain, rewrite
from limbeck.pipeline.tuning.samplers import Tried, Values, make_sampler
from limbeck.training.engine import processes


@dataclass(frozen=True)
class Trial:
    """One training with its values.

    Attributes:
        number: counted from 1.
        values: by path.
        metrics: of the last stage's best weights, on the validation rows; None if the training failed.
        rows: how many rows these are.
        reason: why it failed.
        seconds: of its training.
        folder: where it lies, below the study's folder.
    """

    number: int
    values: Values
    metrics: dict[str, float] | None
    rows: int | None
    reason: str | None
    seconds: float
    folder: str


@dataclass(frozen=True)
class TuneReport:
    """What a search found.

    Attributes:
        output: the study's folder, with `trials.json`, `trials.csv`, `tune.svg` and `best.yaml`.
        metric: what decided.
        trials: in the order in which they ran.
        best: the one with the best metric; among equals the one with the lower loss, then the earlier one.
        standard_error: of the best one's accuracy; differences of about this size say nothing. None for losses.
    """

    output: Path
    metric: str
    trials: tuple[Trial, ...]
    best: Trial
    standard_error: float | None

    @property
    def recipe(self) -> Path:
        """The recipe with the best values."""
        return self.output / "best.yaml"

    def ranked(self) -> list[Trial]:
        """Best first, failed ones last."""
        return sorted(self.trials, key=lambda trial: _merit(trial, self.metric), reverse=True)

    def tied(self, trial: Trial) -> bool:
        """Whether a trial lies within one standard error of the best."""
        if trial.metrics is None or self.best.metrics is None or self.standard_error is None:
            return False
        return self.best.metrics[self.metric] - trial.metrics[self.metric] <= self.standard_error


def tune(
    recipe: Mapping[str, Any] | str | Path, overrides: Iterable[str] = (), *, trials: int | None = None
) -> TuneReport:
    """Search the values that a recipe's `tune` section names, on the validation rows.

    The teacher is prepared once. A trial is the recipe with other values, run until the student is trained; one that
    is finished is never run again, and one that was killed goes on where it stopped. Test rows are not read.

    Args:
        recipe: a file or a mapping with the same content.
        overrides: settings of the form `key.path=value`.
        trials: how many, in place of `tune.trials`.

    Raises:
        RecipeError: there is nothing to search, or a trial's recipe would be refused; told before any compute.
        MissingExtra: `sampler: tpe` without Optuna.
        TrainingError: every trial failed.
    """
    overrides = [*overrides, *([] if trials is None else [f"tune.trials={trials}"])]
    text, given = _read(recipe)
    if given.get("tune") is None:
        fix = "tune: {space: {stages.0.terms.kl.temperature: {start: 1, stop: 8, step: 1}}}"
        raise RecipeError("there is nothing to search: the recipe has no `tune` section", fix=fix)
    loaded = load_recipe(recipe, overrides)
    if loaded.generate:
        what = "a search trains on the given rows, and does not `generate`"
        raise RecipeError(what, fix="generate first, and name rows of that kind: data.train, generate=null")
    plan = loaded.tune
    assert plan is not None
    study = _Study(plan, Candidates(apply_overrides(given, overrides), plan))
    found = study.run()
    write_atomically(found.recipe, rewrite(text, study.candidates.raw(found.best.values)))
    return found


def _read(recipe: Mapping[str, Any] | str | Path) -> tuple[str, dict[str, Any]]:
    """The recipe as it was written, as text and as a mapping."""
    if isinstance(recipe, Recipe):
        what = "a loaded recipe has every default spelled out, so that `training` no longer reaches its stages"
        raise RecipeError(what, fix="give the file, or the mapping that it was made from")
    if isinstance(recipe, Mapping):
        given = json.loads(json.dumps(dict(recipe), default=str))  # folders may be given as paths
        return plain(given), given
    return Path(recipe).read_text(encoding="utf-8") if Path(recipe).is_file() else "", read_yaml(Path(recipe))


class _Study:
    """A search under way."""

    def __init__(self, plan: Tune, candidates: Candidates):
        self.plan, self.candidates = plan, candidates
        self.job = candidates.study
        self.output = self.job.output / "tune"
        self.metric = _metric(plan, self.job.task.unit)
        self.trials: list[Trial] = []

    def run(self) -> TuneReport:
        """All trials."""
        if processes().num_processes > 1:
            raise RecipeError("a search runs in one process", got=f"{processes().num_processes} processes")
        sampler = make_sampler(self.plan)
        self.candidates.check()
        with locked(self.job.output), bar(None) as progress:
            task = progress.add_task("tune", total=sampler.total, figures="")
            prepared = prepare(self.job)
            for number in range(1, sampler.total + 1):
                tried = [Tried(trial.values, _score(trial, self.metric)) for trial in self.trials]
                self.trials.append(self._try(number, sampler.values(tried), prepared))
                say(f"trial {number} of {sampler.total}: {self._line(self.trials[-1])}")
                self._write()
                progress.update(task, advance=1, figures=f"best {self._line(self._best())}")
            report = self._report()
            self._draw(report)
        return report

    def _try(self, number: int, values: Values, prepared: Artifact | None) -> Trial:
        """One trial, unless it is finished, or failed before with the same inputs."""
        name = f"trials/{digest_of(values)[:12]}"
        job = self.candidates.trial(values, self.output / name)
        failed, began = job.output / "failed.json", time.monotonic()
        if failed.exists():
            before = json.loads(failed.read_text(encoding="utf-8"))
            if before["made_from"] == self.candidates.made_from(values, prepared):
                return Trial(number, values, None, None, before["reason"], before["seconds"], name)
            failed.unlink()
        job.output.mkdir(parents=True, exist_ok=True)
        write_json(job.output / "recipe.json", dump_recipe(job.recipe))
        try:
            made = train_student(job, prepared).manifest
        except TrainingError as error:  # these values cannot be trained with; the others may
            reason = "; ".join(line.strip() for line in str(error).splitlines())
            seconds = round(time.monotonic() - began, 3)
            made_from = self.candidates.made_from(values, prepared)
            write_json(failed, {"reason": reason, "made_from": made_from, "seconds": seconds})
            return Trial(number, values, None, None, reason, seconds, name)
        metrics = {key: made["best"][-1][key] for key in ("accuracy", "loss") if key in made["best"][-1]}
        return Trial(number, values, metrics, _rows(job, made), None, made["seconds"], name)

    def _best(self) -> Trial:
        return max(self.trials, key=lambda trial: _merit(trial, self.metric))  # the first one among equals

    def _line(self, trial: Trial) -> str:
        names = short_names(self.plan.space)
        told = "  ".join(f"{names[key]} {json.dumps(value)}" for key, value in trial.values.items())
        if trial.metrics is None:
            return f"{told}  failed: {trial.reason}"
        return f"{told}  {self.metric} {trial.metrics[self.metric]:.4f}"

    def _report(self) -> TuneReport:
        best = self._best()
        if best.metrics is None:
            raise TrainingError("every trial failed", got=best.reason, fix="search smaller learning rates or weights")
        return TuneReport(self.output, self.metric, tuple(self.trials), best, standard_error(best, self.metric))

    def _write(self) -> None:
        """What is known so far, as JSON and as a table."""
        rows = [asdict(trial) for trial in self.trials]
        plan = self.plan.model_dump(mode="json")
        write_json(self.output / "trials.json", {"metric": self.metric, "tune": plan, "trials": rows})
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["trial", *self.plan.space, "accuracy", "loss", "seconds", "failed"])
        for trial in self.trials:
            values = [value if isinstance(value, str) else json.dumps(value) for value in trial.values.values()]
            scores = [(trial.metrics or {}).get(key, "") for key in ("accuracy", "loss")]
            writer.writerow([trial.number, *values, *scores, trial.seconds, trial.reason or ""])
        write_atomically(self.output / "trials.csv", table.getvalue())

    def _draw(self, report: TuneReport) -> None:
        points = {t.number: Point(t.values, t.metrics[self.metric]) for t in report.trials if t.metrics is not None}
        best = points[report.best.number]
        svg = search_figure(self.plan.space, list(points.values()), best, self.metric, report.standard_error)
        write_atomically(self.output / "tune.svg", svg)


def standard_error(trial: Trial, metric: str) -> float | None:
    """Of an accuracy p over n rows, sqrt(p (1 - p) / n); None for a loss, whose spread over rows is not recorded."""
    if metric != "accuracy" or trial.metrics is None or not trial.rows:
        return None
    share = trial.metrics["accuracy"]
    return math.sqrt(share * (1 - share) / trial.rows)


def _metric(plan: Tune, unit: str) -> str:
    """What decides: what the recipe says, else accuracy where a student is a classifier."""
    if unit == "samples":
        return plan.metric or "accuracy"
    if plan.metric == "accuracy":
        what = "a language model's answers are not graded while it is trained, so there is no accuracy to search by"
        raise RecipeError(what, fix="tune.metric=loss")
    return "loss"


def _score(trial: Trial, metric: str) -> float | None:
    """A trial's metric, higher is better."""
    if trial.metrics is None:
        return None
    return trial.metrics[metric] if metric == "accuracy" else -trial.metrics[metric]


def _merit(trial: Trial, metric: str) -> tuple[float, float]:
    """Sorts trials from worst to best."""
    score = _score(trial, metric)
    return (-math.inf, -math.inf) if trial.metrics is None or score is None else (score, -trial.metrics["loss"])


def _rows(job: TrialJob, made: Mapping[str, Any]) -> int:
    """How many validation rows the last stage was scored on."""
    last = job.recipe.stages[-1]
    rows = made["counts"]["validation"] if last.data is None else len(job.stage_splits(last.data).validation)
    return int(rows - sum(made["counts"]["lost"][last.name]["validation"].values()))
