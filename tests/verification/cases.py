"""What the tests of this room share."""

from __future__ import annotations

from typing import Any

from limbeck.core.parts import build
from limbeck.verification.types import Candidate, Filter, Verdict, Verifier


def candidate(content: str, reference: Any = None, prompt: str = "p", sample: int = 0, **more: Any) -> Candidate:
    """An answer to judge."""
    asked = ({"role": "user", "content": more.pop("question", "What is it?")},)
    return Candidate(f"{prompt}#{sample}", prompt, asked, content, reference=reference, **more)


def verifier(config: Any) -> Verifier:
    """A verifier as a recipe names it."""
    made = build("verifier", config)
    assert isinstance(made, Verifier)
    return made


def sieve(config: Any) -> Filter:
    """A filter as a recipe names it."""
    made = build("filter", config)
    assert isinstance(made, Filter)
    return made


def verdict(config: Any, content: str, reference: Any = None, **more: Any) -> Verdict:
    """What a verifier says of one answer."""
    return verifier(config).verify([candidate(content, reference, **more)])[0]


def reasons(config: Any, *candidates: Candidate) -> list[str | None]:
    """What a filter says of answers."""
    return [reason for _, reason in sieve(config).judge(candidates)]
