"""What somebody sends to the playground, read and bounded."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from PIL import Image

from limbeck.core.errors import DataError
from limbeck.core.types import Sample
from limbeck.live.models import Plan
from limbeck.tasks.image_classification import picture

if TYPE_CHECKING:
    from limbeck.live.opened import Opened
    from limbeck.report.words import Words

CHARACTERS = 20_000
"""Longest text."""
PIXELS = 24_000_000
"""Most pixels of a picture; what unpacks to more is not unpacked."""
PICTURE_BYTES = 8 * 2**20
"""Largest file of a picture."""
NEW_TOKENS, HOTTEST = 2048, 2.0
"""Longest answer, and highest temperature."""
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


@dataclass(frozen=True)
class Question:
    """What the models are asked.

    Attributes:
        sample: the input.
        plan: how language models answer.
        target: what is right, where a test row says so; None: nobody knows.
        paid: whether models that cost something are asked too.
    """

    sample: Sample
    plan: Plan
    target: str | None = None
    paid: bool = False

    @property
    def text(self) -> str:
        """What a language model is asked, without earlier turns."""
        turns = self.sample.inputs.get("messages")
        return str(turns[-1]["content"]) if turns else ""


def read(opened: Opened, fields: Mapping[str, Any], say: Words) -> Question:
    """A question out of what a form or a script sends.

    Args:
        opened: the run.
        fields: `text` and `text_pair`, `image` (a data URL) or `prompt`; `row`, the place of a test row that it began
            as; `max_new_tokens`, `temperature`, `seed`; `paid`.
        say: the page's language.

    Raises:
        HTTPException: something is missing, too large, or no such thing.
    """
    row = _row(opened, fields, say)
    inputs = _inputs(opened, fields, row, say)
    plan = Plan(
        max_new_tokens=int(_number(fields, "max_new_tokens", 256, (1, NEW_TOKENS), say)),
        temperature=_number(fields, "temperature", 0.0, (0.0, HOTTEST), say),
        seed=int(_number(fields, "seed", 0, (0, 2**31 - 1), say)),
    )
    same = row is not None and inputs == row.inputs
    # An answer is no part of the question; a text in its place says which kind of task it is to a codec.
    target = row.target if row is not None and same else None
    id = row.id if row is not None and same else "asked"
    return Question(Sample(id, inputs, "" if opened.kind == "prompt" else None), plan, target, bool(fields.get("paid")))


def _row(opened: Opened, fields: Mapping[str, Any], say: Words) -> Sample | None:
    place = str(fields.get("row", "") if fields.get("row") is not None else "")
    if not place:
        return None
    if not (place.isascii() and place.isdigit() and len(place) < 12) or int(place) >= len(opened.rows):
        raise HTTPException(400, say("play.wrong.row"))
    return opened.rows[int(place)]


def _inputs(opened: Opened, fields: Mapping[str, Any], row: Sample | None, say: Words) -> dict[str, Any]:
    if opened.kind == "image":
        if fields.get("image"):
            return {"image": _picture(fields["image"], say)}
        if row is None:
            raise HTTPException(400, say("play.wrong.no_picture"))
        return dict(row.inputs)
    if opened.kind == "prompt":
        turns = [dict(turn) for turn in row.inputs["messages"]] if row is not None else [{"role": "user"}]
        return {"messages": [*turns[:-1], {**turns[-1], "content": _text(fields, "prompt", say)}]}
    pair = {"text_pair": _text(fields, "text_pair", say)} if fields.get("text_pair") else {}
    return {"text": _text(fields, "text", say), **pair}


def _text(fields: Mapping[str, Any], name: str, say: Words) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise HTTPException(400, say("play.wrong.empty"))
    if len(value) > CHARACTERS:
        raise HTTPException(400, say("play.wrong.long", most=f"{CHARACTERS:,}", n=f"{len(value):,}"))
    value = value.replace("\r\n", "\n")  # forms send their lines so
    return value.encode("utf-8", "replace").decode()  # halves of characters cannot be read by a tokenizer


def _number(fields: Mapping[str, Any], name: str, default: float, bounds: tuple[float, float], say: Words) -> float:
    value = fields.get(name)
    if value in (None, ""):
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not bounds[0] <= number <= bounds[1]:
        place = {"what": say(f"play.{name}"), "low": f"{bounds[0]:g}", "high": f"{int(bounds[1])}"}
        raise HTTPException(400, say("play.wrong.number", **place))
    return number


def _picture(value: Any, say: Words) -> Image.Image:
    """A picture out of a data URL; its size is known before its pixels are unpacked."""
    head, _, body = value.partition(";base64,") if isinstance(value, str) else ("", "", "")
    if not head.startswith("data:image/"):
        raise HTTPException(400, say("play.wrong.picture"))
    if len(body) > 4 * PICTURE_BYTES // 3 + 4:
        raise HTTPException(400, say("play.wrong.large", most=f"{PICTURE_BYTES >> 20}"))
    try:
        data = base64.b64decode(body, validate=True)
        with Image.open(io.BytesIO(data), formats=_FORMATS) as shown:
            pixels = shown.width * shown.height
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise HTTPException(400, say("play.wrong.picture")) from error
    if pixels > PIXELS:
        raise HTTPException(400, say("play.wrong.pixels", most=f"{PIXELS // 1_000_000}"))
    try:
        return picture(data, "the picture")
    except DataError as error:
        raise HTTPException(400, say("play.wrong.picture")) from error


def data_url(image: Image.Image) -> str:
    """A picture as the page shows it."""
    kept = io.BytesIO()
    (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")).save(kept, "PNG")
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode("ascii")
