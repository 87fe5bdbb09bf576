"""A model that writes as a classifier: the class is asked for in words, and read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from limbeck.core.recipe.endpoint import Endpoint as Section
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling

UNREADABLE = "no_class"
"""The reason of an answer that names none of the classes."""


def class_request(
    id: str,
    texts: Mapping[str, str],
    labels: Sequence[str],
    section: Section,
    prompt: str,
    max_tokens: int,
    *,
    roles: Iterable[str],
) -> Request:
    """The request for a row's class.

    Args:
        id: the row's.
        texts: of the row, by role.
        labels: the classes.
        section: the endpoint.
        prompt: with `{labels}` and `{text}` in their places.
        max_tokens: longest answer.
        roles: of the task, in whose order a row's texts stand, whatever the order in which a caller sends them.
    """
    # Both at once: what looks like a place in a user's text is text.
    places = {"{labels}": "\n".join(labels), "{text}": "\n".join(texts[role] for role in roles if role in texts)}
    said = re.sub(r"\{labels\}|\{text\}", lambda found: places[found[0]], prompt)
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens, extra=dict(section.extra))
    address = section.known_as or section.base_url
    return Request(id, 0, ({"role": "user", "content": said},), section.model, sampling, address=address)


def read_class(outcome: Outcome, labels: Sequence[str]) -> str | Failure:
    """The class that an answer names, by its exact name but for case and what stands around it; or why there is none.

    Args:
        outcome: of a request that `class_request` made.
        labels: the classes.
    """
    if not isinstance(outcome, Completion):
        return outcome
    if outcome.content.strip() in labels:
        return outcome.content.strip()
    found = [label for label in labels if _bare(label) == _bare(outcome.content)]
    return found[0] if len(found) == 1 else Failure(UNREADABLE)


def _bare(text: str) -> str:
    return text.strip().strip("\"'`*.").strip().casefold()
