"""measure: any models side by side, on a recipe's rows or by answers that were recorded elsewhere.

<output>/scores.json, details/, predictions-<model>.parquet   as the step `evaluate` leaves them
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from limbeck.core import artifacts
from limbeck.core.artifacts import Artifact, sha256_of
from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.progress import say
from limbeck.core.recipe import Endpoint, Evaluate, Generate, Model, Recipe, Writer, dump_recipe
from limbeck.core.recipe.load import lines_of
from limbeck.core.types import Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.endpoint import answered
from limbeck.evaluation.metrics._base import TEACHER
from limbeck.evaluation.predict import joined, of_rows
from limbeck.evaluation.predictions import Predictions, check_file, read_elsewhere, write
from limbeck.evaluation.scores import score
from limbeck.evaluation.served import is_served
from limbeck.generation.budget import Amount, Budget
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Completion
from limbeck.models.load import check_length, load_config, load_model, origin
from limbeck.pipeline._ahead import check_evaluate
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._writers import WriterAtWork, asked
from limbeck.pipeline.evaluate import Bench, evaluated, inputs_of, leave, served
from limbeck.pipeline.run import find_score
from limbeck.tasks import Codec, class_names
from limbeck.tasks.causal_lm import CausalLM

_INSIDE = ("", "student", "teacher", "train/student")
"""Where a model may lie in a folder that is given: it is the model or an export, an artifact with it, or a run."""
_ENDINGS = ("", "-validation", "-draws")
"""Of the names of a model's tables of predictions."""


@dataclass(frozen=True)
class Measured:
    """What a measurement left behind.

    Attributes:
        folder: the artifact.
        scores: figures as in its `scores.json`.
    """

    folder: Path
    scores: list[dict[str, Any]]

    def score(self, model: str, name: str) -> float:
        """One figure, for instance `score("small", "accuracy")`."""
        return find_score(self.scores, model, name)


@dataclass(frozen=True)
class Asking:
    """How models behind addresses are asked.

    Attributes:
        template: what is asked, with `{prompt}` in the prompt's place.
        budget: what each of them may cost, over all runs together: `tokens`, `cost`.
    """

    template: str = "{prompt}"
    budget: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A model with weights of its own, found.

    Attributes:
        spec: what is loaded.
        artifact: what it is part of, if a run has made it.
    """

    spec: Model
    artifact: Artifact | None = None


def measure_models(
    recipe: Recipe,
    models: Mapping[str, str | Endpoint],
    output: Path,
    *,
    against: str | None = None,
    asking: Asking | None = None,
    force: bool = False,
) -> Measured:
    """Measure models on a recipe's rows; nothing is trained.

    Args:
        recipe: task, rows, and what is measured.
        models: by name, a folder (of a model, of an artifact, of a run), a hub name, or an endpoint.
        output: the artifact's folder.
        against: the model that the others are compared with.
        asking: how endpoints are asked.
        force: measure again what is up to date. Answers that were paid for are not asked again.

    Raises:
        RecipeError: a name is not right, or an endpoint cannot do the task.
        ModelError: a model cannot be loaded, does not fit the rows, or left rows unanswered.
        LimbeckError: see `limbeck.core.errors`.
    """
    _check_names(models, against)
    check_evaluate(recipe)
    job, how = RunJob(recipe, force), asking or Asking()
    behind = {name: _behind(job, name, spec, how) for name, spec in models.items() if isinstance(spec, Endpoint)}
    here = {name: placed(spec) for name, spec in models.items() if isinstance(spec, str)}
    inputs = {
        **inputs_of(job),
        **job.data_inputs(training=False),
        "models": {
            **{name: writer.identity for name, writer in behind.items()},
            **{name: origin(each.spec).fingerprint for name, each in here.items() if each.artifact is None},
        },
        "order": list(models),
        "against": against,
        "template": how.template if behind else None,
    }

    def work(folder: Path) -> Mapping[str, Any]:
        bench = Bench(job, evaluated(job, recipe.evaluate.split), folder)
        for name, writer in behind.items():
            _ask(bench, name, writer, _role(name, against))
        for name, each in here.items():
            bench.models[_role(name, against)] = _loaded(job, name, each.spec, bench.samples)
        facts = bench.run()
        _finish(bench.book, folder, against)
        return _called(facts, against)

    return _step(output, inputs, {name: each.artifact for name, each in here.items() if each.artifact}, work, force)


def measure_predictions(
    tables: Mapping[str, Path],
    output: Path,
    *,
    against: str | None = None,
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    plan: Evaluate | None = None,
    force: bool = False,
) -> Measured:
    """Score predictions that were recorded elsewhere; no model is needed.

    Args:
        tables: by the model's name, a file as `read_elsewhere` takes it.
        output: the artifact's folder.
        against: the model that the others are compared with.
        columns: by their meaning, the files' own names; `{model}` in one stands for the model's name.
        classes: of classifiers; names of the probabilities, in their order.
        plan: which metrics, and the level of their intervals.
        force: score again what is up to date.

    Raises:
        RecipeError: a name is not right.
        DataError: a file cannot be read, lacks a column, or is about other samples than the rest.
    """
    _check_names(tables, against)
    for path in tables.values():
        check_file(path)
    chosen = plan or Evaluate()
    inputs = {
        "predictions": {name: sha256_of(path) for name, path in tables.items()},
        "order": list(tables),
        "against": against,
        "columns": dict(columns or {}),
        "classes": None if classes is None else list(classes),
        "evaluate": dump_recipe(chosen),
    }

    def work(folder: Path) -> Mapping[str, Any]:
        read = {
            _role(name, against): read_elsewhere(path, _columns(columns, name), classes)
            for name, path in tables.items()
        }
        book = Book(chosen)
        notes = score(read, chosen, book)
        for name, table in read.items():
            write(folder / f"predictions-{name}.parquet", table)
        _finish(book, folder, against)
        return {"counts": {"rows": {name: len(read[_role(name, against)]) for name in tables}}, "notes": notes}

    return _step(output, inputs, {}, work, force)


def endpoint_at(where: str | Mapping[str, Any], api_key: str | None = None) -> Endpoint:
    """An endpoint out of `https://host/v1#model`, or out of a recipe's section for one.

    Args:
        where: the address with the model's name behind `#`, or the section.
        api_key: name of the environment variable that holds the key, where a section does not name it.

    Raises:
        RecipeError: it is none.
    """
    if isinstance(where, str):
        address, _, model = where.partition("#")
        if not model:
            raise RecipeError("the address does not say which model is asked", fix="https://HOST/v1#MODEL")
        where = {"base_url": address, "model": model}
    try:
        return Endpoint.model_validate({"api_key": api_key, **where})
    except ValidationError as error:  # without its cause, which would repeat what was given, perhaps a key
        raise RecipeError("that is no endpoint:\n" + "\n".join(lines_of(error.errors()))) from None


def _check_names(names: Mapping[str, Any], against: str | None) -> None:
    """Names stand in files' names, and one role is taken by `against`."""
    if wrong := [name for name in names if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(_ENDINGS[1:])]:
        allowed = f"letters, digits, `_`, `.` and `-`; not {' or '.join(_ENDINGS[1:])} at the end"
        raise RecipeError("files cannot be named after a model", got=", ".join(wrong), allowed=allowed)
    if against is not None and against not in names:
        raise RecipeError("the model to compare with is not among the models", got=against, allowed=", ".join(names))
    if against not in (None, TEACHER) and TEACHER in names:
        what = f"a model named `{TEACHER}` is what the others are compared with"
        raise RecipeError(what, got=against, fix="give it another name, or leave out what to compare with")


