"""Every error that limbeck raises on purpose.

    LimbeckError
    ├── RecipeError      a recipe, an override or a part's field is wrong
    ├── DataError        rows are missing, malformed or do not fit the task
    ├── ModelError       a model cannot be loaded, built or paired with another
    ├── ArtifactError    a finished step is damaged, locked or out of date
    ├── TrainingError    a run cannot go on (non-finite loss, wrong batch sizes)
    ├── BudgetError      the student costs more than the recipe allows
    └── MissingExtra     an optional dependency is not installed

A message always says what happened; where they are known it goes on with what was
got, what is allowed and how to fix it, one line each.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LimbeckError(Exception):
    """Base of all errors that a user can cause and mend."""

    def __init__(self, what: str, *, got: object = None, allowed: object = None, fix: str | None = None):
        self.what, self.got, self.allowed, self.fix = what, got, allowed, fix
        parts = (("got", got), ("allowed", allowed), ("fix", fix))
        super().__init__("\n".join([what, *(f"  {name}: {value}" for name, value in parts if value is not None)]))


class RecipeError(LimbeckError):
    """A recipe, an override or a part's field is wrong."""


class DataError(LimbeckError):
    """Rows are missing, malformed or do not fit the task."""


class ModelError(LimbeckError):
    """A model cannot be loaded, built or paired with another."""


class ArtifactError(LimbeckError):
    """A finished step is damaged, locked or out of date."""


class TrainingError(LimbeckError):
    """A run cannot go on."""


class BudgetError(LimbeckError):
    """The student costs more than the recipe allows."""


class MissingExtra(LimbeckError):
    """An optional dependency is not installed.

    Args:
        feature: what the user asked for.
        extra: the name of limbeck's extra that brings it.
    """

    def __init__(self, feature: str, extra: str):
        super().__init__(f"{feature} needs an optional dependency", fix=f"pip install 'limbeck[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be, or None."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None
