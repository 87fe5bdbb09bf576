"""Answers that were cut off."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from limbeck.core.parts import part
from limbeck.verification.answers import marked, without_thought
from limbeck.verification.types import Candidate, Filter

_END = re.compile(r"[.!?:;…。！？；：)\]}）】」』\"'”’$|`*>_%~]$")  # noqa: RUF001 - Chinese signs are meant
_GOES_ON = re.compile(r"[,;]\s*[^\W\d]|\s(?:because|since|as|for)\b")
_SHORT = 40
"""Characters of a marked answer that may end a text without a full stop: `#### 94`, `The answer is B`."""


@part
class Truncated(Filter):
    """Drops answers that ended because their budget of tokens did, and those whose thought never ends.

    Reasons: `truncated` (finish reason `length`), `unclosed_think`, `mid_sentence`.
    """

    whole_sentences: bool = False
    """Answers that end within a sentence are dropped too: for recorded texts that do not tell how they ended. An answer
    has to end with a sign that ends sentences, formulas or code, or with a short marked answer."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        for each in candidates:
            if each.cut_off:
                yield each, "truncated"
            elif each.text.rfind("<think>") > each.text.rfind("</think>"):
                yield each, "unclosed_think"
            else:
                yield each, "mid_sentence" if self.whole_sentences and _breaks_off(each.content) else None


def _breaks_off(content: str) -> bool:
    lines = [line for line in (without_thought(content) or "").splitlines() if line.strip()]
    if not lines or _END.search(lines[-1].rstrip()):
        return False
    ends = (found.text for found in marked(lines[-1]))
    return not any(len(text) <= _SHORT and not _GOES_ON.search(text) for text in ends)
