"""Before and beside `generate`: what it will cost, and its requests as files of the Batch interface."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.core import artifacts
from limbeck.core.artifacts import MANIFEST, Artifact
from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Generate, Recipe
from limbeck.core.types import Sample
from limbeck.data.perturbation import AskedPerturbation, Perturbation, Perturbed
from limbeck.generation.account import Account
from limbeck.generation.batch_files import batch_price, read_batch, write_batch
from limbeck.generation.budget import Budget
from limbeck.generation.engine import Estimate, estimate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Outcome, Request
from limbeck.pipeline._ahead import check_pass_rate, check_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._prompts import (
    all_prompts,
    changing_requests,
    given_prompts,
    requests_for,
    stand_ins,
    synthesizer,
)
from limbeck.pipeline._writers import WriterAtWork, writer_of


@dataclass(frozen=True)
class Planned:
    """What a data stage will cost.

    Attributes:
        stage: its name.
        model: who writes.
        currency: what the money is counted in; None for a local model.
        estimate: requests, tokens and money.
    """

    stage: str
    model: str
    currency: str | None
    estimate: Estimate


class _Waiting(Exception):
    """These requests must be answered before it is known what is asked next."""

    def __init__(self, requests: Sequence[Request]):
        super().__init__()
        self.requests = list(requests)


def plan(recipe: Recipe) -> list[Planned]:
    """What `generate` will cost, by data stage; nothing is asked, and no model is loaded or trained.

    Prompts that are still to be written are counted as long as the given ones; later rounds of a synthesis and the
    calls of a judge come on top.

    Raises:
        LimbeckError: the step would fail for the recipe's sake.
    """
    found = []
    for job, stage, writer, ledger in _stages(recipe):
        budget = Budget(stage.budget.tokens, stage.budget.cost)
        requests = _expected(job, stage, writer)
        seen = estimate(requests, ledger, price=writer.price, budget=budget, scope=stage.name)
        currency = None if writer.endpoint is None else writer.endpoint.currency
        found.append(Planned(stage.name, writer.name, currency, seen))
    return found


def write_batches(recipe: Recipe, folder: Path) -> list[Path]:
    """What is to be asked next, as files of OpenAI's Batch interface in `<folder>/<data stage>`.

    Where prompts are still to be written or changed, these are the requests for that; their answers read, the next
    call writes the requests for answers.

    Raises:
        RecipeError: a data stage is written by a local model.
        LimbeckError: the budget does not hold the worst case.
    """
    paths = []
    for job, stage, writer, ledger in _stages(recipe):
        requests = _next(job, stage, writer, ledger)
        paths += write_batch(folder / stage.name, requests, _account(stage, writer, ledger))
    return paths


def read_batches(recipe: Recipe, path: Path) -> Counter[str]:
    """Put a file of results into the ledger; returns its lines by what became of them, see `read_batch`."""
    total: Counter[str] = Counter()
    stages = 0
    for job, stage, writer, ledger in _stages(recipe):
        total += read_batch(path, _next(job, stage, writer, ledger), _account(stage, writer, ledger))
        stages += 1
    if not stages:
        raise RecipeError("no data stage asks anything: all answers are recorded", fix="leave out --batch-in")
    # Each line was read once for every data stage: it is malformed for all, and unknown to all but its own.
    total["malformed"] //= stages
    taken = sum(count for reason, count in total.items() if reason not in ("malformed", "unknown"))
    total["unknown"] = (total["unknown"] - taken * (stages - 1)) // stages
    return +total


def _stages(recipe: Recipe) -> Iterator[tuple[RunJob, Generate, WriterAtWork, Ledger]]:
    if not recipe.generate:
        raise RecipeError("the recipe has no `generate` section", fix="generate: {samples: 4}")
    check_recipe(recipe)
    job = RunJob(recipe)
    check_pass_rate(job)
    prepared = _prepared(recipe.output / "prepare")
    with Ledger(job.ledger) as ledger:
        for stage in (each for each in recipe.generate if not each.recorded):
            yield job, stage, WriterAtWork(job, prepared, writer_of(recipe, stage), stage), ledger


def _prepared(folder: Path) -> Artifact | None:
    return artifacts.load(folder) if (folder / MANIFEST).exists() else None


def _account(stage: Generate, writer: WriterAtWork, ledger: Ledger) -> Account:
    if writer.endpoint is None:
        what = f"generate ({stage.name}): a local model knows no Batch interface"
        raise RecipeError(what, fix="leave out --batch-out and --batch-in")
    price = batch_price(writer.price, writer.endpoint.price.batch_discount)
    return Account(ledger, Budget(stage.budget.tokens, stage.budget.cost), price, stage.name)


def _next(job: RunJob, stage: Generate, writer: WriterAtWork, ledger: Ledger) -> list[Request]:
    """The requests of the first phase that is not answered in full; of the last one if all are."""

    def ask(requests: Sequence[Request]) -> Mapping[str, Outcome]:
        known = ledger.entries((r.key for r in requests), stage.name)
        found = {key: entry.outcome for key, entry in known.items() if entry.is_final and entry.outcome is not None}
        if any(request.key not in found for request in requests):
            raise _Waiting(requests)
        return found

    try:
        if stage.synthesize is not None and stage.synthesize.by == "class":
            synthesizer(job, stage, writer, given_prompts(job, stage)).run(ask)
            return []
        prompts = all_prompts(job, stage, writer, ask)
    except _Waiting as waiting:
        return waiting.requests
    return [request for _, request in requests_for(stage, writer, prompts.samples)]


def _expected(job: RunJob, stage: Generate, writer: WriterAtWork) -> list[Request]:
    """All requests, with stand-ins for prompts that are not written yet."""
    given = given_prompts(job, stage)
    requests: list[Request] = []
    prompts: list[Sample] = [*given] if stage.originals else []
    for change in stage.perturb:
        assert isinstance(change, Perturbation)
        if isinstance(change, AskedPerturbation):
            requests += changing_requests(stage, change, given, writer)
            prompts += stand_ins(given, len(given))
        else:
            changed = (change.perturb(sample, stage.seed) for sample in given)
            prompts += [each.sample for each in changed if isinstance(each, Perturbed)]
    if stage.synthesize is not None:
        made = synthesizer(job, stage, writer, given)
        requests += [request for _, request in made.requests(made.wanted(), 0)]
        if stage.synthesize.by == "class":
            return requests
        prompts += stand_ins(given, stage.synthesize.count)
    return requests + [request for _, request in requests_for(stage, writer, prompts)]
