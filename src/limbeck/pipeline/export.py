"""export: the student in other formats, each loaded back and compared with the student before it is kept.

<output>/export/<name>/    manifest, limbeck.json (the card), the model's file, config, tokenizer or preprocessor
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np

from limbeck.core import artifacts
from limbeck.core.artifacts import MANIFEST, Artifact, locked
from limbeck.core.errors import ArtifactError, DataError, ModelError, RecipeError
from limbeck.core.parts import config_of
from limbeck.core.parts import names as names_of
from limbeck.core.progress import say
from limbeck.core.recipe import Data, dump_recipe, load_recipe
from limbeck.core.recipe.ship import check_exports
from limbeck.core.types import Sample
from limbeck.data.dataset import content_digest
from limbeck.data.sources._base import Source
from limbeck.evaluation.efficiency.latency import latencies
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.exporters import Exporter
from limbeck.exporters._parity import Parity, compare, probabilities, refuse, spread
from limbeck.models.load import folder_digest
from limbeck.pipeline._job import RunJob
from limbeck.report.formats import size
from limbeck.runtime.card import Card, write_card
from limbeck.runtime.example import made_up
from limbeck.runtime.guess import card_of
from limbeck.runtime.student import ServedStudent, codec_of, load_student, runner_of, task_in
from limbeck.runtime.torch_runner import on_threads

PLACE = "export"
"""The exports of a run are in this folder of it."""
ROWS = 64
"""Rows that a student and its export are compared on."""
RUNS = 20
"""Timed requests."""
_FITTED_ON = 2048
"""Rows that a temperature is fitted on, at most."""


@dataclass(frozen=True)
class Trained:
    """A student that is to be exported.

    Attributes:
        folder: its weights.
        card: how it is asked.
        rows: real rows of its task, or made-up ones.
        made_up: whether they are.
        parents: artifacts that it comes from.
        inputs: what else an export depends on.
        calibrated: whether the card's temperature has been fitted already; if not, it is fitted on the rows.
    """

    folder: Path
    card: Card
    rows: Sequence[Sample]
    made_up: bool = False
    parents: Mapping[str, Artifact] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = False


def export(job: RunJob, made: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts `export/<name>` of a recipe, by name.

    Args:
        job: the run.
        made: the artifacts `train` or `compress`, and `evaluate` where there is one.

    Raises:
        ModelError: an export says something else than the student, or cannot be made.
        MissingExtra: its tool is not installed.
    """
    if not job.recipe.export:
        return {}
    student = trained(job, made)
    exporters = [cast(Exporter, each) for each in job.recipe.export]
    return {f"export/{each.folder}": export_one(student, each, job.output / PLACE, job.force) for each in exporters}


def trained(job: RunJob, made: Mapping[str, Artifact]) -> Trained:
    """The student of a run: compressed if it was, else as it was trained."""
    source = "compress" if "compress" in made else "train"
    folder, task = made[source].path / "student", dump_recipe(job.recipe)["task"]
    card = Card(task=task, labels=job.label_names)
    temperature = None
    if source == "compress":
        card = card_of(folder, task)
    elif "evaluate" in made and made["evaluate"].manifest["parents"].get("train") == made["train"].digest:
        temperature = _fitted_before(made["evaluate"])  # of an older student's evaluation it would be another's
    return Trained(
        folder=folder,
        card=card if temperature is None else replace(card, temperature=temperature),
        rows=job.splits.validation,
        parents={source: made[source]},
        inputs={"temperature": temperature, **job.data_inputs(training=False)},
        calibrated=source == "compress" or temperature is not None,
    )


def _fitted_before(evaluated: Artifact) -> float | None:
    """The student's temperature, if `evaluate` has fitted one."""
    scores = json.loads(evaluated.file("scores.json").read_text(encoding="utf-8"))
    wanted = ("student", "calibration", "temperature")
    found = [row["value"] for row in scores if (row["model"], row["axis"], row["name"]) == wanted]
    return float(found[0]) if found else None


