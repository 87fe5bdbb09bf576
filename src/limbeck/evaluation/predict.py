"""Predictions, made once and written to Parquet; every score is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from limbeck.core.artifacts import digest_of
from limbeck.core.errors import DataError
from limbeck.core.progress import bar
from limbeck.core.recipe import Evaluate
from limbeck.core.types import IGNORE, Batch, Dense, Head, Needs, Sample
from limbeck.data.perturbation import TAG
from limbeck.evaluation.predictions import SLICE, Columns
from limbeck.evaluation.served import ServedModel
from limbeck.models.heads import signal
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.tasks import Codec, Feature
from limbeck.tasks._decode import Drawing, end_tokens
from limbeck.tasks._decode import sample as sample_answers
from limbeck.teachers.ensemble import EnsembleModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.tasks.causal_lm import CausalCodec, CausalLM

    Measured = PreTrainedModel | EnsembleModel | ServedModel
    """What can be measured: a model in torch, several of them together, or a classifier in another engine."""


def says(model: Measured, batch: Batch) -> Dense:
    """What a classifier says of a batch."""
    whole = isinstance(model, EnsembleModel | ServedModel)
    dist = model(batch) if whole else signal(cast("PreTrainedModel", model), batch, Needs(dist=True)).dist
    assert isinstance(dist, Dense), "a classifier gives logits"
    return dist


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model takes its batches; one in another engine takes them from the CPU."""
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@torch.no_grad()
def classify(
    model: Measured,
    codec: Codec,
    features: Sequence[Feature],
    batch_size: int,
    title: str | None,
) -> Columns:
    """A classifier's answer to every row: id, target, prediction, correct, confidence, nll, probabilities."""
    assert codec.label_names is not None
    names, found = codec.label_names, {}
    device = device_of(model)
    with bar("samples", title is not None) as progress:
        task = progress.add_task(title or "", total=len(features), figures="")
        for part in _batches(features, batch_size):
            batch = codec.collate(part).to(device)
            logits = says(model, batch).logits.float()
            for feature, row, label in zip(part, logits.log_softmax(-1).cpu(), batch.labels.tolist(), strict=True):
                found[feature.id] = (row, label)
            progress.update(task, advance=len(part))
    rows = [found[f.id] for f in features]
    best = [int(row.argmax()) for row, _ in rows]
    return {
        "id": [f.id for f in features],
        "target": [names[label] for _, label in rows],
        "prediction": [names[i] for i in best],
        "correct": [i == label for i, (_, label) in zip(best, rows, strict=True)],
        "confidence": [float(row.max().exp()) for row, _ in rows],
        "nll": [float(-row[label]) for row, label in rows],
        "probabilities": [row.exp().tolist() for row, _ in rows],
    }


@torch.no_grad()
def likelihood(model: PreTrainedModel, codec: Codec, features: Sequence[Feature], batch_size: int) -> Columns:
    """How likely a language model holds each answer: id, nll (summed over the answer's tokens), tokens."""
    found = {}
    device = next(model.parameters()).device
    for part in _batches(features, batch_size):
        batch = codec.collate(part).to(device)
        dist = signal(model, batch, Needs(dist=True)).dist
        assert isinstance(dist, Head)
        places = batch.packed or [(i, 0, batch.labels.shape[1]) for i in range(len(part))]
        for feature, (i, start, end) in zip(part, places, strict=True):
            labels = batch.labels[i : i + 1, start:end]
            row = Head(dist.hidden[i : i + 1, start:end], dist.weight, dist.bias)
            value, _ = distribution_loss(row, None, labels, [CrossEntropy()], [1.0])
            found[feature.id] = (float(value), int((labels != IGNORE).sum()))
    ids = [f.id for f in features]
    return {"id": ids, "nll": [found[i][0] for i in ids], "tokens": [found[i][1] for i in ids]}


@torch.no_grad()
def answer(
    model: PreTrainedModel,
    codec: CausalCodec,
    samples: Sequence[Sample],
    *,
    batch_size: int,
    max_new_tokens: int,
    title: str | None,
) -> Columns:
    """A language model's greedy answers.

    Columns: id, target, text, prediction, correct, parsed, finished, new_tokens (with the end token) and draw.

    Args:
        model: in evaluation mode.
        codec: gives the same prompts as in training.
        samples: rows with a gradable answer.
        batch_size: prompts generated together, of like length, padded on the left.
        max_new_tokens: longest answer; one that reaches it is not `finished`.
        title: what the progress bar says; None: there is none.

    Raises:
        DataError: a row's own answer cannot be graded.
    """
    prompts = [codec.prompt_ids(s) for s in samples]
    ends = end_tokens(codec.processor, model)

    def write(part: list[int]) -> list[list[int]]:
        found: list[list[int]] = codec.generate(model, [prompts[i] for i in part], ends, max_new_tokens).tolist()
        return found

    return _graded(codec, samples, prompts, ends, write, batch_size, title)


