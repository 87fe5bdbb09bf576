"""The live table: how far a stage's answers are, what they cost, and what went wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from limbeck.core.progress import console, is_main_process
from limbeck.generation.account import Account
from limbeck.generation.types import Completion, Outcome

if TYPE_CHECKING:
    from rich.table import Table


class Board:
    """Counts outcomes and shows them.

    Args:
        title: what is being made.
        total: requests in all.
        account: tells what is spent and held.
        known: outcomes that were in the ledger already.
    """

    def __init__(self, title: str, total: int, account: Account, known: Counter[str]):
        self.title, self.total, self.account, self.known = title, total, account, known
        self.counts: Counter[str] = Counter()
        self.tokens = 0
        self._began = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, Completion):
            self.counts["done"] += 1
            self.tokens += outcome.completion_tokens
        else:
            self.counts[outcome.reason] += 1

    def rows(self) -> dict[str, str]:
        """What the table says, by name."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        ended, waiting = self.counts.total(), self.total - self.known.total() - self.counts.total()
        account, limiter = self.account, self.account.limiter
        rows = {"done": f"{self.known['done'] + self.counts['done']:,} of {self.total:,}"}
        if self.known.total():
            rows["from the ledger"] = f"{self.known.total():,}"
        failed = self.known + self.counts
        del failed["done"]
        rows |= {f"failed: {reason}": f"{count:,}" for reason, count in sorted(failed.items())}
        rows["tokens/s"] = f"{self.tokens / seconds:,.0f}"
        spent = account.spent
        rows["spent"] = f"{spent.tokens:,} tokens" + (f", {spent.cost:,.4f}" if spent.nano else "")
        if account.lost.tokens:
            rows["possibly spent"] = f"{account.lost.tokens:,} tokens" + (
                f", {account.lost.cost:,.4f}" if account.lost.nano else ""
            )
        if limiter is not None:
            rows["in flight"] = f"{limiter.in_flight} of {int(limiter.limit)}"
        left = seconds / ended * waiting if ended else None
        rows["time left"] = (
            "-" if left is None else f"{int(left // 3600)}:{int(left // 60 % 60):02}:{int(left % 60):02}"
        )
        return rows

    def render(self) -> Table:
        """The table as it is now."""
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, value in self.rows().items():
            table.add_row(name, value)
        return table

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the table as long as the work goes on, and once more at its end."""
        if not is_main_process():
            yield
            return
        from rich.live import Live

        with Live(get_renderable=self.render, console=console(), refresh_per_second=2):
            yield
