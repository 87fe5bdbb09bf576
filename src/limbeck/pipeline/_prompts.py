"""What is asked in a data stage: given prompts, changed ones and new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.recipe import Data, Generate
from limbeck.core.types import WRITTEN, Rows, Sample
from limbeck.data.columns import column_names, plain, slices
from limbeck.data.draw import subsample
from limbeck.data.perturbation import AskedPerturbation, Perturbation, Perturbed, Refused, question_of
from limbeck.data.sources._base import Source
from limbeck.generation.synthesize import Seed, Synthesis, Synthesizer, Written
from limbeck.generation.types import Completion, Outcome, Request
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._writers import WriterAtWork, asked
from limbeck.tasks._traces import conversation

Ask = Callable[[Sequence[Request]], Mapping[str, Outcome]]


@dataclass
class Prompts:
    """The prompts of a data stage.

    Attributes:
        samples: conversations to answer; the target is the reference, None where there is none.
        counts: where they come from, and what could not be changed, by reason.
        synthesis: what was written anew.
    """

    samples: list[Sample] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    synthesis: Synthesis = field(default_factory=Synthesis)


def given_prompts(job: RunJob, stage: Generate) -> list[Sample]:
    """The prompts that a data stage starts from: its own source's, or the training rows.

    Raises:
        DataError: the source has no prompts.
    """
    data = job.recipe.data
    if stage.prompts is None:
        samples = list(job.splits.train)
    else:
        assert isinstance(stage.prompts, Source)
        rows = stage.prompts.load("train")
        columns = _columns(data, rows)
        samples = [_read(stage, rows, place, columns) for place in range(len(rows))]
        if not samples:
            raise DataError(f"{rows.origin} has no rows", fix=f"generate.{stage.name}.prompts")
    if stage.max_samples is not None:
        size = len(samples)
        samples = [samples[i] for i in subsample(range(size), stage.max_samples, count=size, seed=data.seed)]
    return samples


def reference_of(stage: Generate, sample: Sample) -> Any:
    """What a row says is right: its answer, or the columns that the data stage names.

    `prompt` is the question itself, whatever its column is called: a program may lean on what it begins with.

    Raises:
        DataError: it has no such column.
    """
    if stage.reference is None:
        return None if stage.recorded else sample.target
    names = [stage.reference] if isinstance(stage.reference, str) else stage.reference
    there = {"prompt": question_of(sample), **sample.meta}
    if missing := [name for name in names if name not in there]:
        known = ", ".join(sample.meta) or "no further columns of texts or numbers"
        what = f"generate ({stage.name}): row {sample.id} has no column {', '.join(missing)} to verify by"
        raise DataError(what, allowed=known, fix=f"generate.{stage.name}.reference=COLUMN")
    if isinstance(stage.reference, str):
        return there[stage.reference]
    return {name: there[name] for name in names}


def _columns(data: Data, rows: Rows) -> dict[str, str]:
    there, named = column_names(rows), data.columns()
    found = {role: named.get(role, role) for role in ("messages", "prompt", "answer")}
    found = {role: column for role, column in found.items() if column in there}
    if not {"messages", "prompt"} & found.keys():
        raise DataError(f"{rows.origin} has no column for `prompt` or `messages`", allowed=", ".join(there),
                        fix="data.prompt=COLUMN")  # fmt: skip
    return found | ({"id": named["id"]} if named.get("id") in there else {})


def _read(stage: Generate, rows: Rows, place: int, columns: Mapping[str, str]) -> Sample:
    row, where = rows[place], rows.where(place)
    values = {role: plain(row.get(column)) for role, column in columns.items()}
    reference = values.get("answer")
    if values.get("messages") is not None:
        turns = [{"role": str(t["role"]), "content": t["content"]} for t in values["messages"]]
        if stage.recorded:
            turns, reference = conversation(values["messages"], where)
        elif turns and turns[-1]["role"] == "assistant":
            reference = turns.pop()["content"] if reference is None else reference
    else:
        turns = [{"role": "user", "content": values.get("prompt")}]
    if not turns or not all(isinstance(t["content"], str) and t["content"].strip() for t in turns):
        raise DataError(f"{where}: the prompt is empty or not text", got=repr(turns)[:80])
    name = str(values["id"]) if "id" in values else f"{stage.name}/{place}"
    return Sample(name, {"messages": turns}, reference, slices(row, used=set(columns.values())))


def all_prompts(job: RunJob, stage: Generate, writer: WriterAtWork, ask: Ask) -> Prompts:
    """Given, perturbed and synthesized prompts; the writer is asked where it must be."""
    given, found = given_prompts(job, stage), Prompts()
    if stage.originals:
        found.samples += given
        found.counts["given"] = len(given)
    for each in stage.perturb:
        assert isinstance(each, Perturbation)
        made = _by_writer(stage, each, given, writer, ask) if isinstance(each, AskedPerturbation) else [
            each.perturb(sample, stage.seed) for sample in given
        ]  # fmt: skip
        for changed in made:
            if isinstance(changed, Perturbed):
                found.samples.append(changed.sample)
                found.counts[f"by {each.type()}"] += 1
            else:
                found.counts[f"not changed by {each.type()}: {changed.reason}"] += 1
    if stage.synthesize is not None:
        found.synthesis = synthesizer(job, stage, writer, given).run(ask)
        found.samples += [new_prompt(stage, each) for each in found.synthesis.new]
        found.counts["synthesized"] = len(found.synthesis.new)
    ids = Counter(sample.id for sample in found.samples)
    if repeated := [name for name, count in ids.items() if count > 1]:
        raise DataError("two prompts have one id", got=repeated[0], fix="data.id=COLUMN with ids that differ")
    return found


def synthesizer(job: RunJob, stage: Generate, writer: WriterAtWork, given: Sequence[Sample]) -> Synthesizer:
    """The plan for new inputs."""
    assert stage.synthesize is not None
    by_class = stage.synthesize.by == "class"
    seeds = [Seed(text, sample.target if by_class else None) for sample in given if (text := question_of(sample))]
    return Synthesizer(
        stage.synthesize,
        seeds,
        job.splits.label_names if by_class else None,
        model=writer.name,
        sampling=writer.sampling(stop=()),
        system=stage.system,
        seed=stage.seed,
        address=writer.address,
    )


def new_prompt(stage: Generate, written: Written) -> Sample:
    """A synthesized prompt; nothing is known of its answer."""
    turns = [{"role": "user", "content": written.text}]
    return Sample(f"{stage.name}/{written.id}", {"messages": turns}, None, {"synthesized": stage.name, WRITTEN: True})


def requests_for(stage: Generate, writer: WriterAtWork, samples: Sequence[Sample]) -> list[tuple[Sample, Request]]:
    """Each prompt as often as answers are wanted."""
    sampling = writer.sampling()
    found = []
    for sample in samples:
        turns, written = asked(stage, sample.inputs["messages"]), bool(sample.meta.get(WRITTEN))
        found += [
            (sample, writer.request(sample.id, i, turns, sampling, written=written)) for i in range(stage.samples)
        ]
    return found


def changing_requests(
    stage: Generate, change: AskedPerturbation, samples: Sequence[Sample], writer: WriterAtWork
) -> list[Request]:
    """One request for each prompt that the writer is to change."""
    sampling = writer.sampling(stop=())
    return [writer.request(f"{s.id}~{change.type()}", 0, change.messages(s), sampling) for s in samples]


def _by_writer(
    stage: Generate, change: AskedPerturbation, samples: Sequence[Sample], writer: WriterAtWork, ask: Ask
) -> list[Perturbed | Refused]:
    requests = changing_requests(stage, change, samples, writer)
    outcomes = ask(requests)
    made: list[Perturbed | Refused] = []
    for sample, request in zip(samples, requests, strict=True):
        outcome = outcomes[request.key]
        if isinstance(outcome, Completion):
            made.append(_marked(change.perturbed(sample, outcome.content)))
        else:
            made.append(Refused(outcome.reason))
    return made


def _marked(found: Perturbed | Refused) -> Perturbed | Refused:
    """A changed sample that says that a model wrote it."""
    if isinstance(found, Refused):
        return found
    return replace(found, sample=replace(found.sample, meta={**found.sample.meta, WRITTEN: True}))


def stand_ins(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Prompts as long as the given ones, in the place of those that are still to be written; for a dry run."""
    if not samples:
        return []
    chosen = [samples[i % len(samples)] for i in range(count)]
    return [replace(sample, id=f"new/{i}", inputs=_numbered(sample.inputs, i)) for i, sample in enumerate(chosen)]


def _numbered(inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
    # No request of a stand-in may be taken for one that is in the ledger.
    turns = [dict(turn) for turn in inputs["messages"]]
    turns[-1]["content"] = f"{number} {turns[-1]['content']}"
    return {"messages": turns}
