"""What the report shows, and in which language."""

from __future__ import annotations

from typing import Literal

from limbeck.core.recipe.section import Section


class Report(Section):
    """What the report shows."""

    title: str | None = None
    """Headline; left out: teacher and student by name."""
    language: Literal["en", "zh"] = "en"
    """What the page is written in: English or Chinese."""