def export_at(
    where: Path,
    exporters: Sequence[Exporter],
    *,
    output: Path | None = None,
    task: dict[str, Any] | None = None,
    rows: Path | None = None,
    force: bool = False,
) -> dict[str, Artifact]:
    """Export the student of a run, or one in a folder.

    Args:
        where: a run's folder, or a Hugging Face folder.
        exporters: into what; none: what the run's recipe says.
        output: the artifacts are `<output>/<name>`; left out: `export` in the run, or here.
        task: of a folder without a card; left out: what its config tells.
        rows: a file with real rows of a folder's task; left out: made-up ones.
        force: export again what is up to date.

    Raises:
        RecipeError: nothing says into what, or a run is given what it knows itself.
        ArtifactError: the run has no student yet.
        LimbeckError: as `export_one`.
    """
    is_run = (where / "recipe.json").is_file()
    if is_run and (task is not None or rows is not None):
        raise RecipeError("a run knows its task and has rows", fix="leave out task and rows")
    if is_run:
        job, there = opened(where, force)
        exporters = exporters or [cast(Exporter, each) for each in job.recipe.export]
        student = trained(job, there)
    else:
        student = plain_folder(where, task, rows)
    if not exporters:
        raise RecipeError("nothing says what the student is exported to", allowed=", ".join(names_of("exporter")))
    try:
        check_exports(list(exporters))
    except ValueError as error:
        raise RecipeError(str(error)) from error
    place = output or (where / PLACE if is_run else Path(PLACE))
    with locked(where if is_run and output is None else place):
        return {each.folder: export_one(student, each, place, force) for each in exporters}


