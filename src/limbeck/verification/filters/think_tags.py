"""Thoughts whose tags are broken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from limbeck.core.parts import part
from limbeck.verification.types import Candidate, Filter

_TAG = re.compile(r"<(/?)think(?:ing)?\s*>", re.IGNORECASE)


@part
class ThinkTags(Filter):
    """Drops answers whose thought is not exactly one `<think> ... </think>` before the answer, or none.

    Reasons: `nested_think` (a tag within the thought), `unclosed_think`, `unopened_think`, `late_think` (the thought
    does not come first), `second_think`.
    """

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        for each in candidates:
            yield each, broken(each)


def broken(candidate: Candidate) -> str | None:
    """What is wrong with the tags of an answer, by a short name; None if nothing is."""
    if _TAG.search(candidate.reasoning_content or ""):
        return "nested_think"
    text = candidate.text
    depth, closed = 0, 0
    for tag in _TAG.finditer(text):
        if tag[1]:
            if depth == 0:
                return "unopened_think"
            depth, closed = 0, closed + 1
        elif depth:
            return "nested_think"
        elif closed:
            return "second_think"
        elif text[: tag.start()].strip():
            return "late_think"
        else:
            depth = 1
    return "unclosed_think" if depth else None
