"""What a stage may still spend: its budget, beside what its ledger says."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from limbeck.generation.budget import Amount, Budget, Price
from limbeck.generation.ledger import Charge, Entry, Ledger
from limbeck.generation.types import Outcome, Request

if TYPE_CHECKING:
    from limbeck.generation.concurrency import Limiter


class Account:
    """Ledger, budget and price of one stage.

    spent + held + lost never exceeds the budget: what a call can cost at most is held before it is made.

    Args:
        ledger: where every call is written down.
        budget: what may be spent over all runs together.
        price: money per million tokens.
        scope: the stage's name; money spent under other names is not counted.
    """

    def __init__(self, ledger: Ledger, budget: Budget | None = None, price: Price | None = None, scope: str = ""):
        self.ledger, self.budget, self.price, self.scope = ledger, budget or Budget(), price or Price(), scope
        before = ledger.totals(scope)
        self.spent, self.lost, self.held = before.spent, before.lost, before.held
        self.calls = 0
        """Calls under way."""
        self.limiter: Limiter | None = None
        self._known: dict[str, Entry] = {}
        self._lost: dict[str, Amount] = {}

    def look_up(self, keys: Iterable[str]) -> dict[str, Entry]:
        """What the ledger knows of requests; kept for `received`."""
        self._known = self.ledger.entries(keys, self.scope)
        self._lost = {key: entry.lost for key, entry in self._known.items()}
        return self._known

    def open(self, request: Request) -> Entry | None:
        """What the ledger knows of one request, kept until `close`: for those who ask for a long time."""
        entry = self.ledger.entries([request.key], self.scope).get(request.key)
        if entry is not None:
            self._known[request.key], self._lost[request.key] = entry, entry.lost
        return entry

    def close(self, request: Request) -> None:
        """Forget a request; the ledger does not."""
        self._known.pop(request.key, None)
        self._lost.pop(request.key, None)

    def received(self, request: Request) -> int:
        """How many answers to a request came, were paid for and could not be used."""
        entry = self._known.get(request.key)
        return entry.received if entry else 0

    def fits(self, worst: Amount) -> bool:
        """Whether so much more can be spent."""
        return self.budget.holds(self.spent + self.lost + self.held + worst)

    def hold(self, request: Request, worst: Amount) -> Future[None]:
        """Hold what a call can cost at most; the call may begin once the ledger has it."""
        self.held += worst
        self.calls += 1
        return self.ledger.reserve(request.key, worst, self.scope)

    def settle(self, request: Request, outcome: Outcome, worst: Amount, charge: Charge, again: bool) -> Future[None]:
        """Write down how a call ended and let go what was held for it.

        Args:
            request: what was asked.
            outcome: the answer, or why there is none.
            worst: what was held.
            charge: what the call cost.
            again: the request is about to be asked once more.
        """
        self.held -= worst
        self.calls -= 1
        self.spent += charge.spent
        before = self._lost.get(request.key, Amount())
        after = charge.lost if charge.strike_lost else before + charge.lost
        self._lost[request.key] = after
        self.lost += after - before
        return self.ledger.settle(request.key, outcome, charge, self.scope, again)
