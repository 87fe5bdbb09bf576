"""What is asked of a model that writes, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from limbeck.core.artifacts import digest_of

PERMANENT = frozenset({"rejected", "empty", "content_filter", "too_long", "special_token"})
"""Reasons for which asking again would give the same."""
BUDGET = "budget"
"""The reason of what was not asked, because what may be spent is spent."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn; the names are those of OpenAI's interface and of transformers.

    Attributes:
        temperature: 0 is greedy.
        top_p: draw from the likeliest tokens that hold this much of the probability.
        max_tokens: longest answer, its reasoning included.
        stop: texts that end an answer.
        extra: further fields that an endpoint knows (`top_k`, `reasoning_effort`), sent as they are.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One answer that is wanted.

    Attributes:
        id: the prompt's id.
        sample: which of the prompt's answers this is, from 0. It is part of the key and, with `seed`, makes the
            answers to one prompt differ.
        messages: the conversation so far, {role, content} each.
        model: the name of the model that is asked.
        sampling: how the answer is drawn.
        seed: sent to models that take one; the request's own is `seed + sample`.
        address: where the model is asked: two addresses may serve different weights under one name. Empty for a
            local model, whose name holds the hash of its weights.
        written: the conversation holds text that a model wrote. What spells a special token in it is text.
    """

    id: str
    sample: int
    messages: tuple[Mapping[str, str], ...]
    model: str
    sampling: Sampling = Sampling()
    seed: int = 0
    address: str = ""
    written: bool = False

    @property
    def key(self) -> str:
        """sha256 of all that decides the answer; the prompt's id and who wrote it do not."""
        body = {**asdict(self), "messages": [dict(m) for m in self.messages]}
        left_out = {"id", "written"} if self.address else {"id", "written", "address"}
        return digest_of({k: v for k, v in body.items() if k not in left_out})


@dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
        content: what was said in the end.
        reasoning_content: what was thought before, None where nothing was.
        finish_reason: `stop`, or `length` where the answer was cut off.
        prompt_tokens: tokens of the prompt, as they are paid for.
        completion_tokens: tokens of reasoning and answer, as they are paid for.
        model: the model that answered, by its own word.
    """

    content: str
    reasoning_content: str | None
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str


@dataclass(frozen=True)
class Failure:
    """A request that stays unanswered: `reason` is a short name to count by, `detail` what was seen."""

    reason: str
    detail: str = ""

    @property
    def passes(self) -> bool:
        """Whether it was asked and a later run may well be answered: the endpoint was down, or too busy."""
        return self.reason not in PERMANENT | {BUDGET}


Outcome = Completion | Failure


class Generator(Protocol):
    """A model that writes: behind an endpoint, or in this process."""

    @property
    def name(self) -> str:
        """The model's name, part of every request's key."""

    def answer(self, requests: Sequence[Request], done: Callable[[Request, Outcome], None]) -> None:
        """Answer all requests, in any order; `done` is called once for each as soon as it is known.

        Raises:
            LimbeckError: nothing can be answered at all (no key, no money, no such model).
        """
