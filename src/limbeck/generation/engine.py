"""Answers to requests: out of the ledger where they are paid for already, else from a generator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.core.progress import say
from limbeck.generation.account import Account
from limbeck.generation.budget import Amount, Budget, Price, completion_bound
from limbeck.generation.endpoint import Done, Endpoint
from limbeck.generation.ledger import Charge, Ledger
from limbeck.generation.table import Board
from limbeck.generation.types import BUDGET, Completion, Failure, Generator, Outcome, Request

_BYTES_PER_TOKEN = 4
_SHARE_WRITTEN = 0.5
"""Expected length of an answer as a share of the longest, before any has been seen."""


@dataclass(frozen=True)
class Estimate:
    """What requests will cost.

    Attributes:
        requests: different requests in all.
        done: answered in the ledger.
        quarantined: failed for good in the ledger.
        expected: what the rest will likely cost: lengths as those of the stage's answers in the ledger; without any,
            four bytes a token for prompts, and half of `max_tokens` for answers.
        worst: what the rest can cost at most, attempts whose answer is lost left out.
        spent: what was spent before, and what may have been.
        fits: whether the budget holds the worst case.
    """

    requests: int
    done: int
    quarantined: int
    expected: Amount
    worst: Amount
    spent: Amount
    fits: bool

    def rows(self) -> list[dict[str, str]]:
        """The estimate as the rows of a table."""
        amounts = {"spent before": self.spent, "expected": self.expected, "at most": self.worst}
        return [
            {"": name, "prompt tokens": f"{a.prompt:,}", "answer tokens": f"{a.completion:,}", "cost": f"{a.cost:,.4f}"}
            for name, a in amounts.items()
        ]


def estimate(
    requests: Sequence[Request], ledger: Ledger, *, price: Price, budget: Budget | None = None, scope: str = ""
) -> Estimate:
    """What requests will cost, without asking anything.

    Args:
        requests: what is wanted.
        ledger: what was answered before.
        price: money per million tokens.
        budget: what may be spent.
        scope: the stage's name.
    """
    unique = {request.key: request for request in requests}
    known = ledger.entries(unique, scope)
    final = {key: entry.outcome for key, entry in known.items() if entry.is_final}
    rest = [request for key, request in unique.items() if key not in final]
    mean = ledger.mean_usage(scope)
    expected = worst = Amount()
    for request in rest:
        texts = sum(len(str(value).encode(errors="replace")) for m in request.messages for value in m.values())
        written = completion_bound(request)
        prompt, completion = mean or (texts / _BYTES_PER_TOKEN, written * _SHARE_WRITTEN)
        expected += price.of(round(prompt), min(round(completion), written))
        worst += price.worst(request)
    totals = ledger.totals(scope)
    spent = totals.spent + totals.lost
    done = sum(isinstance(outcome, Completion) for outcome in final.values())
    fits = (budget or Budget()).holds(spent + worst)
    return Estimate(len(unique), done, len(final) - done, expected, worst, spent, fits)


def generate(
    generator: Generator,
    requests: Sequence[Request],
    ledger: Ledger,
    *,
    budget: Budget | None = None,
    scope: str = "",
    title: str = "generate",
) -> dict[str, Outcome]:
    """Answer requests, each different one once in all runs together.

    What the ledger holds is not asked again: answers, and failures for good. Every outcome is in the ledger before
    it is counted.

    Args:
        generator: an endpoint, or a model of this process.
        requests: what is wanted; requests with the same key get the same outcome.
        ledger: answers of this run and all before.
        budget: what may be spent under this scope, over all runs together.
        scope: the stage's name.
        title: heading of the live table.

    Returns:
        The outcome of every request, by its key; those that the budget did not allow are `Failure("budget")`.

    Raises:
        LimbeckError: the generator cannot answer at all; what was answered until then is kept.
    """
    price = generator.price if isinstance(generator, Endpoint) else Price()
    account = Account(ledger, budget, price, scope)
    unique = {request.key: request for request in requests}
    known = account.look_up(unique)
    outcomes = {key: entry.outcome for key, entry in known.items() if entry.is_final and entry.outcome is not None}
    rest = [request for key, request in unique.items() if key not in outcomes]
    seen = Counter("done" if isinstance(o, Completion) else o.reason for o in outcomes.values())
    board = Board(title, len(unique), account, seen)

    def done(request: Request, outcome: Outcome) -> None:
        outcomes[request.key] = outcome
        board.add(outcome)

    with board.live():
        if not rest:
            pass
        elif isinstance(generator, Endpoint):
            generator.answer(rest, done, account)
        else:
            _answer_here(generator, rest, account, done)
    if unpaid := board.counts[BUDGET]:
        say(f"{title}: the budget is reached; {unpaid:,} requests stay unanswered")
    return {key: outcomes[key] for key in unique}


def _answer_here(generator: Generator, requests: list[Request], account: Account, done: Done) -> None:
    """Ask a model of this process for as many answers as the budget surely holds, again and again."""

    def settle(request: Request, outcome: Outcome) -> None:
        charge = Charge()
        if isinstance(outcome, Completion):
            charge = Charge(spent=Amount(outcome.prompt_tokens, outcome.completion_tokens), received=True)
        account.spent += charge.spent
        account.ledger.settle(request.key, outcome, charge, account.scope).result()
        done(request, outcome)

    waiting = requests
    while waiting:
        now: list[Request] = []
        held = Amount()
        for request in waiting:
            held += account.price.worst(request)
            if not account.fits(held):
                break
            now.append(request)
        if not now:  # the first does not fit; a shorter one may
            done(waiting[0], Failure(BUDGET, "what may be spent is spent"))
            waiting = waiting[1:]
            continue
        generator.answer(now, settle)
        waiting = waiting[len(now) :]