def _role(name: str, against: str | None) -> str:
    """A model's name while it is measured: metrics compare with the teacher."""
    return TEACHER if name == against else name


def _finish(book: Book, folder: Path, against: str | None) -> None:
    """Leave scores and details, with the model that played the teacher under its own name."""
    if against not in (None, TEACHER):
        name = str(against)
        book.scores = [replace(row, model=name) if row.model == TEACHER else row for row in book.scores]
        book.details = {title: _named(value, name) for title, value in book.details.items()}
        for ending in _ENDINGS:
            if (path := folder / f"predictions-{TEACHER}{ending}.parquet").exists():
                path.rename(path.with_name(f"predictions-{name}{ending}.parquet"))
    leave(book, folder)


def _called(facts: Mapping[str, Any], against: str | None) -> dict[str, Any]:
    """Facts that name the model which played the teacher by its own name."""
    if against in (None, TEACHER):
        return dict(facts)
    counts = {**facts["counts"], "lost": _named(facts["counts"]["lost"], str(against))}
    return {**facts, "counts": counts, "notes": [re.sub(rf"\b{TEACHER}\b", str(against), n) for n in facts["notes"]]}


def _columns(columns: Mapping[str, str] | None, name: str) -> dict[str, str]:
    return {meaning: column.replace("{model}", name) for meaning, column in (columns or {}).items()}


def _named(detail: Any, name: str) -> Any:
    """A detail by models, or rows of them; the two sides of an example are roles, and stay."""
    if isinstance(detail, list):
        return [{**row, "model": name} if row.get("model") == TEACHER else row for row in detail]
    return {name if key == TEACHER else key: value for key, value in detail.items()}


def _step(
    output: Path,
    inputs: Mapping[str, Any],
    parents: Mapping[str, Artifact],
    work: Callable[[Path], Mapping[str, Any]],
    force: bool,
) -> Measured:
    place = Path(os.path.abspath(output))
    made, done = artifacts.step(place.parent, place.name, inputs=inputs, parents=parents, work=work, force=force)
    if not done:
        say(f"{output}: up to date")
    return Measured(output, json.loads(made.file("scores.json").read_text(encoding="utf-8")))