@torch.no_grad()
def draws(
    model: PreTrainedModel,
    codec: CausalCodec,
    samples: Sequence[Sample],
    plan: Evaluate,
    *,
    batch_size: int,
    seed: int,
    title: str | None,
) -> Columns:
    """Answers drawn from a language model, `plan.samples` to each row: the columns of `answer`, `draw` from 1.

    What is drawn hangs on the seed, the row's id and the number of the draw, and not on the rows beside it.

    Args:
        model: in evaluation mode.
        codec: gives the same prompts as in training.
        samples: rows with a gradable answer.
        plan: how many, at which temperature, and how long they may be.
        batch_size: answers drawn together.
        seed: of the draws.
        title: what the progress bar says; None: there is none.

    Raises:
        DataError: a row's own answer cannot be graded.
    """
    asked = [(sample, number) for number in range(1, (plan.samples or 0) + 1) for sample in samples]
    rows = [sample for sample, _ in asked]
    prompts = [codec.prompt_ids(s) for s in rows]
    ends, pad = end_tokens(codec.processor, model), codec.processor.pad_token_id
    drawing = Drawing(plan.temperature, plan.top_p)

    def write(part: list[int]) -> list[list[int]]:
        seeds = [int(digest_of([seed, asked[i][0].id, asked[i][1]])[:16], 16) for i in part]
        chances = np.stack([np.random.default_rng(each).random(plan.max_new_tokens) for each in seeds])
        return sample_answers(model, [prompts[i] for i in part], pad, ends, chances, drawing)

    return {**_graded(codec, rows, prompts, ends, write, batch_size, title), "draw": [number for _, number in asked]}


def _graded(
    codec: CausalCodec,
    samples: Sequence[Sample],
    prompts: Sequence[list[int]],
    ends: set[int],
    write: Callable[[list[int]], list[list[int]]],
    batch_size: int,
    title: str | None,
) -> Columns:
    """What is written to the rows, batch by batch, and whether it is right."""
    targets = final_answers(codec.task, samples)
    texts: dict[int, tuple[str, int, bool]] = {}
    with bar("answers", title is not None) as progress:
        task = progress.add_task(title or "", total=len(samples), figures="")
        for part in _batches(range(len(samples)), batch_size, key=lambda i: -len(prompts[i])):
            for i, ids in zip(part, write(part), strict=True):
                stop = next((at for at, token in enumerate(ids) if token in ends), None)
                count = len(ids) if stop is None else stop + 1
                texts[i] = (codec.processor.decode(ids[:stop], skip_special_tokens=True), count, stop is not None)
            progress.update(task, advance=len(part))
    predictions = [codec.extract(texts[i][0]) for i in range(len(samples))]
    return {
        "id": [s.id for s in samples],
        "target": targets,
        "text": [texts[i][0] for i in range(len(samples))],
        "prediction": predictions,
        "correct": [p == t for p, t in zip(predictions, targets, strict=True)],
        "parsed": [p is not None for p in predictions],
        "finished": [texts[i][2] for i in range(len(samples))],
        "new_tokens": [texts[i][1] for i in range(len(samples))],
        "draw": [0] * len(samples),
    }


def final_answers(task: CausalLM, samples: Sequence[Sample]) -> list[str]:
    """What is right, by the rows' own answers.

    Raises:
        DataError: a row's own answer cannot be graded.
    """
    found = []
    for sample in samples:
        if (target := task.extract(sample.target)) is None:
            raise DataError(
                f"the answer of sample {sample.id} has no final answer to compare with",
                got=repr(sample.target)[-80:],
                allowed=f"text that matches {task.answer_pattern!r}",
                fix="task.answer_pattern=..., or null to leave answers ungraded",
            )
        found.append(target)
    return found


def of_rows(samples: Sequence[Sample], slices: Sequence[str]) -> Columns:
    """What predictions say of the rows themselves: id, input, slices, and a worked answer as `reference`.

    Args:
        samples: the rows.
        slices: columns of the data by whose values rows are scored apart; how a row was perturbed is one of them
            wherever rows were.

    Raises:
        DataError: the data have no such column, or its cells are no plain values.
    """
    there = {name for sample in samples for name in sample.meta}
    for name in slices:
        if name not in there:
            what = f"evaluate.slices names the column '{name}', but no row has it"
            raise DataError(what, allowed=", ".join(sorted(there)) or "columns that play no role; there are none")
    columns: Columns = {"id": [s.id for s in samples], "input": [_shown(s) for s in samples]}
    if any("messages" in s.inputs for s in samples):
        columns["reference"] = [s.target for s in samples]
    for name in dict.fromkeys([*slices, *({TAG} & there)]):
        values = [s.meta.get(name) for s in samples]
        columns[SLICE + name] = [None if v is None else str(v) for v in values]
    return columns


def _shown(sample: Sample) -> str | None:
    """The text that a model is shown; None where it is shown none."""
    turns = sample.inputs.get("messages")
    texts = [turn["content"] for turn in turns] if turns is not None else list(sample.inputs.values())
    return "\n".join(texts) if texts and all(isinstance(text, str) for text in texts) else None


def joined(*tables: Columns) -> Columns:
    """Tables as one, by id: the rows of the first, with nothing where another lacks them."""
    base, *others = tables
    found = dict(base)
    for each in others:
        place = {sample: i for i, sample in enumerate(each["id"])}
        for name, values in each.items():
            if name not in found:
                found[name] = [values[place[i]] if i in place else None for i in base["id"]]
    return found


def _batches(items: Any, size: int, key: Any = lambda f: -f.length) -> list[list[Any]]:
    """Items of like length together, longest first, so that memory is tried early."""
    ordered = sorted(items, key=key)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]
