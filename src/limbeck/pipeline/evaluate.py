"""evaluate: teacher, student and baseline on the same rows; predictions first, every score from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.recipe import Model, Teacher, dump_recipe
from limbeck.core.types import Sample
from limbeck.data.dataset import rows_seen
from limbeck.evaluation import efficiency, interpretability, robustness
from limbeck.evaluation.book import Book
from limbeck.evaluation.predict import answer, classify, joined, likelihood, of_rows
from limbeck.evaluation.predictions import Columns, Predictions, write
from limbeck.evaluation.scores import score
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._teaching import load_teachers, together
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.teachers.ensemble import EnsembleModel
from limbeck.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def evaluate(job: RunJob, made: Mapping[str, Artifact]) -> Artifact:
    """The artifact `evaluate`: `scores.json`, `details/`, and `predictions-<model>.parquet` for each model.

    Args:
        job: the run.
        made: the artifacts `train` and, where the recipe has them, `prepare` and `baseline`.
    """
    inputs = {"evaluate": dump_recipe(job.recipe.evaluate), **job.data_inputs(training=False)}
    return job.step("evaluate", inputs, made, lambda folder: _work(job, made, folder))


def _work(job: RunJob, made: Mapping[str, Artifact], folder: Path) -> Mapping[str, Any]:
    plan = job.recipe.evaluate
    samples = _rows(job, plan.split)
    rows = of_rows(samples, plan.slices)
    held = _rows(job, "validation") if plan.split == "test" else []
    models: dict[str, tuple[Any, Codec]] = {}
    folders: dict[str, Path] = {}
    notes: list[str] = []
    if "prepare" in made:
        models["teacher"], notes = _teacher(job, made["prepare"], samples)
    for name, step in (("student", "train"), ("baseline", "baseline")):
        if step in made:
            folders[name] = made[step].path / "student"
            models[name] = job.stored(folders[name], Model(model="student"))
    book = Book(plan)
    tables, validation = {}, {}
    for name, (model, codec) in models.items():
        tables[name] = _predict(job, name, model, codec, samples, rows)
        write(folder / f"predictions-{name}.parquet", tables[name])
        if held and codec.label_names is not None:
            validation[name] = _predict(job, name, model, codec, held, of_rows(held, ()))
            write(folder / f"predictions-{name}-validation.parquet", validation[name])
    notes += score(tables, plan, book, validation)
    seed, size = job.recipe.data.seed, job.recipe.training.per_device_eval_batch_size
    notes += _robustness(job, models, samples, book, [name for name, table in tables.items() if "correct" in table])
    if plan.interpretability is not None:
        shown = [row["id"] for row in book.details.get("examples", [])]
        notes += interpretability.measure(
            models, samples, plan.interpretability, book, seed=seed, batch_size=size, examples=shown
        )
    notes += efficiency.measure(models, samples, plan.speed, book, runs=plan.latency_runs, folders=folders)
    _leave(book, folder)
    lost = {name: dict(job.encode(samples, codec).counts) for name, (_, codec) in models.items()}
    hardware = {"device": str(next(models["student"][0].parameters()).device), "threads": torch.get_num_threads()}
    writes = isinstance(models["student"][1], CausalCodec)
    asked = f"{efficiency.NEW_TOKENS} new tokens each" if writes else "one row each"
    counts = {"rows": len(samples), "rows_also_trained_on": rows_seen(samples, job.trained_on()), "lost": lost}
    return {"counts": {**counts, "split": plan.split}, "hardware": hardware, "request": asked, "notes": notes}


def _rows(job: RunJob, split: str) -> Sequence[Sample]:
    """The rows of a split, or so many of them as are asked for."""
    plan = job.recipe.evaluate
    samples = job.splits.test if split == "test" else job.splits.validation
    if plan.max_samples is None or plan.max_samples >= len(samples):
        return samples
    drawn = np.random.default_rng(job.recipe.data.seed).permutation(len(samples))[: plan.max_samples]
    return [samples[i] for i in sorted(drawn)]


def _robustness(
    job: RunJob, models: Mapping[str, tuple[Any, Codec]], samples: Sequence[Sample], book: Book, graded: list[str]
) -> list[str]:
    """How those models do on worse rows whose answers are graded."""
    plan = job.recipe.evaluate.robustness
    if plan is None:
        return []
    if not graded:
        return ["robustness: answers are not graded"]

    def predict(name: str, rows: Sequence[Sample]) -> Columns:
        if not rows:
            return {"id": [], "prediction": [], "correct": []}
        return _predict(job, name, *models[name], rows, of_rows(rows, ())).columns

    return robustness.measure(graded, samples, plan, book, predict, seed=job.recipe.data.seed)


def _leave(book: Book, folder: Path) -> None:
    """The scores, and the tables that are too fine for them."""
    write_json(folder / "scores.json", book.rows())
    if book.details:
        (folder / "details").mkdir()
    for name, value in book.details.items():
        write_json(folder / "details" / f"{name}.json", value)


def _teacher(job: RunJob, prepared: Artifact, samples: Sequence[Sample]) -> tuple[tuple[Any, Codec], list[str]]:
    """The teacher and its codec; several classifiers answer together, as they taught. With it, what is to be noted."""
    spec = cast(Teacher, job.recipe.teacher)
    model, codec = job.teacher(prepared)
    if not spec.also:
        return (model, codec), []
    if isinstance(codec, CausalCodec):
        return (model, codec), [f"of {1 + len(spec.also)} teachers, the first one alone answers here"]
    members = [LocalTeacher(each, device()) for each, _ in load_teachers(job, prepared)]
    return (EnsembleModel(together(spec, members, samples)), codec), []


def _predict(
    job: RunJob,
    name: str,
    model: PreTrainedModel | EnsembleModel,
    codec: Codec,
    samples: Sequence[Sample],
    rows: Columns,
) -> Predictions:
    """What a model says of the samples, with what is known of the rows themselves."""
    plan, size = job.recipe.evaluate, job.recipe.training.per_device_eval_batch_size
    features = job.encode(samples, codec).features
    if not isinstance(codec, CausalCodec):
        said = classify(model, codec, features, size, f"{name} predictions")
        return Predictions(joined(said, rows), codec.label_names, f"the predictions of the {name}")
    assert not isinstance(model, EnsembleModel), "language models answer alone"
    said = likelihood(model, codec, features, size)
    if codec.task.answer_pattern is not None:
        title, most = f"{name} answers", plan.max_new_tokens
        said = joined(answer(model, codec, samples, batch_size=size, max_new_tokens=most, title=title), said)
    return Predictions(joined(rows, said), None, f"the predictions of the {name}")
