"""Small pictures beside the rows that a report shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from limbeck.core.types import Sample

SIDE = 64
"""Pixels of the longer side; larger pictures are made smaller."""


def add_pictures(examples: Sequence[dict[str, Any]], samples: Sequence[Sample]) -> None:
    """Put a picture, as a `data:` address of a PNG, beside every example whose row has one, as `image`.

    Args:
        examples: rows of `details/examples.json`; changed in place.
        samples: the rows that were evaluated.
    """
    from PIL import Image

    wanted = {each["id"]: each for each in examples}
    for sample in samples:
        picture = sample.inputs.get("image")
        if sample.id not in wanted or not isinstance(picture, Image.Image):
            continue
        small = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "PNG", optimize=True)
        wanted[sample.id]["image"] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