def opened(run: Path, force: bool = False) -> tuple[RunJob, dict[str, Artifact]]:
    """A finished run, and what it has made of its student.

    Args:
        run: its folder.
        force: do again what is up to date.

    Raises:
        ArtifactError: it has no student yet, or its compressed one is made of another.
    """
    recipe = load_recipe(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    job = RunJob(recipe.model_copy(update={"output": run}), force)
    names = ("train", *(["compress"] if recipe.compress is not None else []), "evaluate")
    there = {name: artifacts.load(run / name) for name in names if (run / name / MANIFEST).is_file()}
    if "train" not in there:
        raise ArtifactError(f"{run} has no student yet", fix="limbeck train RECIPE")
    if "compress" in there and there["compress"].manifest["parents"]["train"] != there["train"].digest:
        what = f"{run}/compress was made from another student than {run}/train holds now"
        raise ArtifactError(what, fix=f"limbeck compress {run}")
    return job, there


def plain_folder(folder: Path, task: dict[str, Any] | None, file: Path | None) -> Trained:
    """A Hugging Face folder, or one with a card, that no run has made.

    Args:
        folder: of the student.
        task: what it does, as recipes say it; left out: what its card or its config tells.
        file: real rows of its task; left out: made-up ones, and no temperature is fitted.
    """
    card = card_of(folder, task)
    rows = None if file is None else read_rows(file, card)
    given = rows if rows is not None else made_up(codec_of(folder, card), ROWS)
    has_labels = rows is not None and any(row.target is not None for row in rows)
    content = [[row.id, content_digest([row.inputs, row.target]).hex()] for row in given]
    return Trained(
        folder=folder,
        card=card,
        rows=given,
        made_up=rows is None,
        inputs={"weights": folder_digest(folder), "task": card.task, "rows": artifacts.digest_of(content)},
        calibrated=not has_labels,
    )


def read_rows(file: Path, card: Card) -> list[Sample]:
    """Rows of a card's task from a file whose columns are named as the task's roles; classes may be left out.

    Raises:
        DataError: the file cannot be read, or a column is missing or malformed.
    """
    task = task_in(card)
    table = cast(Source, Data(train=str(file)).train).load("train")
    found = []
    for i, row in enumerate(table.rows):
        where = f"{file}, row {i}"
        fields = {role: row[role] for role in task.roles if row.get(role) is not None}
        lacking = [role for role, wanted in task.roles.items() if wanted and role not in fields and role != "label"]
        if lacking:
            raise DataError(f"{where} has no `{lacking[0]}`", got=", ".join(row), allowed=", ".join(task.roles))
        if card.labels is not None:
            fields["label"] = _class_of(fields.get("label"), card.labels, where)
        inputs, target, meta = task.read(fields, where)
        found.append(Sample(f"row-{i}", inputs, target, meta))
    if not found:
        raise DataError(f"{file} has no rows")
    return found


def _class_of(given: Any, labels: Sequence[str], where: str) -> str | None:
    """A row's class, by name or by number; None where the row does not tell.

    Raises:
        DataError: the student does not know it.
    """
    if given is None or str(given) in labels:
        return None if given is None else str(given)
    if str(given).isdecimal() and int(given) < len(labels):
        return labels[int(given)]
    raise DataError(f"{where} has a class that the student does not know", got=given, allowed=", ".join(labels[:12]))


def export_one(student: Trained, exporter: Exporter, place: Path, force: bool = False) -> Artifact:
    """One export.

    Args:
        student: what is exported.
        exporter: into what.
        place: the artifact is `<place>/<name>`; it is not there if it would differ too much.
        force: export again what is up to date.

    Raises:
        ModelError: it says something else than the student, or cannot be made.
        MissingExtra: its tool is not installed.
    """
    exporter.check(student.card)
    name = exporter.folder
    inputs = {
        "exporter": config_of(exporter),
        "tools": {tool.package: _version(tool.package) for tool in exporter.tools},
        **student.inputs,
    }
    say(f"[bold]export/{name}[/bold]")
    work = partial(_work, student, exporter)
    made, done = artifacts.step(place, name, inputs=inputs, parents=student.parents, work=work, force=force)
    say(f"export/{name}: {_sentence(made.manifest) if done else 'up to date'}")
    return made


def _version(package: str) -> str:
    try:
        return version(package.replace("_", "-"))
    except PackageNotFoundError:
        return "unknown"


def _sentence(told: Mapping[str, Any]) -> str:
    return (
        f"{''.join(size(told['bytes']))}, same answers {told['same_answers']:.1%} of {told['answers']:,}, "
        f"largest difference {told['max_difference']:.2g}"
    )


def _work(student: Trained, exporter: Exporter, folder: Path) -> Mapping[str, Any]:
    for left in folder.iterdir():  # by a try that was killed: tools may not overwrite
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    card = exporter.export(student.folder, folder, student.card)
    write_card(card, folder)
    made = exporter.load(folder, card)
    # On one thread and on the same device, so that both are timed alike.
    codec = codec_of(student.folder, student.card)
    runner = runner_of(student.folder, student.card, codec, threads=1, device=made.runner.device)
    reference = ServedStudent(student.card, codec, runner)
    rows = _rows(reference, student.rows)
    parity = compare(reference, made, rows)
    refuse(parity, exporter)
    if not student.calibrated and card.labels is not None:
        card = replace(card, temperature=_fitted(made, student.rows))
    told = _facts(parity)
    write_card(replace(card, facts={**card.facts, **told}), folder)
    if exporter.runs_here:
        load_student(folder)  # as those who get it will
    return {
        "kind": "export",
        "format": card.format,
        "precision": card.precision,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        **card.facts,
        **told,
        "rows": parity.rows,
        "temperature": card.temperature,
        "device": made.runner.device,
        "latency_p50": _latency(reference, made, rows),
        "notes": ["compared on made-up rows: give real ones with --rows"] if student.made_up else [],
    }


def _rows(student: ServedStudent, samples: Sequence[Sample]) -> list[Sample]:
    """Rows that the student can read, from the shortest to the longest."""
    places = np.linspace(0, len(samples) - 1, min(len(samples), 4 * ROWS)).round().astype(int)
    drawn = student.with_targets([samples[i] for i in dict.fromkeys(places.tolist())])
    features = student.codec.encode(drawn).features
    if not features:
        raise ModelError("the student can read none of the rows that its export is to be compared on")
    by_id = {sample.id: sample for sample in drawn}
    return [by_id[features[i].id] for i in spread(features, ROWS)]


def _fitted(made: ServedStudent, samples: Sequence[Sample]) -> float:
    """The temperature under which the right classes are likeliest, by rows that tell theirs."""
    chosen = [sample for sample in samples if sample.target is not None][:_FITTED_ON]
    given = probabilities(made, made.encode(chosen), 32)
    places = {name: i for i, name in enumerate(made.labels)}
    return temperature_of(given, np.asarray([places[sample.target] for sample in chosen]))


def _facts(parity: Parity) -> dict[str, Any]:
    """What is told of the comparison; rounded, since the last digits hang on the machine."""
    return {
        "max_difference": float(f"{parity.max_difference:.2g}"),
        "relative_difference": float(f"{parity.relative:.2g}"),
        "same_answers": parity.same_answers,
        "answers": parity.answers,
    }


def _latency(student: ServedStudent, made: ServedStudent, rows: Sequence[Sample]) -> dict[str, float]:
    """Milliseconds of one row here on one thread, the median, in turns."""
    features = {name: (each, each.encode(rows)) for name, each in (("student", student), ("export", made))}
    requests = {
        name: lambda i, each=each, found=found: each.logits([found[i % len(found)]])
        for name, (each, found) in features.items()
    }
    with on_threads(1):  # of torch's work outside of the engines, which have one each
        return {name: round(float(np.median(took)), 3) for name, took in latencies(requests, RUNS).items()}
