"""Causal language modelling: a prompt, and the answer to learn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from limbeck.core.errors import DataError, ModelError
from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.core.types import IGNORE, Batch, Sample
from limbeck.data.steps import canonical
from limbeck.tasks._base import Codec, Encoded, Feature, Task
from limbeck.tasks._decode import generate
from limbeck.tasks._text import load_tokenizer, pad, text_of, tokenizer_for

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@part
class CausalLM(Task):
    """A prompt, and the answer to learn; the loss is on the answer and its end token alone."""

    max_length: int = Field(default=1024, gt=1)
    """Longest prompt and answer together, in tokens. Answers are cut (and counted), prompts never."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """`chat`: the tokenizer's chat template; `plain`: prompt, separator, answer. `auto`: chat where there is one."""
    separator: str = "\n"
    """Stands between prompt and answer in the plain form."""
    answer_pattern: str | None = r"####\s*(-?[\d,]*\.?\d+)"
    """Where the final answer stands in a text: the last match's first group. null: answers are not graded."""

    roles: ClassVar[Mapping[str, bool]] = {"messages": False, "prompt": False, "answer": False}
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    unit: ClassVar[str] = "tokens"

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"the pattern needs exactly one group, this has {groups}")
        return value

    def read(self, fields: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        if fields.get("messages") is not None:
            turns = _conversation(fields["messages"], where)
            return {"messages": turns[:-1]}, turns[-1]["content"], {}
        if "prompt" not in fields or "answer" not in fields:
            fix = "data.prompt=COLUMN data.answer=COLUMN, or data.messages=COLUMN"
            raise DataError(f"{where}: there is neither `messages` nor `prompt` and `answer`", fix=fix)
        prompt = text_of(fields["prompt"], "prompt", where)
        turns = [{"role": "user", "content": prompt}]
        return {"messages": turns}, text_of(fields["answer"], "answer", where), {}

    def load_processor(self, name: str, *, revision: str | None, trust_remote_code: bool) -> Any:
        return load_tokenizer(name, revision=revision, trust_remote_code=trust_remote_code)

    def new_processor(self, spec: Model, samples: Sequence[Sample]) -> Any:
        texts = (t for s in samples for t in (*(m["content"] for m in s.inputs["messages"]), s.target))
        return tokenizer_for(spec, texts, {"pad_token": "<pad>", "eos_token": "<eos>"})

    def codec(self, processor: Any, label_names: tuple[str, ...] | None) -> CausalCodec:
        if processor.eos_token_id is None:
            raise ModelError("the tokenizer has no end token, so that an answer could not end")
        if self.template == "chat" and not processor.chat_template:
            raise ModelError(
                "task.template is `chat`, but the tokenizer has no chat template", fix="task.template=plain"
            )
        return CausalCodec(processor, self)

    def same_reading(self, one: Any, other: Any) -> bool:
        return True  # vocabularies are compared row by row, see alignment/vocabulary.py


def _conversation(turns: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(turns, list | tuple) or len(turns) < 2:
        raise DataError(f"{where}: a conversation needs at least two turns", got=repr(turns)[:80])
    for turn in turns:
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise DataError(f"{where}: a turn is not {{role, content}}", got=repr(turn)[:80])
        text_of(turn["content"], "content of a turn", where)
    if turns[-1]["role"] != "assistant":
        raise DataError(f"{where}: the last turn is not the assistant's", got=turns[-1]["role"])
    return [{"role": str(t["role"]), "content": t["content"]} for t in turns]


class CausalCodec(Codec):
    """Prompts and answers with a tokenizer. The shift is done here, once: `labels[p]` follows input `p`."""

    def __init__(self, tokenizer: Any, task: CausalLM):
        self.processor, self.task = tokenizer, task
        opening = tokenizer("", verbose=False)["input_ids"]
        self.opening = [i for i in opening if i == tokenizer.bos_token_id]
        self.chat = task.template == "chat" or (task.template == "auto" and bool(tokenizer.chat_template))

    def settings(self) -> dict[str, Any]:
        special = {f"{role}_token_id": getattr(self.processor, f"{role}_token_id") for role in ("pad", "eos", "bos")}
        return {"vocab_size": len(self.processor), **special}

    def texts(self, sample: Sample) -> tuple[str, str]:
        """What stands before the answer, and the answer with all that the template adds to it."""
        turns = list(sample.inputs["messages"])
        if not self.chat:
            return "\n".join(t["content"] for t in turns) + self.task.separator, sample.target
        before = self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = self.processor.apply_chat_template(
            [*turns, {"role": "assistant", "content": sample.target}], tokenize=False
        )
        answer = whole[len(before) :]
        if not whole.startswith(before) or sample.target.strip() not in answer:
            raise DataError(
                f"the chat template changes or hides what sample {sample.id} is to teach",
                got=repr(answer)[:160],
                fix="task.template=plain, or another chat template",
            )
        return before, answer

    def prompt_ids(self, sample: Sample) -> list[int]:
        """The tokens of the prompt, the same in training and in generation."""
        return self._prompt(self.texts(sample)[0])

    def _prompt(self, text: str) -> list[int]:
        return self._ids(text) if self.chat else self.opening + self._ids(text)  # a template opens by itself

    def _ids(self, text: str) -> list[int]:
        return list(self.processor(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        features, counts, limit = [], Counter[str](), self.task.max_length
        end = self.processor.eos_token_id
        for sample in samples:
            before, after = self.texts(sample)
            prompt, answer = self._prompt(before), self._ids(after)
            if end in answer[-2:]:  # a template may end the turn itself, with a newline behind it
                answer = answer[: len(answer) - answer[::-1].index(end)]
            else:
                answer.append(end)
            if len(prompt) >= limit:
                counts["dropped_prompt_too_long"] += 1
                continue
            if len(prompt) + len(answer) > limit:
                counts["truncated_answers"] += 1
                answer = answer[: limit - len(prompt)]
            ids = prompt + answer
            features.append(Feature(sample.id, len(ids) - 1, self.values(ids, len(prompt))))
        return Encoded(features, counts)

    def values(self, ids: list[int], prompt: int) -> dict[str, Any]:
        """What `collate` needs of a row.

        Args:
            ids: prompt and answer.
            prompt: how many of them are the prompt's; nothing stands before the first token of a row without one
                that could predict it.
        """
        labels = [IGNORE] * (prompt - 1) + ids[max(prompt, 1) :]
        return {"input_ids": ids[:-1], "labels": labels}

    def collate(self, features: Sequence[Feature], side: str = "right") -> Batch:
        mask = pad([[1] * f.length for f in features], 0, side)
        inputs = {
            "input_ids": pad([f.values["input_ids"] for f in features], self.processor.pad_token_id, side),
            "attention_mask": mask,
        }
        if side == "left":  # positions count from the first real token
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        labels = pad([f.values["labels"] for f in features], IGNORE, side)
        return Batch(tuple(f.id for f in features), inputs, labels)

    def generate(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], ends: set[int], tokens: int, minimum: int = 0
    ) -> Tensor:
        """Greedy answers, [B, T] of new tokens, under the attention mask that training has.

        Args:
            model: in evaluation mode.
            prompts: token ids, see `prompt_ids`.
            ends: tokens that end an answer.
            tokens: the most new tokens.
            minimum: the fewest.
        """
        return generate(model, prompts, self.processor.pad_token_id, ends, tokens, minimum)

    def extract(self, text: str) -> str | None:
        """The final answer in a text, None where there is none or an empty one: two of those are not equal answers."""
        assert self.task.answer_pattern is not None, "answers are not graded"
        found = re.findall(self.task.answer_pattern, text)
        return canonical(found[-1]) or None if found else None
