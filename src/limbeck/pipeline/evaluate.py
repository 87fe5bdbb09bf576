"""evaluate: teacher, student and the rest on the same rows; predictions first, every score from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model, Teacher, dump_recipe
from limbeck.core.types import Sample
from limbeck.data.dataset import rows_seen
from limbeck.evaluation import efficiency, harness, interpretability, robustness
from limbeck.evaluation.book import Book
from limbeck.evaluation.pictures import add_pictures
from limbeck.evaluation.predict import answer, classify, draws, joined, likelihood, of_rows
from limbeck.evaluation.predictions import Columns, Predictions, write
from limbeck.evaluation.scores import score
from limbeck.evaluation.served import ServedModel
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._teaching import load_teachers, routes, together
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from limbeck.teachers.ensemble import EnsembleModel
from limbeck.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.evaluation.predict import Measured


def evaluate(job: RunJob, made: Mapping[str, Artifact]) -> Artifact:
    """The artifact `evaluate`: `scores.json`, `details/`, and `predictions-<model>.parquet` for each model.

    Args:
        job: the run.
        made: the artifacts `train` and, where the recipe has them, `prepare`, `baseline` and `compress`.
    """
    inputs = {**inputs_of(job), **job.data_inputs(training=False)}
    return job.step("evaluate", inputs, made, lambda folder: _work(job, made, folder))


def inputs_of(job: RunJob) -> dict[str, Any]:
    """What figures depend on besides models and rows."""
    tasks = job.recipe.evaluate.harness
    found = {"harness": harness.fingerprint(tasks)} if tasks else {}
    return {"evaluate": dump_recipe(job.recipe.evaluate), **found}


def _work(job: RunJob, made: Mapping[str, Artifact], folder: Path) -> Mapping[str, Any]:
    samples = evaluated(job, job.recipe.evaluate.split)
    bench = Bench(job, samples, folder)
    if "prepare" in made:
        bench.models["teacher"], notes = _teacher(job, made["prepare"], samples)
        bench.notes += notes
    for name, step in (("student", "train"), ("baseline", "baseline")):
        if step in made:
            bench.models[name] = job.stored(made[step].path / "student", Model(model="student"))
    if "compress" in made and isinstance(job.task, CausalLM):
        bench.notes.append("the compressed student writes in another engine; compress/scores.json has its figures")
    elif "compress" in made:
        bench.models["compressed"] = served(job, made["compress"].path / "student")
    facts = bench.run()
    leave(bench.book, folder)
    seen = rows_seen(samples, job.trained_on())
    return {**facts, "counts": {**facts["counts"], "rows_also_trained_on": seen}}


class Bench:
    """Models side by side on the same rows: their predictions in files, and all figures in a book.

    Args:
        job: the run whose recipe says what is measured.
        samples: the rows.
        folder: where predictions are written.

    Attributes:
        models: by name, what is asked here, with its codec.
        tables: by name, predictions; those of models that are asked elsewhere are put here before.
        draws: by name, further answers to the same rows; as `tables`.
        book: takes the figures.
        notes: what could not be measured, a line each.
    """

    def __init__(self, job: RunJob, samples: Sequence[Sample], folder: Path):
        self.job, self.samples, self.folder, self.plan = job, samples, folder, job.recipe.evaluate
        self.models: dict[str, tuple[Any, Codec]] = {}
        self.tables: dict[str, Predictions] = {}
        self.draws: dict[str, Predictions] = {}
        self.book = Book(self.plan)
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Measure everything that the recipe asks for.

        Returns:
            What the manifest should tell.
        """
        validation = self._predictions()
        self.notes += score(self.tables, self.plan, self.book, validation, self.draws)
        if self.models:
            self._beyond_predictions()
        lost = {name: dict(self.job.encode(self.samples, codec).counts) for name, (_, codec) in self.models.items()}
        writes = isinstance(self.job.task, CausalLM)
        return {
            "counts": {"rows": len(self.samples), "lost": lost, "split": self.plan.split},
            "hardware": {"device": str(device()), "threads": torch.get_num_threads()},
            "request": f"{efficiency.NEW_TOKENS} new tokens each" if writes else "one row each",
            "notes": self.notes,
        }

    def _predictions(self) -> dict[str, Predictions]:
        """Write what all models say, and return what classifiers say of the validation rows."""
        rows = of_rows(self.samples, self.plan.slices)
        held = evaluated(self.job, "validation") if self.plan.split == "test" else []
        validation = {}
        for name, (model, codec) in self.models.items():
            self.tables[name] = _predict(self.job, name, model, codec, self.samples, rows)
            if held and codec.label_names is not None:
                validation[name] = _predict(self.job, name, model, codec, held, of_rows(held, ()))
                write(self.folder / f"predictions-{name}-validation.parquet", validation[name])
            if self.plan.samples is not None:
                self.draws[name] = _draw(self.job, name, model, codec, self.samples)
        for name, table in self.tables.items():
            write(self.folder / f"predictions-{name}.parquet", table)
        for name, table in self.draws.items():
            write(self.folder / f"predictions-{name}-draws.parquet", table)
        return validation

    def _beyond_predictions(self) -> None:
        """What recorded predictions do not tell: of models that are here."""
        job, plan, book, samples = self.job, self.plan, self.book, self.samples
        seed, size = job.recipe.data.seed, job.recipe.training.per_device_eval_batch_size
        graded = [name for name in self.models if "correct" in self.tables[name]]
        add_pictures(book.details.get("examples", []), samples)
        self.notes += _robustness(job, self.models, samples, book, graded)
        if plan.interpretability is not None:
            shown = [row["id"] for row in book.details.get("examples", [])]
            self.notes += interpretability.measure(
                self.models, samples, plan.interpretability, book, seed=seed, batch_size=size, examples=shown
            )
        self.notes += efficiency.measure(self.models, samples, plan.speed, book, runs=plan.latency_runs)
        if plan.harness:
            harness.measure(self.models, plan.harness, book, batch_size=size)


