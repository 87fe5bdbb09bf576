"""What becomes of a trained student: the formats that it is exported to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from limbeck.core.parts import Part
from limbeck.core.recipe.section import AnyExporter


def _listed(value: Any) -> Any:
    """One format may stand without a list."""
    return [] if value is None else value if isinstance(value, list | tuple) else [value]


def check_exports(given: list[Part]) -> None:
    """Every export has a folder of its own.

    Raises:
        ValueError: two have one name.
    """
    names = [each.folder for each in given]  # type: ignore[attr-defined]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two exports are named {', '.join(repeated)}; give one of them a `name`")


Exports = Annotated[list[AnyExporter], BeforeValidator(_listed)]
"""Formats, by name or with fields."""
