"""generate: prompts are answered, answers judged, and the right ones become the student's training rows.

generate/rows.parquet      what the student learns from
generate/dropped.parquet   everything else that was written, each with its reason
<output>/ledger.sqlite     every answer that was paid for; it outlives the artifact
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact
from limbeck.core.errors import DataError, ModelError, RecipeError
from limbeck.core.progress import is_main_process, say
from limbeck.core.recipe import Generate, Model, dump_recipe
from limbeck.core.types import Sample
from limbeck.data.dataset import Splits
from limbeck.data.perturbation import question_of
from limbeck.data.sources._base import Source
from limbeck.generation.budget import Amount, Budget
from limbeck.generation.engine import generate as answer_all
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Completion, Failure, Generator, Outcome, Request
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._prompts import Prompts, all_prompts, given_prompts, reference_of, requests_for, synthesizer
from limbeck.pipeline._recorded import recorded_answers
from limbeck.pipeline._rows import Table, read_rows
from limbeck.pipeline._writers import WriterAtWork, currencies, is_prepared, judge_of, writer_of
from limbeck.tasks.text_classification import TextClassification
from limbeck.verification.pass_at import pass_at, tries
from limbeck.verification.select import Reviewed, review
from limbeck.verification.types import Candidate, Filter, Held, Messages, Verifier

GIVEN = "given"
"""What a mixture calls given rows beside generated ones."""
_HOW = ("engine", "per_device_generation_batch_size", "writer")
"""Fields of a data stage that say how it is done; who writes is told apart."""


def generate(job: RunJob, prepared: Artifact | None) -> Artifact | None:
    """The artifact `generate`; None where the recipe asks for nothing.

    Args:
        job: the run.
        prepared: the teacher, which writes where it has weights of its own; None where it has none.

    Raises:
        DataError: there are no prompts, or nothing is left to learn from.
        LimbeckError: the writer cannot answer at all; what was answered until then is in the ledger.
    """
    stages = job.recipe.generate
    if not stages:
        return None
    asking = [each for each in stages if not each.recorded]
    writers = {each.name: WriterAtWork(job, prepared, writer_of(job.recipe, each), each) for each in asking}
    judges = {
        f"{each.name}/judge": WriterAtWork(job, None, judge, each)
        for each in stages
        if (judge := judge_of(each)) is not None
    }
    compared = any(_compares(each) for stage in stages for each in stage.filters)
    inputs = {
        "generate": [{k: v for k, v in dump_recipe(stage).items() if k not in _HOW} for stage in stages],
        "prompts": {s.name: s.prompts.fingerprint() for s in stages if isinstance(s.prompts, Source)},
        "writers": {name: each.identity for name, each in (writers | judges).items()},
        **job.data_inputs(training=not compared),
    }
    own = prepared is not None and any(is_prepared(each.spec) for each in writers.values())
    parents = {"prepare": prepared} if own and prepared is not None else {}
    making = _Generation(job, prepared, writers)
    # Other processes wait for the first one, which asks.
    work = making.work if is_main_process() else lambda folder: {}
    return job.step("generate", inputs, parents, work, together=True)


def _compares(sieve: object) -> bool:
    """Whether a filter looks at the evaluation rows."""
    return isinstance(sieve, Filter) and type(sieve).against is not Filter.against


def with_generated(job: RunJob, generated: Artifact | None) -> RunJob:
    """The run with what was generated as its training rows; the run itself where nothing was."""
    return job if generated is None else GeneratedJob(job, generated)


class GeneratedJob(RunJob):
    """A run whose training rows were generated; validation and test rows are the given ones.

    Args:
        given: the run with its rows as the data has them.
        generated: the artifact `generate`.
    """

    def __init__(self, given: RunJob, generated: Artifact):
        super().__init__(given.recipe, given.force, given.ledger)
        self.given, self.generated = given, generated
        self.rows_from = {"generate": generated}
        self._stage_splits = given._stage_splits

    @cached_property
    def splits(self) -> Splits:
        """Generated rows to learn from, beside the given ones or in their place; the others as they were."""
        given, rows = self.given.splits, read_rows(self.generated.file("rows.parquet"))
        beside = any(adds(self, stage) for stage in self.recipe.generate)
        # A mixture goes by the column `stage`, which given rows need not have.
        kept = [replace(s, meta={"stage": GIVEN, **s.meta}) for s in given.train] if beside else []
        train = [*kept, *rows]
        told = {"train": len(train), "generated": len(rows), "given_left_out": 0 if beside else len(given.train)}
        return replace(given, train=train, counts={**given.counts, **told})

    def processor(self, spec: Model, fallback: Any = None) -> Any:
        """As without generated rows: a new tokenizer is made from the given ones, for student and baseline alike."""
        return self.given.processor(spec, fallback)


def adds(job: RunJob, stage: Generate) -> bool:
    """Whether a data stage's rows stand beside the given ones."""
    return isinstance(job.task, TextClassification) if stage.add is None else stage.add


