"""Tokens and money: what a call can cost at most, what it did cost, and how much may be spent.

Money is counted in whole billionths of the price's currency, rounded up, so that sums are exact.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal

from limbeck.generation.types import Request

NANO = 1_000_000_000
"""Billionths in one unit of money."""
_PER_PROMPT, _PER_MESSAGE = 256, 32
"""Tokens that a chat template may add: to a conversation (a default system prompt) and to each message."""


@dataclass(frozen=True)
class Amount:
    """Tokens and money.

    Attributes:
        prompt: tokens read.
        completion: tokens written.
        nano: billionths of a unit of money.
    """

    prompt: int = 0
    completion: int = 0
    nano: int = 0

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt + self.completion

    @property
    def cost(self) -> float:
        """Money, in the price's currency."""
        return self.nano / NANO

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.prompt + other.prompt, self.completion + other.completion, self.nano + other.nano)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.prompt - other.prompt, self.completion - other.completion, self.nano - other.nano)


@dataclass(frozen=True)
class Price:
    """Money per million tokens.

    Attributes:
        input: for tokens read; the full price, for what is found in a cache cannot be known before.
        output: for tokens written, the thought included.
    """

    input: float = 0.0
    output: float = 0.0

    def of(self, prompt: int, completion: int) -> Amount:
        """What so many tokens cost, rounded up to the next billionth."""
        per_million = Decimal(str(self.input)) * prompt + Decimal(str(self.output)) * completion
        return Amount(prompt, completion, math.ceil(per_million * NANO / 1_000_000))

    def worst(self, request: Request) -> Amount:
        """What a request can cost at most."""
        return self.of(prompt_bound(request), completion_bound(request))


@dataclass(frozen=True)
class Budget:
    """What may be spent; None is no limit.

    Attributes:
        tokens: tokens read and written.
        cost: money, in the price's currency.
    """

    tokens: int | None = None
    cost: float | None = None

    def holds(self, amount: Amount) -> bool:
        """Whether so much may be spent in all."""
        within_tokens = self.tokens is None or amount.tokens <= self.tokens
        return within_tokens and (self.cost is None or amount.nano <= math.floor(Decimal(str(self.cost)) * NANO))


def prompt_bound(request: Request) -> int:
    """An upper bound of a prompt's tokens, whatever the tokenizer.

    No token stands for less than one byte of the text; what a template may add around it is allowed for.
    """
    texts = sum(len(str(value).encode(errors="replace")) for m in request.messages for value in m.values())
    extra = request.sampling.extra  # tools and schemas are read, and paid for, like the prompt
    texts += len(json.dumps(dict(extra), ensure_ascii=False, default=str).encode(errors="replace")) if extra else 0
    return texts + _PER_MESSAGE * len(request.messages) + _PER_PROMPT


def completion_bound(request: Request) -> int:
    """An upper bound of an answer's tokens: the longest that was asked for."""
    asked = request.sampling.extra.get("max_completion_tokens")
    return request.sampling.max_tokens if asked is None else int(asked)