def served(job: RunJob, folder: Path) -> tuple[ServedModel, Codec]:
    """A student in another engine, with as many threads as torch has, and its codec: the recipe's task as for others.

    Raises:
        ModelError: it cannot be loaded, or its task is another.
    """
    model = ServedModel(folder, torch.get_num_threads())
    known, asked = (str(name).replace("-", "_") for name in (model.student.card.task["type"], job.task.type()))
    if known != asked:
        raise ModelError(f"the student in {folder} is for another task", got=known, allowed=asked)
    return model, job.task.codec(job.processor(Model(model=str(folder))), model.student.labels)


def evaluated(job: RunJob, split: str) -> Sequence[Sample]:
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
        model, codec = models[name]
        size, most = job.recipe.training.per_device_eval_batch_size, job.recipe.evaluate.max_new_tokens
        if isinstance(codec, CausalCodec):
            return answer(model, codec, rows, batch_size=size, max_new_tokens=most, title=None)
        _tell_routes(job, model, rows)
        return classify(model, codec, codec.encode(rows).features, size, None)

    return robustness.measure(graded, samples, plan, book, predict, seed=job.recipe.data.seed)


def leave(book: Book, folder: Path) -> None:
    """The scores, and the tables that are too fine for them."""
    write_json(folder / "scores.json", book.rows())
    if book.details:
        (folder / "details").mkdir(exist_ok=True)
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


def _tell_routes(job: RunJob, model: Any, rows: Sequence[Sample]) -> None:
    """Let an ensemble know which of its teachers has the domain of rows that it has not seen before."""
    if isinstance(model, EnsembleModel):
        model.teacher.routes |= routes(cast(Teacher, job.recipe.teacher), rows)


def _predict(
    job: RunJob,
    name: str,
    model: Measured,
    codec: Codec,
    samples: Sequence[Sample],
    rows: Columns,
) -> Predictions:
    """What a model says of the samples, with what is known of the rows themselves."""
    plan, size = job.recipe.evaluate, job.recipe.training.per_device_eval_batch_size
    features = job.encode(samples, codec).features
    if not isinstance(codec, CausalCodec):
        _tell_routes(job, model, samples)
        said = classify(model, codec, features, size, f"{name} predictions")
        return Predictions(joined(said, rows), codec.label_names, f"the predictions of the {name}")
    assert not isinstance(model, EnsembleModel | ServedModel), "language models answer alone, and in torch"
    said = likelihood(model, codec, features, size)
    if codec.task.answer_pattern is not None:
        title, most = f"{name} answers", plan.max_new_tokens
        said = joined(answer(model, codec, samples, batch_size=size, max_new_tokens=most, title=title), said)
    return Predictions(joined(rows, said), None, f"the predictions of the {name}")


def _draw(job: RunJob, name: str, model: PreTrainedModel, codec: Codec, samples: Sequence[Sample]) -> Predictions:
    """Answers drawn from a language model."""
    assert isinstance(codec, CausalCodec), "the recipe sees to it"
    size, seed = job.recipe.training.per_device_eval_batch_size, job.recipe.data.seed
    title = f"{name} draws"
    said = draws(model, codec, samples, job.recipe.evaluate, batch_size=size, seed=seed, title=title)
    return Predictions(said, None, f"the answers drawn from the {name}")
