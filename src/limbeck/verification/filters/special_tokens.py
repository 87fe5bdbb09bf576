"""Texts that hold control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from limbeck.core.parts import part
from limbeck.verification.types import Candidate, Filter

_KNOWN = (
    r"<\|[A-Za-z][\w ]{0,40}\|>",  # <|im_end|>, <|endoftext|>, <|eot_id|>
    r"<\uff5c[^\s<>]{1,60}\uff5c>",  # DeepSeek's, with wide bars
    r"</?s>|<(?:bos|eos|pad|unk)>",
    r"<(?:start|end)_of_turn>",
    r"\[/?INST\]|<</?SYS>>",
    r"\[(?:CLS|SEP|MASK|PAD)\]",
)


@part
class SpecialTokens(Filter):
    """Drops rows with strings that a tokenizer may read as control tokens: `<|im_end|>`, `</s>`, `[INST]`.

    In a training row such a string ends a turn, or begins one in another's name, whoever wrote it. Question, thought
    and answer are looked at.

    Reasons: `special_token_question`, `special_token`.
    """

    also: tuple[str, ...] = ()
    """Further strings that are control tokens of the student's tokenizer."""
    allow: tuple[str, ...] = ()
    """Strings that are let through, `<s>` in HTML for one."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        pattern = re.compile("|".join([*_KNOWN, *(re.escape(text) for text in self.also if text)]))
        for each in candidates:
            if any(self._holds(pattern, turn["content"]) for turn in each.messages):
                yield each, "special_token_question"
            else:
                yield each, "special_token" if self._holds(pattern, each.text) else None

    def _holds(self, pattern: re.Pattern[str], text: str) -> bool:
        return any(found[0] not in self.allow for found in pattern.finditer(text))