def placed(where: str) -> Placed:
    """A model out of a folder, with the artifact that it is part of; else a hub name.

    Args:
        where: a folder of a model, of an artifact or of a run, or a hub name.

    Raises:
        ModelError: the folder holds no model.
    """
    place = Path(where).expanduser()
    if not place.is_dir():
        return Placed(Model(model=where))
    for folder in (place / inside for inside in _INSIDE):
        if (folder / "config.json").is_file():
            made = next((each for each in (folder, folder.parent) if (each / artifacts.MANIFEST).is_file()), None)
            return Placed(Model(model=str(folder)), artifacts.load(made) if made else None)
    allowed = "a Hugging Face folder, an artifact `train`, `prepare`, `compress` or of an export, or a run's folder"
    raise ModelError(f"there is no model in {where}", allowed=allowed)


def _loaded(job: RunJob, name: str, spec: Model, samples: Sequence[Sample]) -> tuple[Any, Codec]:
    """A model in evaluation mode and its codec; a classifier keeps its own order of classes."""
    if is_served(Path(str(spec.model))):
        quick, codec = served(job, Path(str(spec.model)))
        _same_classes(job, name, codec.label_names)
        return quick, codec
    names = None if job.splits.label_names is None else class_names(load_config(spec))
    _same_classes(job, name, names)
    codec = job.task.codec(job.processor(spec), names)
    model = load_model(spec, job.task.auto_class, settings=codec.settings())
    check_length(model, max((f.length for f in job.encode(samples, codec).features), default=0), name)
    torch.nn.Module.to(model, device())
    return model.eval(), codec


def _same_classes(job: RunJob, name: str, names: tuple[str, ...] | None) -> None:
    known = job.splits.label_names
    if known is not None and names is not None and set(names) != set(known):
        shown = (f"{who}: {', '.join(some[:6])} ({len(some)})" for who, some in ((name, names), ("data", known)))
        raise ModelError(f"{name} knows other classes than the data", got="; ".join(shown))


def _behind(job: RunJob, name: str, endpoint: Endpoint, how: Asking) -> WriterAtWork:
    """Who is asked, as for a data stage: greedy, and on an account of its own."""
    if type(job.task) is not CausalLM or job.task.answer_pattern is None:
        what = f"{name} is behind an address, which gives text: it can only be asked for answers that are graded"
        raise RecipeError(what, got=job.task.type(), allowed="causal-lm with an answer_pattern")
    sampling = {"temperature": 0.0, "max_tokens": job.recipe.evaluate.max_new_tokens}
    fields = {"name": f"evaluate-{name}", "template": how.template, "budget": how.budget, "sampling": sampling}
    try:
        stage = Generate.model_validate(fields)
    except ValidationError as error:
        raise RecipeError("addresses cannot be asked like that:\n" + "\n".join(lines_of(error.errors()))) from None
    return WriterAtWork(job, None, Writer(endpoint=endpoint), stage)


def _ask(bench: Bench, name: str, writer: WriterAtWork, role: str) -> None:
    """Have an endpoint answer the rows; what is in the ledger is not asked again."""
    job, stage, task, plan = bench.job, writer.stage, bench.job.task, bench.plan
    assert isinstance(task, CausalLM), "see _behind"
    drawn = writer.sampling(temperature=plan.temperature, top_p=plan.top_p)
    requests = [
        writer.request(s.id, number, asked(stage, s.inputs["messages"]), drawn if number else writer.sampling())
        for number in range(1 + (plan.samples or 0))
        for s in bench.samples
    ]
    budget = Budget(stage.budget.tokens, stage.budget.cost)
    with Ledger(job.ledger) as ledger:
        found = generate(writer.generator, requests, ledger, budget=budget, scope=stage.name, title=f"{name}: answers")
    rows, outcomes = list(bench.samples), [found[request.key] for request in requests]
    first = answered(rows, outcomes[: len(rows)], task, name)
    bench.tables[role] = Predictions(joined(of_rows(rows, plan.slices), first), None, f"the predictions of {name}")
    if plan.samples is not None:
        numbers = [request.sample for request in requests[len(rows) :]]
        further = answered(rows * plan.samples, outcomes[len(rows) :], task, name, numbers)
        bench.draws[role] = Predictions(further, None, f"the answers drawn from {name}")
    bench.notes.append(f"{name} is behind an address: it is asked for the rows as they are, and for nothing else")
    endpoint = writer.endpoint
    if endpoint is not None and (endpoint.price.input or endpoint.price.output):
        paid = [each for each in outcomes if isinstance(each, Completion)]
        total = sum((writer.price.of(each.prompt_tokens, each.completion_tokens) for each in paid), Amount())
        cost = 1000 * total.cost / max(len(paid), 1)
        bench.book.exact(role, "efficiency", "price_per_1000", endpoint.currency, cost, len(paid))
