"""evaluate: teacher, student and baseline on the same rows; predictions first, every score from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.recipe import Model, Teacher, dump_recipe
from limbeck.core.types import Sample
from limbeck.data.dataset import rows_seen
from limbeck.evaluation.efficiency import latencies, weight_bytes
from limbeck.evaluation.predict import answer, classify, likelihood, says
from limbeck.evaluation.scores import Seen, all_scores
from limbeck.models.load import parameters
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._teaching import load_teachers, together
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.teachers.ensemble import EnsembleModel
from limbeck.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LATENCY_TOKENS = 16
"""New tokens in one timed request to a language model."""


def evaluate(job: RunJob, made: Mapping[str, Artifact]) -> Artifact:
    """The artifact `evaluate`: `scores.json`, and `predictions-<model>.parquet` for each model.

    Args:
        job: the run.
        made: the artifacts `train` and, where the recipe has them, `prepare` and `baseline`.
    """
    inputs = {"evaluate": dump_recipe(job.recipe.evaluate), **job.data_inputs(training=False)}
    return job.step("evaluate", inputs, made, lambda folder: _work(job, made, folder))


def _work(job: RunJob, made: Mapping[str, Artifact], folder: Path) -> Mapping[str, Any]:
    plan = job.recipe.evaluate
    samples = job.splits.test if plan.split == "test" else job.splits.validation
    if plan.max_samples is not None and plan.max_samples < len(samples):
        drawn = np.random.default_rng(job.recipe.data.seed).permutation(len(samples))[: plan.max_samples]
        samples = [samples[i] for i in sorted(drawn)]
    models: dict[str, tuple[Any, Codec]] = {}
    notes: list[str] = []
    if "prepare" in made:
        models["teacher"], notes = _teacher(job, made["prepare"], samples)
    for name, step in (("student", "train"), ("baseline", "baseline")):
        if step in made:
            models[name] = job.stored(made[step].path / "student", Model(model="student"))
    seen, lost = {}, {}
    milliseconds = _latencies(models, samples, plan.latency_runs)
    for name, (model, codec) in models.items():
        answers, likelihoods = _predict(job, name, model, codec, samples, folder)
        lost[name] = dict(job.encode(samples, codec).counts)
        size = parameters(model), weight_bytes(model)
        seen[name] = Seen(answers, likelihoods, *size, milliseconds[name])
    scores = all_scores(seen, plan)
    write_json(folder / "scores.json", scores)
    hardware = {"device": str(next(models["student"][0].parameters()).device), "threads": torch.get_num_threads()}
    asked = f"{LATENCY_TOKENS} new tokens each" if isinstance(models["student"][1], CausalCodec) else "one row each"
    counts = {"rows": len(samples), "rows_also_trained_on": rows_seen(samples, job.trained_on()), "lost": lost}
    return {"counts": {**counts, "split": plan.split}, "hardware": hardware, "request": asked, "notes": notes}


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
    folder: Path,
) -> tuple[Any, Any]:
    plan, size = job.recipe.evaluate, job.recipe.training.per_device_eval_batch_size
    features = job.encode(samples, codec).features
    answers = likelihoods = None
    if isinstance(codec, CausalCodec):
        assert not isinstance(model, EnsembleModel), "language models answer alone"
        likelihoods = likelihood(model, codec, features, size)
        if codec.task.answer_pattern is not None:
            answers = answer(
                model, codec, samples, batch_size=size, max_new_tokens=plan.max_new_tokens, title=f"{name} answers"
            )
    else:
        answers = classify(model, codec, features, size, f"{name} predictions")
    table = _table(answers, likelihoods)
    pq.write_table(table, folder / f"predictions-{name}.parquet", compression="zstd")
    return answers, likelihoods


def _table(answers: Any, likelihoods: Any) -> pa.Table:
    """Both kinds of predictions in one table, joined by id."""
    if answers is None or likelihoods is None:
        return pa.table(answers or likelihoods)
    place = {sample: i for i, sample in enumerate(likelihoods["id"])}
    extra = {
        key: [column[place[i]] if i in place else None for i in answers["id"]]
        for key, column in likelihoods.items()
        if key != "id"
    }
    return pa.table({**answers, **extra})


def _latencies(models: Mapping[str, tuple[Any, Codec]], samples: Sequence[Sample], runs: int) -> dict[str, Any]:
    """Single requests: one row through a classifier, or a fixed number of new tokens from a language model."""
    few = samples[:runs]

    def request(model: Any, codec: Codec) -> Callable[[int], Any]:
        if isinstance(codec, CausalCodec):
            prompts = [codec.prompt_ids(sample) for sample in few]
            end = {cast(int, codec.processor.eos_token_id)}
            return lambda i: codec.generate(model, [prompts[i % len(prompts)]], end, LATENCY_TOKENS, LATENCY_TOKENS)
        batches = [codec.collate(codec.encode([sample]).features).to(device()) for sample in few]
        return lambda i: says(model, batches[i % len(batches)])

    with torch.inference_mode():
        return latencies({name: request(*pair) for name, pair in models.items()}, runs)
