"""Answers that say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from limbeck.core.parts import part
from limbeck.verification.answers import without_thought
from limbeck.verification.types import Candidate, Filter


@part
class Empty(Filter):
    """Drops answers of which nothing is left beside the thought; with `thought`, those without a thought too.

    Reasons: `empty`, `no_thought`.
    """

    thought: bool = False
    """A thought is wanted: in `reasoning_content`, or within `<think>`."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        for each in candidates:
            rest = without_thought(each.content)
            inside = each.content[: len(each.content) - len(rest or "")]
            thought = (each.reasoning_content or "") + inside.replace("<think>", "").replace("</think>", "")
            if not (rest or "").strip():
                yield each, "empty"
            else:
                yield each, "no_thought" if self.thought and not thought.strip() else None
