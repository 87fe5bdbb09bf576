"""cache: what the teacher says of every row, recorded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import transformers

from limbeck.cache.codecs import Codec, Full
from limbeck.cache.fit import Asked
from limbeck.cache.record import Fitted, Source, fit, record
from limbeck.cache.store import CODEC, VERSION, Cache, Facts, Format, describe
from limbeck.core.artifacts import Artifact, digest_of, write_json
from limbeck.core.errors import RecipeError
from limbeck.core.progress import bar, is_main_process
from limbeck.core.recipe import Data, Model, Recipe, Stage, Teacher, dump_recipe
from limbeck.core.recipe.training import asking
from limbeck.core.types import IGNORE, Batch, Needs
from limbeck.models.heads import check_head
from limbeck.models.load import load_config, origin
from limbeck.objectives import DistributionTerm, Objective
from limbeck.objectives.base import BatchTerm
from limbeck.objectives.temperature import Fixed
from limbeck.pipeline._job import RunJob, device, model_inputs
from limbeck.pipeline._student import make_student
from limbeck.pipeline._teaching import Read, load_teachers
from limbeck.tasks import Feature, class_names
from limbeck.teachers.cached import CachedTeacher, skeleton
from limbeck.teachers.local import LocalTeacher
from limbeck.training.engine import processes
from limbeck.training.matching import find_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEASURED = "measured.json"
INERT = ("transformers_version", "_name_or_path")
"""Fields of a config that change nothing of what a model says."""


def refuse_uncachable(recipe: Recipe) -> None:
    """What the recipe alone tells: a recording cannot stand for this teacher.

    Raises:
        RecipeError: it cannot; what stands against it is named.
    """
    teacher = recipe.teacher
    if recipe.cache is None:
        return
    if teacher is None or not any(map(asking, recipe.stages)):
        raise RecipeError("there is a `cache`, but no term that asks a teacher", fix="leave out `cache`")
    against = {
        "a teacher that is the student's own past": teacher.is_moving,
        "several teachers (`also`)": bool(teacher.also),
        "`teacher.remember`, which keeps in memory what `cache` keeps on the disk": teacher.remember,
        "a trimmed vocabulary, over which the teacher would have to be asked": recipe.student.vocabulary is not None,
    }
    for stage in recipe.stages:
        against |= {
            f"augmented rows (stage {stage.name})": bool(stage.augment),
            f"the student's own texts (`on_policy`, stage {stage.name})": getattr(stage, "on_policy", None) is not None,
        }
        for term in stage.terms:
            against[f"'{term.type()}', for tokenizers that differ"] = bool(getattr(term, "matches_text", False))
    if found := [what for what, there in against.items() if there]:
        raise RecipeError("a recording cannot stand for the teacher here", got=found[0], fix="leave out `cache`")


def cache(job: RunJob, prepared: Artifact | None) -> Artifact | None:
    """The artifact `cache`: the teacher's signals for all training and validation rows; None without the section.

    Args:
        job: the run.
        prepared: the teacher.
    """
    recipe = job.recipe
    refuse_uncachable(recipe)
    if recipe.cache is None or prepared is None:
        return None
    stages = [stage for stage in recipe.stages if asking(stage)]
    inputs: dict[str, Any] = {
        "cache": dump_recipe(recipe.cache),
        "version": VERSION,
        "reads": {"student": model_inputs(recipe.student)["tokenizer"], "spec": _reading(recipe)},
        "terms": [dump_recipe(stage)["terms"] for stage in stages],
        **_rows_inputs(job),
        "stage_rows": [_rows_inputs(job, stage.data) for stage in stages if stage.data is not None],
    }
    return job.step(
        "cache",
        inputs,
        {"prepare": prepared, **job.rows_from},
        lambda folder: _work(job, prepared, stages, folder),
        together=True,
    )


def _rows_inputs(job: RunJob, data: Data | None = None) -> dict[str, Any]:
    """What decides the rows; a sample is read the same from packed rows."""
    found = job.data_inputs(data)
    return {**found, "task": {k: v for k, v in found["task"].items() if k != "packing"}}


def _reading(recipe: Recipe) -> dict[str, Any]:
    """What decides the batches and the layers that are matched."""
    spec = dump_recipe(recipe.student)
    return {name: value for name, value in spec.items() if name not in ("dtype", "lora", "attn_implementation")}


def facts_of(job: RunJob, prepared: Artifact, processor: Any, vocabulary: int) -> Facts:
    """Whose signals a run's recording must hold.

    Args:
        job: the run.
        prepared: the teacher.
        processor: the tokenizer or image processor that makes the batches.
        vocabulary: the teacher's classes.
    """
    task = {k: v for k, v in dump_recipe(job.recipe)["task"].items() if k not in ("answer_pattern", "packing")}
    template = {"task": task, "chat_template": getattr(processor, "chat_template", None)}
    return Facts(_teacher_digest(job, prepared), _digest(processor), digest_of(template), vocabulary)


def _teacher_digest(job: RunJob, prepared: Artifact) -> str:
    """Identity of all that decides what the teacher says: weights, adapters, code, config and precision."""
    spec = cast(Teacher, job.recipe.teacher)
    own = {name: entry["sha256"] for name, entry in prepared.manifest["files"].items() if name.startswith("teacher/")}
    if "teacher/config.json" not in own:
        return digest_of([origin(spec).fingerprint, spec.dtype])
    config = json.loads((prepared.path / "teacher" / "config.json").read_text(encoding="utf-8"))
    told = {name: value for name, value in config.items() if name not in INERT}
    files = {name: sha for name, sha in own.items() if name.endswith((".safetensors", "adapter_config.json", ".py"))}
    return digest_of([files, told, spec.dtype])


def _digest(processor: Any) -> str:
    """Identity of a tokenizer or image processor, whatever it was last used for."""
    backend = getattr(processor, "backend_tokenizer", None)
    if backend is not None:
        told = json.loads(backend.to_str())
        return digest_of({k: v for k, v in told.items() if k not in ("padding", "truncation")})
    if hasattr(processor, "get_vocab"):
        return digest_of([type(processor).__name__, processor.get_vocab(), processor.special_tokens_map])
    return digest_of(json.loads(processor.to_json_string()))


def _classes(model: PreTrainedModel) -> int:
    head = model.get_output_embeddings()
    return len(class_names(model.config)) if head is None else len(cast(torch.nn.Linear, head).weight)


def cached_teacher(job: RunJob, prepared: Artifact, recorded: Artifact, processor: Any) -> CachedTeacher:
    """The teacher of a training that reads the recording.

    Raises:
        ArtifactError: it is damaged, or a recording of something else.
    """
    model, _ = teacher_shape(job, prepared)
    return CachedTeacher(Cache(recorded.path, facts_of(job, prepared, processor, _classes(model))), model)


def teacher_shape(job: RunJob, prepared: Artifact) -> Read:
    """The teacher without its weights, and its codec: its layers have names and shapes, and take no memory."""
    spec = cast(Teacher, job.recipe.teacher)
    own: Model = spec
    if "teacher/config.json" in prepared.manifest["files"]:
        own = Model(model=str(prepared.path / "teacher"), trust_remote_code=spec.trust_remote_code)
    extra = {} if spec.attn_implementation is None else {"attn_implementation": spec.attn_implementation}
    with torch.device("meta"):
        model = getattr(transformers, job.task.auto_class).from_config(load_config(own), **extra)
    return skeleton(model.eval()), job.task.codec(job.processor(own), job.label_names)


def _work(job: RunJob, prepared: Artifact, stages: Sequence[Stage], folder: Path) -> Mapping[str, Any]:
    read = load_teachers(job, prepared)
    model = read[0][0]
    student = make_student(job, read, "train")
    features = _rows(job, student.codec)
    few = student.codec.collate(features[:2]).to(device())
    check_head(model, few, "the teacher")
    torch.nn.Module.to(student.model, device())
    needs = _needs(student.model, model, stages, few)
    teacher, plan = LocalTeacher(model, device()), cast(Any, job.recipe.cache)
    source = Source(
        [each.length for each in features],
        lambda which: student.codec.collate([features[i] for i in which]).to(device()),
        lambda batch: teacher.signal(batch, needs),
        plan.per_device_batch_size,
    )
    state = processes()
    if state.is_main_process and not (folder / CODEC).exists():
        fitted = _fit(job, source, model, features, stages) if needs.dist else Fitted(None, {})
        write_json(folder / MEASURED, fitted.figures)
        Format(fitted.codec, tuple(sorted(needs.features)), plan.features).save(folder)
    state.wait_for_everyone()
    with _progress(state, len(features)) as advance:
        record(folder, source, Format.load(folder), (state.process_index, state.num_processes), advance)
    state.wait_for_everyone()
    told = describe(folder, facts_of(job, prepared, student.codec.processor, _classes(model)), len(source.shards()))
    measured = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    rows = sum(each["rows"] for each in told["shards"])
    return {"cache": told, "measured": measured, "counts": {"samples": len(features), "tokens": rows}}


def _rows(job: RunJob, codec: Any) -> list[Feature]:
    """All rows that the stages train and validate on, each once."""
    found: dict[tuple[str, str], Feature] = {}
    for stage in job.recipe.stages:
        splits = job.stage_rows(stage)
        for rows in (splits.train, splits.validation):
            for feature in job.encode(rows, codec).features:
                digest = hashlib.sha256()
                for name, value in sorted(feature.values.items()):
                    array = np.asarray(value)
                    digest.update(f"{name} {array.dtype.str} {array.shape};".encode() + array.tobytes())
                found.setdefault((feature.id, digest.hexdigest()), feature)
    return list(found.values())


def _needs(student: PreTrainedModel, teacher: PreTrainedModel, stages: Sequence[Stage], few: Batch) -> Needs:
    """All that the stages' terms ask of the teacher."""
    needs = Needs()
    for stage in stages:
        terms = cast(Sequence[Objective], stage.terms)
        pairs = [p for found in find_pairs(student, teacher, terms, few).values() for p in found]
        taps = frozenset(tap for pair in pairs if pair.teacher is not None for tap in pair.teacher.taps)
        needs |= Needs(any(_reads_dist(term) for term in terms), taps)
    return needs


