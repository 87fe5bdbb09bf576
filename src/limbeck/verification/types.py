"""A model's answer as those see it who judge it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from limbeck.core.errors import DataError, RecipeError
from limbeck.core.parts import Part, part
from limbeck.data.thinking import fold

Messages = tuple[Mapping[str, str], ...]
"""A conversation, {role, content} each."""

Ask = Callable[[Sequence[Messages]], Sequence[str | None]]
"""Asks a model: its answer to each conversation, in order, None where it gave none."""


@dataclass(frozen=True)
class Candidate:
    """An answer to judge.

    Attributes:
        id: of the answer: `<prompt id>#<sample>`.
        prompt: id of the prompt; answers to one prompt are rivals.
        messages: what was asked, {role, content} each.
        content: the answer.
        reasoning_content: the thought before it, None where there is none.
        finish_reason: `stop`, or `length` where it was cut off.
        reference: what the row says is right: a text, a number, tests. None where it says nothing.
        meta: further columns of the row, and what is known of the answer (tokens, difficulty, stage).
    """

    id: str
    prompt: str
    messages: Messages
    content: str
    reasoning_content: str | None = None
    finish_reason: str = "stop"
    reference: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What the user asked last."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def text(self) -> str:
        """Thought and answer in one: `<think>`, the thought, `</think>`, the answer."""
        if self.reasoning_content is None:
            return self.content
        return fold(self.reasoning_content, self.content)

    @property
    def cut_off(self) -> bool:
        """Whether the answer ended because its budget of tokens did."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class Verdict:
    """What a verifier found.

    Attributes:
        ok: whether the answer is right.
        reason: a short name to count by: `right`, `wrong`, `no_answer`, `timeout` and the like.
        found: the final answer that was read out of the text, None where none was; for a failure that is no wrong
            answer, what failed.
    """

    ok: bool
    reason: str
    found: str | None = None


class Checker(Protocol):
    """What says whether answers are right: a verifier, or one that has been given a model to ask."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """A verdict for each, in order."""

    def final(self, candidate: Candidate) -> str | None:
        """The final answer, in a form in which equal answers are equal texts."""


@part
class Verifier(Part, ABC):
    """Says whether an answer is right."""

    asks_model: ClassVar[bool] = False
    """It asks a model, and has to be given one with `asking` before it can verify."""

    @abstractmethod
    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        """A verdict for each, in order.

        Raises:
            DataError: a reference is missing or cannot be read.
        """

    def final(self, candidate: Candidate) -> str | None:
        """The final answer, in a form in which equal answers are equal texts; what a vote counts.

        Raises:
            RecipeError: this verifier reads no final answer.
        """
        raise RecipeError(
            f"the verifier '{self.type()}' reads no final answer that could be voted on",
            allowed="math_answer, multiple_choice, exact, regex",
            fix="leave out `vote`",
        )

    def asking(self, ask: Ask) -> Checker:
        """The same verifier, with a model to ask; itself where it asks none."""
        return self


class Held(NamedTuple):
    """A row of the evaluation sets: what it asks, and its answer where that is a text."""

    question: str
    answer: str = ""


class Sieve(Protocol):
    """What lets answers through or not: a filter, or one that has been given evaluation rows to compare with."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        """Each candidate, in order, with None if it stays, or a short reason to count by if it goes."""


@part
class Filter(Part, ABC):
    """Says which answers are not worth learning from, right or not."""

    compares: ClassVar[bool] = False
    """It holds answers against one another, so that it comes after the verifier: a wrong answer must not stand in the
    way of a right one that is like it."""

    @abstractmethod
    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        """Each candidate, in order, with None if it stays, or a short reason to count by if it goes."""

    def against(self, held: Iterable[Held]) -> Sieve:
        """The same filter, with the rows of the evaluation sets; itself where it does not need them."""
        return self


def reference_of(candidate: Candidate, verifier: str) -> Any:
    """A candidate's reference.

    Raises:
        DataError: there is none.
    """
    if candidate.reference is None:
        raise DataError(
            f"the verifier '{verifier}' needs to know what is right, but the row says nothing",
            got=f"prompt {candidate.prompt} without a reference",
            fix="name the column of the right answers (`data.answer`), or leave out `verify`",
        )
    return candidate.reference
