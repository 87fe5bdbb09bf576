"""What a local model reads for a request, and what its tokens say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck.core.errors import ModelError, RecipeError
from limbeck.data.thinking import CLOSE, OPEN
from limbeck.generation.reply import read_message
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling
from limbeck.tasks._text import spells_special

Messages = Sequence[Mapping[str, str]]
_TAGS = (OPEN, CLOSE)
_EXTRA = ("top_k", "chat_template_kwargs")


@dataclass(frozen=True)
class Reader:
    """A tokenizer that turns requests into tokens and tokens into answers.

    Attributes:
        tokenizer: the model's.
        name: the model's, for answers.
        separator: stands behind the prompt where the tokenizer has no chat template.
        ends: tokens that end an answer, besides the tokenizer's own.
        encode: makes the prompt in place of the tokenizer, for a model that was trained on prompts of its own form.
    """

    tokenizer: Any
    name: str
    separator: str = "\n"
    ends: frozenset[int] = field(default_factory=frozenset)
    encode: Callable[[Messages], list[int]] | None = None

    @property
    def stops(self) -> frozenset[int]:
        """All tokens that end an answer."""
        own = self.tokenizer.eos_token_id
        return self.ends | (frozenset() if own is None else {own})

    def prompt(self, request: Request) -> list[int] | Failure:
        """The tokens of a request's messages; a failure where a model wrote the name of a special token into them.

        Such a text would end a turn, or begin one in another's name. Given prompts are the user's own word.

        Raises:
            ModelError: the tokenizer's template refuses the conversation.
        """
        if request.written and spells_special(self.tokenizer, (m["content"] for m in request.messages)):
            return Failure("special_token", "a model wrote the name of a special token")
        fields = dict(request.sampling.extra.get("chat_template_kwargs", {}))
        if self.encode is not None and not fields:
            return self.encode(request.messages)
        if not self.tokenizer.chat_template:
            text = "\n".join(m["content"] for m in request.messages) + self.separator
            opening = [i for i in self.tokenizer("", verbose=False)["input_ids"] if i == self.tokenizer.bos_token_id]
            return opening + list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        turns = [dict(m) for m in request.messages]
        try:
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **fields)
        except Exception as error:  # a template is a program of its own, and raises what it likes
            roles = ", ".join(m["role"] for m in turns)
            fix = "leave generate.system out" if "system" in roles else None
            raise ModelError(
                f"the chat template of {self.name} refuses a conversation ({roles})", got=error, fix=fix
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def outcome(self, request: Request, prompt: Sequence[int], new: Sequence[int], finished: bool) -> Outcome:
        """The answer in the tokens that a model wrote.

        Args:
            request: what was asked.
            prompt: its tokens.
            new: what was written, without the token that ended it and without padding.
            finished: False where it was cut off.
        """
        text, written = self._text(new), len(new) + finished
        for stop in request.sampling.stop:
            text, found, _ = text.partition(stop)
            finished = finished or bool(found)
        if self._text(prompt[-4:]).rstrip().endswith(OPEN) and not text.lstrip().startswith(OPEN):
            text = OPEN + text  # the template opened the thought
        content, reasoning, unclosed = read_message({"content": text})
        if finished and not content.strip() and reasoning is None:
            return Failure("empty", "no content")
        reason = "stop" if finished and not unclosed else "length"
        return Completion(content, reasoning, reason, len(prompt), written, self.name)

    def _text(self, ids: Sequence[int]) -> str:
        """Special tokens are no text, but think tags are, whatever the tokenizer calls them."""
        hidden = {i for i in self.tokenizer.all_special_ids if self.tokenizer.convert_ids_to_tokens(i) not in _TAGS}
        kept = [i for i in ids if i not in hidden]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def check_extra(sampling: Sampling) -> None:
    """Refuse further fields that a local model does not know.

    Raises:
        RecipeError: there are such fields.
    """
    if strange := sorted(set(sampling.extra) - set(_EXTRA)):
        raise RecipeError(
            "a local model does not know these fields of `sampling.extra`",
            got=", ".join(strange),
            allowed=", ".join(_EXTRA),
        )


def uniform_seed(request: Request) -> int:
    """Seeds the draws of a request: its key alone decides."""
    return int(request.key[:16], 16)
