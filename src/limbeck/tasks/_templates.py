"""What a chat template does with a thought, found by trying it out, and a turn written so that nothing is lost.

Templates of reasoning models differ: some take the thought as the field `reasoning_content`, some within the text, some
cut all before `</think>` out of every assistant's turn, and some open the thought in the generation prompt. The turn to
learn must hold the thought all the same, and stand behind the very prompt that generation has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from limbeck.core.errors import DataError
from limbeck.data.thinking import CLOSE, OPEN, Thought, fold

Turns = Sequence[Mapping[str, str]]
Way = Literal["field", "inline", "around"]

_ASK, _THOUGHT, _SAID = "limbeckasks", "limbeckthinks", "limbecksays"
"""Texts that no template holds and none changes."""


@dataclass(frozen=True)
class ThoughtInTemplate:
    """What a tokenizer's chat template does with thoughts.

    Attributes:
        keeps_field: the last turn's `reasoning_content` is written, behind the generation prompt.
        keeps_inline: so is `<think>` within the last turn's text.
        keeps_earlier: thoughts of earlier turns stay in the prompt.
        opens: the generation prompt has opened the thought already.
        end: what the template puts behind an assistant's text.
    """

    keeps_field: bool
    keeps_inline: bool
    keeps_earlier: bool
    opens: bool
    end: str

    @property
    def way(self) -> Way:
        """How a turn with a thought is written: by the template, as a field or in the text, or around it."""
        return "field" if self.keeps_field else "inline" if self.keeps_inline else "around"


def probe(tokenizer: Any) -> ThoughtInTemplate:
    """Try a chat template out on a made-up conversation.

    Args:
        tokenizer: one with a chat template.

    Raises:
        DataError: the template fails, or hides what an assistant says.
    """
    asked = [{"role": "user", "content": _ASK}]
    before = render(tokenizer, asked)
    plain = render(tokenizer, [*asked, {"role": "assistant", "content": _SAID}], answered=True)
    if _SAID not in plain:
        raise DataError(f"the chat template of {name_of(tokenizer)} hides what an assistant says", got=plain[:160])
    field, inline = (
        render(tokenizer, [*asked, turn], answered=True) for turn in _turns(Thought(_SAID, _THOUGHT, True))
    )
    later = [*asked, *_turns(Thought(_SAID, _THOUGHT, True))[:1], *asked]
    inner = [*asked, *_turns(Thought(_SAID, _THOUGHT, True))[1:], *asked]
    return ThoughtInTemplate(
        keeps_field=_holds(field, before, _THOUGHT, _SAID),
        keeps_inline=_holds(inline, before, _THOUGHT, _SAID),
        keeps_earlier=any(_THOUGHT in render(tokenizer, each) for each in (later, inner)),
        opens=opens(before),
        end=plain.rpartition(_SAID)[2],
    )


def write(tokenizer: Any, template: ThoughtInTemplate, turns: Turns, said: Thought) -> tuple[str, str]:
    """The generation prompt, and the assistant's turn that is learned behind it.

    A thought that the template would drop or change is written around it: generation prompt, thought, answer, the
    template's own end of a turn. A turn without a thought is the template's, unless the prompt opens one: then it is
    closed at once.

    Args:
        tokenizer: one with a chat template.
        template: what `probe` found.
        turns: the conversation so far.
        said: the turn to learn.

    Raises:
        DataError: the template fails, or changes or hides a turn without a thought.
    """
    before = render(tokenizer, turns)
    if said.reasoning_content is None and not opens(before):
        after = _behind(tokenizer, turns, {"role": "assistant", "content": said.content}, before)
        if after is None or said.content.strip() not in after:
            raise DataError(
                f"the chat template of {name_of(tokenizer)} changes or hides the answer to learn",
                got=repr(after)[:160],
                fix="task.template=plain, or another chat template",
            )
        return before, after
    if said.reasoning_content is not None and template.way != "around":
        turn = _turns(said)[0 if template.way == "field" else 1]
        after = _behind(tokenizer, turns, turn, before)
        if after is not None and _holds(before + after, before, said.reasoning_content, said.content):
            return before, after
    folded = fold(said.reasoning_content or "", said.content)
    if opens(before):
        folded = folded[len(OPEN) :].lstrip("\n") if before.endswith("\n") else folded[len(OPEN) :]
    return before, folded + template.end


def render(tokenizer: Any, turns: Turns, *, answered: bool = False) -> str:
    """A conversation as the template writes it; with the generation prompt, unless it is `answered`.

    Raises:
        DataError: the template refuses the conversation.
    """
    try:
        text = tokenizer.apply_chat_template(
            [dict(turn) for turn in turns], tokenize=False, add_generation_prompt=not answered
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise DataError(
            f"the chat template of {name_of(tokenizer)} refuses a conversation",
            got=f"{error}; turns: {roles}",
            fix="other turns, or task.template=plain",
        ) from error
    assert isinstance(text, str)
    return text


def opens(prompt: str) -> bool:
    """Whether a generation prompt has begun a thought."""
    return prompt.rstrip().endswith(OPEN)


def name_of(tokenizer: Any) -> str:
    """How messages call a tokenizer."""
    return tokenizer.name_or_path or type(tokenizer).__name__


def _turns(said: Thought) -> tuple[dict[str, str], dict[str, str]]:
    """A turn with its thought as a field, and in the text."""
    thought = said.reasoning_content or ""
    field = {"role": "assistant", "content": said.content, "reasoning_content": thought}
    return field, {"role": "assistant", "content": fold(thought, said.content)}


def _behind(tokenizer: Any, turns: Turns, turn: Mapping[str, str], before: str) -> str | None:
    whole = render(tokenizer, [*turns, turn], answered=True)
    return whole[len(before) :] if whole.startswith(before) else None


def _holds(whole: str, before: str, thought: str, said: str) -> bool:
    """Whether a thought stands behind the prompt, once, opened and closed, and then the answer."""
    if not whole.startswith(before):
        return False
    after = whole[len(before) :]
    first, close, rest = after.partition(CLOSE)
    begun = first.lstrip().startswith(OPEN) != opens(before)
    return begun and bool(close) and thought.strip() in first and said.strip() in rest and first.count(OPEN) <= 1
