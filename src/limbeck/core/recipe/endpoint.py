"""A model behind an address: what is asked of it costs money and gives text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from limbeck.core.recipe.section import Section

RESERVED = ("model", "messages", "n", "best_of", "stream", "max_tokens")
"""Fields of a request that are limbeck's own: one call is one answer, whose most tokens are known."""


def check_extra(fields: Mapping[str, Any]) -> None:
    """Refuse further fields of a request that would make its cost unknown.

    Raises:
        ValueError: there are such fields.
    """
    if found := [name for name in RESERVED if name in fields]:
        raise ValueError(f"these fields cannot be set as extra ones: {', '.join(found)}")
    most = fields.get("max_completion_tokens", 1)
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
        raise ValueError(f"max_completion_tokens is no number of tokens: {most!r}")


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    check_extra(value)
    return value


ExtraFields = Annotated[dict[str, Any], AfterValidator(_checked)]
"""Further fields of a request, none of which is limbeck's own."""


class Price(Section):
    """Money per million tokens."""

    input: Annotated[float, Field(ge=0)] = 0.0
    """For tokens of the prompt."""
    output: Annotated[float, Field(ge=0)] = 0.0
    """For tokens of the answer, the thought included."""
    batch_discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What is taken off for answers that come from a batch (`--batch-in`); 0.5: half the price."""


class Endpoint(Section):
    """A model behind an interface like OpenAI's. It gives text, no distributions."""

    base_url: str
    """The address, up to and without `/chat/completions`, for instance `http://localhost:8000/v1`."""
    model: str
    """The model's name there."""
    known_as: Annotated[str, Field(min_length=1)] | None = None
    """What the ledger calls the address. Left out: the address itself, so that another address is another model, and
    is asked again. For a server of your own that moves."""
    api_key: str | None = None
    """Name of the environment variable that holds the key, never the key itself. Left out: none is needed."""
    price: Price = Price()
    """Money per million tokens; a budget in money and the cost in a dry run are counted with it."""
    currency: str = "USD"
    """What the price is in."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one call may take."""
    max_concurrency: Annotated[int, Field(gt=0)] = 32
    """Most calls at once; how many there are is found by trying."""
    attempts: Annotated[int, Field(gt=0)] = 8
    """How often a request is tried in one run."""
    idempotent: bool = False
    """The endpoint charges once for calls with the same Idempotency-Key."""
    extra: ExtraFields = {}
    """Further fields of every request, for instance `{reasoning_effort: low}`."""

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"an address such as https://host/v1 is wanted, got {value!r}")
        if parts.username or parts.password:
            raise ValueError("the address holds a secret; put it into an environment variable and name that: `api_key`")
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _names_a_variable(cls, value: str | None) -> str | None:
        # The value is not repeated: it may be the key itself, and errors end up in logs.
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
            raise ValueError(
                "the name of an environment variable is wanted, such as MY_API_KEY, and not the key itself"
            )
        return value