@dataclass
class _Generation:
    """All data stages in the making."""

    job: RunJob
    prepared: Artifact | None
    writers: dict[str, WriterAtWork]

    def work(self, folder: Path) -> Mapping[str, Any]:
        rows, dropped, told = Table(), Table(), {}
        with Ledger(self.job.ledger) as ledger:
            for stage in self.job.recipe.generate:
                told[stage.name] = self._stage(stage, ledger, rows, dropped)
        if not rows.rows:
            counts = {name: each["dropped"] for name, each in told.items()}
            fix = "look at the reasons; answers that were paid for are kept"
            raise DataError("nothing that was generated is left to learn from", got=counts, fix=fix)
        rows.write(folder / "rows.parquet")
        dropped.write(folder / "dropped.parquet")
        return {
            "counts": {"rows": len(rows.rows), "dropped": len(dropped.rows), **_by_stage(told)},
            "stages": told,
            "model": {"name": ", ".join(dict.fromkeys(each["model"] for each in told.values()))},
        }

    def _stage(self, stage: Generate, ledger: Ledger, rows: Table, dropped: Table) -> dict[str, Any]:
        writer = self.writers.get(stage.name)
        prompts, candidates, failed = self._written(stage, writer, ledger)
        found = self._review(stage, candidates, ledger)
        for each in found.kept:
            rows.add_row(each, stage.name, found.facts[each.prompt], label=self._is_label)
        for each, reason in found.dropped:
            dropped.add_dropped(each, stage.name, reason)
        for each, reason in failed:
            dropped.add_dropped(each, stage.name, reason)
        for written in prompts.synthesis.dropped:
            dropped.add_written(written, stage.name)
        reasons = [*(r for _, r in found.dropped), *(r for _, r in failed)]
        reasons += [f"synthesized: {w.reason}" for w in prompts.synthesis.dropped]
        totals, money = ledger.totals(stage.name), currencies(self.job.recipe, stage)
        if totals.lost.tokens:
            cost = f" ({totals.lost.cost:,.4f} {money[0]})" if money else ""
            say(f"generate: {stage.name}: {totals.lost.tokens:,} tokens{cost} possibly spent on calls that were lost")
        return {
            "model": writer.name if writer else "recorded",
            "prompts": dict(prompts.counts),
            "answers": len(candidates),
            "rows": len(found.kept),
            "pass_at": _pass_at(stage, candidates, found),
            "dropped": dict(sorted(Counter(reasons).items())),
            "synthesis_failed": dict(prompts.synthesis.failed),
            "synthesis_missing": prompts.synthesis.missing.total(),
            "spent": _told(totals.spent, money),
            "possibly_spent": _told(totals.lost, money),
        }

    @property
    def _is_label(self) -> bool:
        return isinstance(self.job.task, TextClassification)

    def _written(
        self, stage: Generate, writer: WriterAtWork | None, ledger: Ledger
    ) -> tuple[Prompts, list[Candidate], list[tuple[Candidate, str]]]:
        """What there is to judge, and what stayed unanswered with its reason."""
        if writer is None:
            given = given_prompts(self.job, stage)
            return Prompts(given, Counter(recorded=len(given))), recorded_answers(stage, given), []
        asking = Asking(stage, writer, ledger)
        if stage.synthesize is not None and stage.synthesize.by == "class":
            return self._texts(stage, writer, asking)
        prompts = all_prompts(self.job, stage, writer, asking.outcomes)
        return prompts, *_candidates(stage, writer, prompts, asking)

    def _texts(
        self, stage: Generate, writer: WriterAtWork, asking: Asking
    ) -> tuple[Prompts, list[Candidate], list[tuple[Candidate, str]]]:
        """Texts of classes: written, not answered."""
        given = given_texts(self.job, stage)
        made = synthesizer(self.job, stage, writer, given).run(asking.outcomes)
        candidates = [
            Candidate(f"{stage.name}/{w.id}", f"{stage.name}/{w.id}", _user(w.text), w.text, reference=w.label)
            for w in made.new
        ]
        prompts = Prompts(synthesis=made)
        prompts.counts["examples"], prompts.counts["synthesized"] = len(given), len(made.new)
        return prompts, candidates, []

    def _review(self, stage: Generate, candidates: list[Candidate], ledger: Ledger) -> Reviewed:
        filters = [each for each in stage.filters if isinstance(each, Filter)]
        against: list[Held] = []
        if any(map(_compares, filters)):
            splits = self.job.splits
            for sample in (*splits.validation, *splits.test):
                if question := question_of(sample):
                    against.append(Held(question, sample.target if isinstance(sample.target, str) else ""))
        verifier = stage.verify if isinstance(stage.verify, Verifier) else None
        ask = None
        if verifier is not None and verifier.asks_model:
            ask = Asking(stage, self._judge(stage), ledger).texts
        return review(candidates, verifier, filters, stage.keep, stage.vote, against, ask)

    def _judge(self, stage: Generate) -> WriterAtWork:
        if (judge := judge_of(stage)) is not None:
            return WriterAtWork(self.job, None, judge, stage)
        if stage.recorded:
            what = f"generate ({stage.name}): answers are recorded, so that no writer can judge them"
            raise RecipeError(what, fix="name one: verify: {type: judge, model: ...}")
        return self.writers[stage.name]


