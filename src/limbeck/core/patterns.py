"""Layers named by patterns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from limbeck.core.errors import RecipeError, nearest


def named(patterns: Sequence[str], layers: Collection[str], field: str) -> set[str]:
    """The layers that patterns name.

    A pattern, with `*`, names a layer and all that is in it: `encoder.layer.0` names
    `encoder.layer.0.attention.query` too.

    Args:
        patterns: of a field `keep`.
        layers: the names that there are.
        field: whose patterns they are, for the message.

    Raises:
        RecipeError: a pattern names none.
    """
    found: set[str] = set()
    for pattern in patterns:
        these = {each for each in layers if fnmatchcase(each, pattern) or fnmatchcase(each, f"{pattern}.*")}
        if not these:
            guess = nearest(pattern, layers)
            raise RecipeError(
                f"`{field}` names no layer that would become integers: {pattern}",
                allowed=", ".join(list(layers)[:8]) + (", ..." if len(layers) > 8 else ""),
                fix=f"did you mean '{guess}'?" if guess else None,
            )
        found |= these
    return found
