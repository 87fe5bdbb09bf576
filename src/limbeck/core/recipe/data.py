"""Rows: where they come from, and which columns mean what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, field_validator

from limbeck.core.parts import Part
from limbeck.core.recipe.section import AnySource, Section

_SOURCE: TypeAdapter[Part] = TypeAdapter(AnySource)


class Data(Section):
    """Where the rows come from, and which columns mean what."""

    train: AnySource
    """Rows to learn from: a built-in name, a file, a folder, or a hub dataset."""
    validation: AnySource | float | None = None
    """Rows to choose checkpoints on: a source, or the share of the training rows to hold out.
    Left out: the training source's own `validation` split, or else a tenth of its rows."""
    test: AnySource | None = None
    """Rows for the final figures. Left out: the `test` split of the training source."""
    text: str | None = None
    """Column with the text (text classification)."""
    text_pair: str | None = None
    """Column with a second text, for tasks on pairs."""
    image: str | None = None
    """Column with the image."""
    label: str | None = None
    """Column with the class, a name or a number."""
    prompt: str | None = None
    """Column with the prompt (language modelling)."""
    answer: str | None = None
    """Column with the answer to learn."""
    messages: str | None = None
    """Column with a conversation, a list of {role, content}; takes the place of prompt and answer."""
    feedback: Path | None = None
    """A file or folder of rows that a server with a cascade has kept (`limbeck serve RUN --cascade --feedback`). They
    are added to the training rows, with the larger model's answer for the label; none that another split holds."""
    id: str | None = None
    """Column with a stable id. Left out: the split and the row's number."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Keep this many training rows, drawn by `seed`; the same rows whatever else changes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the validation rows and the subsample. Not changed by the recipe's `seed`."""

    @field_validator("validation", mode="before")
    @classmethod
    def _share_or_source(cls, value: Any) -> Any:
        """Told apart here, so that an error speaks of the one that was meant."""
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 < value < 1:
                raise ValueError("a share of the training rows lies between 0 and 1")
            return float(value)
        return _SOURCE.validate_python(value)

    def columns(self) -> dict[str, str]:
        """The columns that the recipe names, by what they mean."""
        roles = ("text", "text_pair", "image", "label", "prompt", "answer", "messages", "id")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}
