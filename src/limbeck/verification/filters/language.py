"""Answers in another writing than wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from limbeck.core.parts import part
from limbeck.verification.types import Candidate, Filter

_SCRIPTS = {
    "latin": r"A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "han": r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "kana": r"\u3040-\u30ff",
    "hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "cyrillic": r"\u0400-\u052f",
    "arabic": r"\u0600-\u06ff\u0750-\u077f",
    "devanagari": r"\u0900-\u097f",
    "thai": r"\u0e00-\u0e7f",
    "hebrew": r"\u0590-\u05ff",
    "greek": r"\u0370-\u03ff",
}
_CODE = re.compile(
    r"```.*?```|\$\$.{0,2000}?\$\$|\\\[.{0,2000}?\\\]|\\\(.{0,2000}?\\\)|\$[^$\n]{1,300}\$|\\boxed\s*\{[^{}]*\}|</?\w+>|https?://\S+",
    re.DOTALL,
)
Script = Literal["latin", "han", "kana", "hangul", "cyrillic", "arabic", "devanagari", "thai", "hebrew", "greek"]


@part
class Language(Filter):
    """Drops answers in another script than wanted: teachers that reason at length change language midway.

    It counts letters by script and knows no languages: English and French are both `latin`. A Chinese character counts
    as two letters, since one says about as much as half a word. Code, formulas and links are not counted, nor are Greek
    letters unless Greek is wanted, since they are mathematics. Thought and
    answer are looked at one by one, so that a short answer in the wrong language is not hidden by a long thought.

    Reasons: `language_thought`, `language_answer`.
    """

    script: Script | tuple[Script, ...] = "latin"
    """The wanted script, or several that are all right."""
    least: float = Field(default=0.9, gt=0, le=1)
    """The least share of the letters that is written in it."""
    thought: bool = True
    """The thought is looked at too."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        for each in candidates:
            if self.thought and each.reasoning_content and self.share(each.reasoning_content) < self.least:
                yield each, "language_thought"
            else:
                yield each, "language_answer" if self.share(each.content) < self.least else None

    def share(self, text: str) -> float:
        """The share of a text's letters that is written in the wanted script; 1 for a text without letters."""
        text = _CODE.sub(" ", text)
        wanted = (self.script,) if isinstance(self.script, str) else self.script
        names = [name for name in _SCRIPTS if name != "greek" or name in wanted]
        counts = {name: (2 if name == "han" else 1) * len(_PATTERNS[name].findall(text)) for name in names}
        total = sum(counts.values())
        return sum(counts[name] for name in wanted) / total if total else 1.0


_PATTERNS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}
