"""From a file or a mapping to a checked recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from limbeck.core.errors import RecipeError
from limbeck.core.recipe.job import Recipe
from limbeck.core.recipe.section import dump_recipe
from limbeck.core.yaml import apply_overrides, read_yaml


def load_recipe(source: Recipe | Mapping[str, Any] | str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A checked recipe from a file, a mapping, or a recipe, with overrides put in.

    Raises:
        RecipeError: with one line for each thing that is wrong and the full path of its key.
    """
    if isinstance(source, Recipe):
        source = dump_recipe(source)
    name = "the recipe" if isinstance(source, Mapping) else str(source)
    raw = source if isinstance(source, Mapping) else read_yaml(Path(source))
    try:
        return Recipe.model_validate(apply_overrides(raw, overrides))
    except ValidationError as error:
        # Without its cause, which would repeat what was given, perhaps a key.
        raise RecipeError(f"{name} is not a valid recipe:\n" + "\n".join(lines_of(error.errors()))) from None


def lines_of(errors: Iterable[ErrorDetails]) -> Iterator[str]:
    """One line for each thing that is wrong; what stages inherit from `training` is told once, there."""
    errors = list(errors)
    at_training = {(e["loc"][1:], e["msg"]) for e in errors if e["loc"][:1] == ("training",)}
    for error in errors:
        if error["loc"][:1] == ("training",) or (error["loc"][-1:], error["msg"]) not in at_training:
            yield _line(error)


def _line(error: ErrorDetails) -> str:
    loc = [str(part) for part in error["loc"]]
    text = error["msg"].removeprefix("Value error, ").replace("\n", "\n    ")
    if error["type"] == "unknown_key":
        loc.append(error["ctx"]["key"])
    elif error["type"] == "model_type":
        text = f"a mapping of keys to values is wanted, got {error['input']!r}"
    elif isinstance(error["input"], str | int | float | None) and error["type"] != "value_error":
        text += f", got {error['input']!r}"
    path = ".".join(loc)
    return f"  {path}: {text}" if path else f"  {text}"
