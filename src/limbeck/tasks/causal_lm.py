"""Causal language modelling: a prompt, and the answer to learn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from limbeck.core.errors import DataError, ModelError, RecipeError
from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.core.types import IGNORE, WRITTEN, Batch, Sample
from limbeck.data.steps import canonical
from limbeck.data.thinking import CLOSE, OPEN, Thought, fold, split_thought
from limbeck.tasks._base import Codec, Encoded, Feature, Task
from limbeck.tasks._decode import Live, generate
from limbeck.tasks._packing import packed
from limbeck.tasks._templates import name_of, probe, render, write
from limbeck.tasks._text import load_tokenizer, pad, spells_special, text_of, tokenizer_for
from limbeck.tasks._traces import Lengths, conversation, refold

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@part
class CausalLM(Task):
    """A prompt, and the answer to learn; the loss is on the answer and its end token alone."""

    max_length: int = Field(default=1024, gt=1)
    """Longest prompt and answer together, in tokens. Prompts are never cut."""
    reasoning: Literal["keep", "drop"] = "keep"
    """Whether a thought before the answer (`<think>`, `reasoning_content`) is learned with it, or left out."""
    too_long: Literal["auto", "cut", "drop"] = "auto"
    """What becomes of a row above `max_length`; either is counted. `auto`: answers are cut, rows with a thought
    dropped, since a thought that never ends teaches never to answer."""
    packing: bool = False
    """Put the samples of a micro-batch side by side into rows of up to `max_length` tokens. No sample sees another;
    loss and gradients are those of one sample a row."""
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
            turns, target = conversation(fields["messages"], where)
            return {"messages": turns}, target, {}
        if "prompt" not in fields or "answer" not in fields:
            fix = "data.prompt=COLUMN data.answer=COLUMN, or data.messages=COLUMN"
            raise DataError(f"{where}: there is neither `messages` nor `prompt` and `answer`", fix=fix)
        prompt = text_of(fields["prompt"], "prompt", where)
        turns = [{"role": "user", "content": prompt}]
        return {"messages": turns}, refold(text_of(fields["answer"], "answer", where)), {}

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

    def extract(self, text: str) -> str | None:
        """The final answer in a text, None where there is none or an empty one: two of those are not equal answers."""
        assert self.answer_pattern is not None, "answers are not graded"
        found = re.findall(self.answer_pattern, text)
        return canonical(found[-1]) or None if found else None


class CausalCodec(Codec):
    """Prompts and answers with a tokenizer. The shift is done here, once: `labels[p]` follows input `p`."""

    packs: ClassVar[bool] = True
    """Whether its samples can share rows."""

    def __init__(self, tokenizer: Any, task: CausalLM):
        if task.packing and not self.packs:
            what = "task.packing needs answers without marks, and one tokenizer for student and teacher"
            raise RecipeError(what, fix="task.packing=false")
        self.processor, self.task = tokenizer, task
        opening = tokenizer("", verbose=False)["input_ids"]
        self.opening = [i for i in opening if i == tokenizer.bos_token_id]
        self.chat = task.template == "chat" or (task.template == "auto" and bool(tokenizer.chat_template))
        self.template = probe(tokenizer) if self.chat else None

    def settings(self) -> dict[str, Any]:
        special = {f"{role}_token_id": getattr(self.processor, f"{role}_token_id") for role in ("pad", "eos", "bos")}
        return {"vocab_size": len(self.processor), **special}

    def texts(self, sample: Sample) -> tuple[str, str]:
        """What stands before the answer, and the answer with all that the template adds to it."""
        turns = list(sample.inputs["messages"])
        said = self._said(sample)
        if not self.chat:
            return self._plain(turns), said.content if self.task.reasoning == "drop" else sample.target
        assert self.template is not None
        try:
            return write(self.processor, self.template, turns, said)
        except DataError as error:
            raise DataError(f"sample {sample.id}: {error.what}", got=error.got, fix=error.fix) from error

    def body(self, sample: Sample) -> str:
        """What every template's turn holds of a sample: the thought, if it is learned, its end, and the answer."""
        said = self._said(sample)
        whole = said.content if said.reasoning_content is None else fold(said.reasoning_content, said.content)
        return whole.removeprefix(OPEN).strip()

    def _said(self, sample: Sample) -> Thought:
        """What is learned: thought and answer, or the answer alone. A thought without an end is text as it stands."""
        said = split_thought(sample.target)
        if not said.closed:
            return Thought(sample.target, None, False)
        return said if self.task.reasoning == "keep" else Thought(said.content, None, True)

    def _commands(self, sample: Sample) -> bool:
        """Whether a text holds the name of a special token, which a tokenizer would read as that token."""
        return spells_special(self.processor, [sample.target, *(t["content"] for t in sample.inputs["messages"])])

    def prompt_ids(self, sample: Sample) -> list[int]:
        """The tokens of the prompt, the same in training and in generation."""
        return self._prompt(self.prompt_text(sample))

    def prompt_text(self, sample: Sample) -> str:
        """The prompt as text, without the token that opens plain ones."""
        turns = sample.inputs["messages"]
        return render(self.processor, turns) if self.chat else self._plain(turns)

    def _plain(self, turns: Sequence[Mapping[str, str]]) -> str:
        return "\n".join(t["content"] for t in turns) + self.task.separator

    def _prompt(self, text: str) -> list[int]:
        return self._ids(text) if self.chat else self.opening + self._ids(text)  # a template opens by itself

    def _ids(self, text: str) -> list[int]:
        return list(self.processor(text, add_special_tokens=False, verbose=False)["input_ids"])

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        features, counts, lengths = [], Counter[str](), Lengths()
        for sample in samples:
            if not self._said(sample).closed:
                counts["dropped_thought_without_end"] += 1
                continue
            if sample.meta.get(WRITTEN) and self._commands(sample):
                counts["dropped_special_token_in_text"] += 1
                continue
            before, after = self.texts(sample)
            prompt, (answer, thought) = self._prompt(before), self._answer(after)
            if thought:
                self._check_thought(sample, after, answer)
            lengths.seen(len(prompt), thought, len(answer) - thought)
            lost = self._lost(len(prompt), len(answer), thought)
            counts.update([lost] if lost else [])
            if lost.startswith("dropped"):
                continue
            ids = (prompt + answer)[: self.task.max_length]
            lengths.kept(len(ids))
            features.append(Feature(sample.id, len(ids) - 1, self.values(ids, len(prompt)), sample))
        return Encoded(features, counts, {"lengths": lengths.facts()})

    def _lost(self, prompt: int, answer: int, thought: int) -> str:
        """The reason why a row is cut or dropped; empty where it is whole."""
        if prompt >= self.task.max_length:
            return "dropped_prompt_too_long"
        if prompt + answer <= self.task.max_length:
            return ""
        if self.task.too_long == "drop" or (self.task.too_long == "auto" and thought):
            return "dropped_reasoning_too_long" if thought else "dropped_answer_too_long"
        return "truncated_reasoning" if thought and prompt + thought > self.task.max_length else "truncated_answers"

    def _answer(self, text: str) -> tuple[list[int], int]:
        """An answer's tokens with the end token, and how many of them are the thought's, its tags included."""
        read = self.processor(text, add_special_tokens=False, verbose=False)
        ids, end, thought = list(read["input_ids"]), self.processor.eos_token_id, 0
        if (at := text.find(CLOSE)) >= 0 and self.task.reasoning == "keep":
            inside = self._ids(text[: at + len(CLOSE)]) if not self.processor.is_fast else None
            last = None if inside is not None else read.char_to_token(at + len(CLOSE) - 1)
            thought = len(inside) if inside is not None else 0 if last is None else last + 1
        if end in ids[-2:]:  # a template may end the turn itself, with a newline behind it
            return ids[: len(ids) - ids[::-1].index(end)], thought
        return [*ids, end], thought

    def _check_thought(self, sample: Sample, after: str, answer: list[int]) -> None:
        """Make sure that a thought is in the labels: what these tokens spell is the text, but for white space.

        Raises:
            DataError: the tokenizer has lost some of it.
        """
        told, thought = self.processor.decode(answer, clean_up_tokenization_spaces=False), after.partition(CLOSE)[0]
        if "".join(thought.split()) not in "".join(told.split()) and self.processor.unk_token_id not in answer:
            raise DataError(
                f"sample {sample.id}: the tokenizer {name_of(self.processor)} loses part of the reasoning",
                got=repr(told)[:160],
                fix="another tokenizer, or task.reasoning=drop",
            )

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
        if self.task.packing:
            return packed(features, self.task.max_length, self.processor.pad_token_id)
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
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[int]],
        ends: set[int],
        tokens: int,
        minimum: int = 0,
        live: Live | None = None,
    ) -> Tensor:
        """Answers, [B, T] of new tokens, under the attention mask that training has; greedy, unless `live` draws.

        Args:
            model: in evaluation mode.
            prompts: token ids, see `prompt_ids`.
            ends: tokens that end an answer.
            tokens: the most new tokens.
            minimum: the fewest.
            live: hears the answer to one prompt while it is made.
        """
        return generate(model, prompts, self.processor.pad_token_id, ends, tokens, minimum, live)

    def extract(self, text: str) -> str | None:
        """The final answer in a text, see `CausalLM.extract`."""
        return self.task.extract(text)