def _reads_dist(term: Objective) -> bool:
    reading = isinstance(term, DistributionTerm) or getattr(term, "reads_dist", False)
    return bool(reading and term.asks_teacher)


def _fit(
    job: RunJob, source: Source, model: PreTrainedModel, features: Sequence[Feature], stages: Sequence[Stage]
) -> Fitted:
    """The codec that the recipe's budget buys."""
    plan, classes = cast(Any, job.recipe.cache), _classes(model)
    asking_all = [term for stage in stages for term in stage.terms if _reads_dist(cast(Objective, term))]
    free = plan.type == "auto" and plan.k is None and plan.bytes_per_token is None
    kind = "full" if free and model.get_output_embeddings() is None else plan.type
    drawable = all(_drawable(term) for term in asking_all)
    prior = np.zeros(classes, dtype=np.int64)
    for labels in (each.values["labels"] for each in features if "labels" in each.values):
        ids = np.asarray(labels)
        prior += np.bincount(ids[(ids != IGNORE) & (ids < classes)], minlength=classes)
    fitted = fit(source, Asked(plan.bytes_per_token, kind, plan.k, plan.dtype), prior, drawable)
    whole = [t.type() for t in asking_all if isinstance(t, BatchTerm) or getattr(t, "needs_all_classes", False)]
    if whole and not isinstance(fitted.codec, Full):
        got = f"a recording of type {cast(Codec, fitted.codec).type}"
        raise RecipeError(f"'{whole[0]}' reads every class of the teacher", got=got, fix="cache={type: full}")
    return fitted


