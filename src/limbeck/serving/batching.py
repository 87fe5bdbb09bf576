"""Which of the waiting rows are computed together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a model's engine takes on, at most.

    Attributes:
        max_batch_tokens: rows times the longest row's length of a batch.
        max_batch_rows: rows of a batch.
        max_queue: rows that wait.
        max_queue_tokens: their lengths together.
        max_wait: seconds a batch may wait for company; an idle engine never waits.
        deadline: seconds that a request may take, where it does not say so itself.
    """

    max_batch_tokens: int = 4096
    max_batch_rows: int = 64
    max_queue: int = 1024
    max_queue_tokens: int = 131_072
    max_wait: float = 0.002
    deadline: float = 10.0


class Waiting(Protocol):
    """What choosing needs to know of a row."""

    @property
    def length(self) -> int:
        """Its tokens; 1 where all rows are alike."""

    @property
    def group(self) -> Hashable:
        """Only rows of one group fit into one batch."""


class Timed(Waiting, Protocol):
    """What it needs to know besides, to say whose turn it is."""

    @property
    def since(self) -> float:
        """When it came, in seconds of the monotonic clock."""

    @property
    def deadline(self) -> float:
        """When its answer is of no use any more."""


W = TypeVar("W", bound=Waiting)
T = TypeVar("T", bound=Timed)


def turn(waiting: Sequence[T], now: float, spare: float) -> T:
    """The row whose turn it is: the one that has waited longest for what it costs, among equals the oldest.

    A short row does not wait as long as the long one before it takes; a long one is overtaken only as long as it has
    waited less, by its cost, than those that overtake it. One that has used half of its time goes before all others.

    Args:
        waiting: the oldest first; not empty.
        now: in seconds of the monotonic clock.
        spare: what a batch costs beyond its tokens, in tokens.

    Reference:
        Hansen, An Analysis of Response Ratio Scheduling, IFIP Congress 1971.
    """
    pressed = [row for row in waiting if 2 * now >= row.since + row.deadline]
    if pressed:
        return min(pressed, key=lambda row: row.deadline)
    return max(waiting, key=lambda row: (now - row.since) / (spare + row.length))


def choose(waiting: Sequence[W], first: W, limits: Limits, spare: float) -> list[W]:
    """The next batch: a row, and those nearest to it in length.

    In order of length the batch grows from that row outwards, to the side that adds less padding, until no
    neighbour fits. A neighbour fits if rows x longest stays within the budget, and if the padding that it brings is
    less than what a batch of its own would cost beyond its tokens.

    Args:
        waiting: the oldest first.
        first: one of them.
        limits: the budget.
        spare: what a batch costs beyond its tokens, in tokens.
    """
    kin = [row for row in waiting if row.group == first.group]
    kin.sort(key=lambda row: row.length)  # stable: among equals the older one comes first
    start = next(i for i, row in enumerate(kin) if row is first)
    end, width = start + 1, first.length
    while (rows := end - start) < limits.max_batch_rows:
        below = width - kin[start - 1].length if start else None
        above = (kin[end].length - width) * rows if end < len(kin) else None
        if below is not None and (below > spare or (rows + 1) * width > limits.max_batch_tokens):
            below = None
        if above is not None and (above > spare or (rows + 1) * kin[end].length > limits.max_batch_tokens):
            above = None
        if above is not None and (below is None or above <= below):
            width = kin[end].length
            end += 1
        elif below is not None:
            start -= 1
        else:
            break
    return kin[start:end]
