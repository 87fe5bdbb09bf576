"""Answers that are too short or too long."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from limbeck.core.parts import part
from limbeck.verification.answers import without_thought
from limbeck.verification.types import Candidate, Filter


@part
class Length(Filter):
    """Drops answers whose thought or answer is shorter or longer than wanted. Bounds belong to what is kept.

    Reasons: `short_thought`, `long_thought`, `short_answer`, `long_answer`.
    """

    unit: Literal["characters", "words", "tokens"] = "characters"
    """What is counted. Words are runs of letters, and single Chinese characters; tokens need `tokenizer`."""
    tokenizer: str | None = None
    """A model's name or folder whose tokenizer counts the tokens, without special ones."""
    min_thought: int | None = Field(default=None, ge=0)
    """The least that a thought has; answers without one have 0."""
    max_thought: int | None = Field(default=None, ge=0)
    """The most that a thought has."""
    min_answer: int | None = Field(default=None, ge=0)
    """The least that an answer has, its thought not counted."""
    max_answer: int | None = Field(default=None, ge=0)
    """The most that an answer has, its thought not counted."""

    @model_validator(mode="after")
    def _bounds(self) -> Length:
        pairs = ((self.min_thought, self.max_thought), (self.min_answer, self.max_answer))
        if all(bound is None for pair in pairs for bound in pair):
            raise ValueError("no bound is given: min_thought, max_thought, min_answer or max_answer")
        if any(low is not None and high is not None and low > high for low, high in pairs):
            raise ValueError("the least is more than the most")
        if (self.unit == "tokens") != (self.tokenizer is not None):
            raise ValueError("`unit: tokens` and `tokenizer` belong together")
        return self

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        count = self._counter()
        for each in candidates:
            rest = without_thought(each.content) or ""
            inside = each.content[: len(each.content) - len(rest)].replace("<think>", "").replace("</think>", "")
            thought = count(((each.reasoning_content or "") + inside).strip())
            yield (
                each,
                (
                    _outside(thought, self.min_thought, self.max_thought, "thought")
                    or _outside(count(rest.strip()), self.min_answer, self.max_answer, "answer")
                ),
            )

    def _counter(self) -> Callable[[str], int]:
        if self.unit == "characters":
            return len
        if self.unit == "words":
            from limbeck.verification.grams import words

            return lambda text: len(words(text))
        from transformers import AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self.tokenizer)
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _outside(length: int, low: int | None, high: int | None, what: str) -> str | None:
    if low is not None and length < low:
        return f"short_{what}"
    return f"long_{what}" if high is not None and length > high else None