def _drawable(term: Any) -> bool:
    """Whether drawn classes give its gradient without bias."""
    temperature = getattr(term, "temperature", None)
    plain = temperature is None or temperature == 1 or (isinstance(temperature, Fixed) and temperature.value == 1)
    return bool(plain and getattr(term, "linear_in_teacher", False))


@contextmanager
def _progress(state: Any, total: int) -> Iterator[Callable[[int], None]]:
    """A bar over this process's share, counted as if all went at its pace."""
    with bar("samples") as shown:
        task = shown.add_task("cache", total=total, figures="")
        yield lambda samples: shown.advance(task, samples * state.num_processes)


def table(artifact: Artifact) -> list[dict[str, str]]:
    """What a recording takes and how near it comes, for people."""
    found, measured = Cache(artifact.path).figures(), artifact.manifest["measured"]
    made = artifact.manifest["cache"]["format"]
    codec = made["codec"]
    told = {
        "samples": f"{found['samples']:,}",
        "labels": f"{found['tokens']:,}",
        "codec": "none" if codec is None else codec["type"],
        "bytes a label": "-" if codec is None else f"{found['bytes_per_token']:.1f}",
        "layers": ", ".join(made["features"]) or "none",
        "size": f"{found['bytes'] / 2**20:,.2f} MiB",
        "mass of the rest": f"{measured['tail_mass']:.4f}" if "tail_mass" in measured else "-",
        "total variation": f"{measured['total_variation']:.4f}" if "total_variation" in measured else "-",
    }
    positions = f" (over {measured['positions']:,} labels)" if "positions" in measured else ""
    return [{"": name + (positions if name == "total variation" else ""), "value": v} for name, v in told.items()]


def show_figures(artifact: Artifact) -> None:
    """Print the table, in the first process."""
    if is_main_process():
        from limbeck.core.progress import show_table

        show_table(table(artifact))