@dataclass
class Asking:
    """A writer, its data stage and the ledger.

    Attributes:
        stage: the data stage, under whose name and budget the money is counted.
        writer: who is asked.
        ledger: what was answered before.
    """

    stage: Generate
    writer: WriterAtWork
    ledger: Ledger

    def outcomes(self, requests: Sequence[Request]) -> Mapping[str, Outcome]:
        """The outcome of each request by its key; a local model is not loaded where the ledger has them all.

        Raises:
            ModelError: too many stay unanswered for a reason that passes; all others are in the ledger.
        """
        known = self.ledger.entries((r.key for r in requests), self.stage.name)
        generator: Generator = _Known(self.writer.name)
        if not all(r.key in known and known[r.key].is_final for r in requests):
            generator = self.writer.generator
        spent = Budget(self.stage.budget.tokens, self.stage.budget.cost)
        title = f"generate: {self.stage.name}"
        found = answer_all(generator, requests, self.ledger, budget=spent, scope=self.stage.name, title=title)
        self._refuse_outage(found)
        return found

    def _refuse_outage(self, outcomes: Mapping[str, Outcome]) -> None:
        """Rows that lack what an outage swallowed are no finished step: nobody would ask again."""
        failed = Counter(o.reason for o in outcomes.values() if isinstance(o, Failure) and o.passes)
        if failed and failed.total() / len(outcomes) > self.stage.max_failed:
            raise ModelError(
                f"generate ({self.stage.name}): {failed.total():,} of {len(outcomes):,} requests have no answer yet",
                got=", ".join(f"{reason} {count:,}" for reason, count in sorted(failed.items())),
                allowed=f"{self.stage.max_failed:.1%} (`max_failed`)",
                fix="run again: what was answered is kept, and only the others are asked; or raise `max_failed`",
            )

    def texts(self, conversations: Sequence[Messages]) -> list[str | None]:
        """The answers of a judge, greedy; None where there is none."""
        sampling = self.writer.sampling(temperature=0.0, top_p=1.0, stop=())
        requests = [
            self.writer.request(f"judge/{i}", 0, turns, sampling, written=True)  # the answer that is judged
            for i, turns in enumerate(conversations)
        ]
        outcomes = self.outcomes(requests)
        found = (outcomes[r.key] for r in requests)
        return [each.content if isinstance(each, Completion) else None for each in found]


@dataclass
class _Known:
    """Stands in for a model that need not be loaded."""

    name: str

    def answer(self, requests: Sequence[Request], done: Any) -> None:
        assert not requests, "all answers are in the ledger"


def given_texts(job: RunJob, stage: Generate) -> list[Sample]:
    """The labelled texts that new ones are written after."""
    return list(job.splits.train) if stage.prompts is None else given_prompts(job, stage)


def _candidates(
    stage: Generate, writer: WriterAtWork, prompts: Prompts, asking: Asking
) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """An answer to judge for each request, and the requests that stayed without one, with their reasons."""
    pairs = requests_for(stage, writer, prompts.samples)
    outcomes = asking.outcomes([request for _, request in pairs])
    made: list[Candidate] = []
    failed: list[tuple[Candidate, str]] = []
    for sample, request in pairs:
        outcome = outcomes[request.key]
        name, turns = f"{stage.name}/{sample.id}#{request.sample}", tuple(sample.inputs["messages"])
        if isinstance(outcome, Completion):
            meta = {**sample.meta, "sample": request.sample, "completion": asdict(outcome)}
            made.append(
                Candidate(
                    name, sample.id, turns, outcome.content, outcome.reasoning_content, outcome.finish_reason,
                    reference_of(stage, sample), meta,
                )
            )  # fmt: skip
        else:
            meta = {**sample.meta, "sample": request.sample, "detail": outcome.detail}
            blank = Candidate(name, sample.id, turns, "", reference=reference_of(stage, sample), meta=meta)
            failed.append((blank, outcome.reason))
    return made, failed


def _pass_at(stage: Generate, candidates: Sequence[Candidate], found: Reviewed) -> dict[str, float]:
    """pass@k from one answer to all of a prompt's: how often one is right, by what the rows say, not by a vote."""
    if stage.verify is None:
        return {}
    judged = dict.fromkeys(each.prompt for each in candidates if each.reference is not None or not stage.vote)
    facts = [found.facts[prompt] for prompt in judged]
    shares = {k: pass_at(k, facts) for k in tries(stage.samples)}
    return {str(k): share for k, share in shares.items() if share is not None}


def _told(amount: Amount, money: Sequence[str]) -> dict[str, Any]:
    """Tokens, and what they cost where somebody is paid."""
    cost = {"currency": money[0], "cost": amount.cost} if money else {}
    return {"prompt_tokens": amount.prompt, "completion_tokens": amount.completion, **cost}


def _user(text: str) -> Messages:
    return ({"role": "user", "content": text},)


def _by_stage(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the report lists: by data stage, rows and drops."""
    return {name: {"rows": each["rows"], "dropped": each["dropped"]} for name, each in told.items()}
