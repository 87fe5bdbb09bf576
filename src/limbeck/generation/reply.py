"""From what an endpoint sent to an answer, or to the reason why there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.data.thinking import split_thought
from limbeck.generation.types import Completion, Failure, Outcome

_STOP = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence"})
_LENGTH = frozenset({"length", "max_tokens"})
_DETAIL = 300
_ABSURD = 10**12
"""No call has so many tokens; sums of what is less fit into the ledger."""


@dataclass(frozen=True)
class Reply:
    """A body that was read.

    Attributes:
        outcome: the answer, or why there is none.
        usage: tokens of prompt and answer as the endpoint charges them; None where it does not say.
    """

    outcome: Outcome
    usage: tuple[int, int] | None


def read_body(text: str) -> Reply:
    """Read the body of a response with status 200.

    Blank lines before and after the JSON are a sign of life that some endpoints send. A body that is cut short, is no
    JSON or lacks a part is `malformed`; one that does not say what it charges is `no_usage`, for nothing could be
    counted.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return Reply(Failure("malformed", f"no JSON: {clip(text)}"), None)
    choices = body.get("choices") if isinstance(body, Mapping) else None
    usage = _usage(body)
    if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
        return Reply(Failure("malformed", f"no choices: {clip(text)}"), usage)
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        return Reply(Failure("malformed", f"no message: {clip(text)}"), usage)
    if usage is None:
        return Reply(Failure("no_usage", f"the endpoint does not say what it charges: {clip(text)}"), None)
    return Reply(_read(message, choices[0].get("finish_reason"), usage, str(body.get("model") or "")), usage)


def read_message(message: Mapping[str, Any]) -> tuple[str, str | None, bool]:
    """Answer and thought of a message, wherever an endpoint puts them.

    The thought is the field `reasoning_content` or `reasoning`, or stands between `<think>` and `</think>` in the
    content, also where the closing tag is missing.

    Returns:
        Content, thought (None: there is none), and whether a thought is all there is.
    """
    told = next((t for name in ("reasoning_content", "reasoning") if (t := _text(message.get(name))).strip()), None)
    content, thought, _ = split_thought(_text(message.get("content")))
    reasoning = "\n\n".join(dict.fromkeys(t.strip() for t in (told, thought) if t)) or None
    return content, reasoning, reasoning is not None and not content.strip()


def clip(text: str) -> str:
    """The beginning of a text, on one line, as a detail that is kept."""
    return " ".join(_whole(text[: 4 * _DETAIL]).split())[:_DETAIL]


def _read(message: Mapping[str, Any], finish: Any, usage: tuple[int, int], model: str) -> Outcome:
    content, reasoning, cut_off = read_message(message)
    if finish == "content_filter":
        return Failure("content_filter", "the endpoint keeps the answer back")
    if not isinstance(finish, str) or finish not in _STOP | _LENGTH:
        return Failure("interrupted", clip(f"finish_reason {finish!r}"))
    if not content.strip() and reasoning is None and finish in _STOP:
        return Failure("empty", "no content")
    # A thought without an answer was cut off, by whatever name the endpoint calls it.
    return Completion(
        content=content,
        reasoning_content=reasoning,
        finish_reason="length" if finish in _LENGTH or cut_off else "stop",
        prompt_tokens=usage[0],
        completion_tokens=usage[1],
        model=_whole(model),
    )


def _usage(body: Any) -> tuple[int, int] | None:
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < _ABSURD for n in (prompt, completion)):
        return None
    return prompt, completion  # type: ignore[return-value]  # they are whole numbers, as was just asked


def _text(value: Any) -> str:
    """A field's text; some endpoints give a list of parts."""
    if isinstance(value, list):
        texts = (part.get("text") for part in value if isinstance(part, Mapping))
        return "".join(_whole(text) for text in texts if isinstance(text, str))
    return _whole(value) if isinstance(value, str) else ""


def _whole(text: str) -> str:
    """Half a surrogate pair, which JSON can spell, is no text and fits into no file."""
    return text.encode(errors="replace").decode()
