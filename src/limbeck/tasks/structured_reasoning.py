"""Language modelling in steps: marked steps and conclusions, what a step may see, and what its labels count."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from pydantic import Field
from torch import nn

from limbeck.core.errors import DataError, ModelError
from limbeck.core.parts import part
from limbeck.core.types import IGNORE, Batch, Sample
from limbeck.data.steps import joined, steps_of
from limbeck.tasks._base import Encoded, Feature
from limbeck.tasks._decode import Live, generate_in_steps
from limbeck.tasks._structure import MOST, Layout, Marks, additive, parts_of, structured, visible, vocabulary
from limbeck.tasks.causal_lm import CausalCodec, CausalLM

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@part
class StructuredReasoning(CausalLM):
    """A prompt, and the answer to learn step by step: steps and their conclusions are marked by tokens of their own.

    Reference:
        Wei et al., Chain-of-Thought Prompting, 2022, arXiv:2201.11903 (answers in steps). The marks and the mask are
        this project's own.
    """

    mask: Literal["steps", "full"] = "steps"
    """`steps`: a step sees the question, itself and the conclusions that it uses; `full`: all that stands before."""
    max_conclusions: int = Field(default=16, ge=1, le=MOST)
    """Steps that there are marks for; what an answer has beyond joins its last step, and is counted."""
    key_step_weight: float = Field(default=1.0, ge=0)
    """Factor on the loss of steps whose conclusion is used later, and of the last step."""
    conclusion_weight: float = Field(default=1.0, ge=0)
    """Factor on the loss of conclusions."""

    def codec(self, processor: Any, label_names: tuple[str, ...] | None) -> StructuredCodec:
        super().codec(processor, label_names)  # refuses what language modelling refuses
        return StructuredCodec(processor, self)


class StructuredCodec(CausalCodec):
    """Answers with marked steps, if the tokenizer has the marks; `prepare` gives one that has.

    A ready teacher that was never trained on marked steps keeps its tokenizer: it reads and writes plain answers.
    """

    packs = False
    task: StructuredReasoning

    def __init__(self, tokenizer: Any, task: StructuredReasoning):
        super().__init__(tokenizer, task)
        self.marks = Marks.of(tokenizer)
        self._checked: PreTrainedModel | None = None

    def prepare(self, model: PreTrainedModel) -> StructuredCodec:
        if self.marks is None:
            tokenizer = copy.deepcopy(self.processor)  # it may be the teacher's too
            tokenizer.add_tokens(_special(self.task.max_conclusions), special_tokens=True)
            add_rows(model, tokenizer)
            return StructuredCodec(tokenizer, self.task).prepare(model)
        if (count := len(self.marks.conclusions)) != self.task.max_conclusions:
            raise ModelError(
                "the tokenizer has marks for another number of steps than the task",
                got=f"tokenizer {count}, task {self.task.max_conclusions}",
                fix=f"task.max_conclusions={count}",
            )
        self._check(model)
        return self

    def _check(self, model: PreTrainedModel) -> None:
        if self.task.mask == "steps" and self._checked is not model:
            check_mask(model)
            self._checked = model

    def texts(self, sample: Sample) -> tuple[str, str]:
        if self.marks is None:
            return super().texts(sample)
        try:
            target = structured(sample.target, question_of(sample), len(self.marks.conclusions))
        except DataError as error:
            raise DataError(f"sample {sample.id}: {error.what}", got=error.got, fix=error.fix) from error
        return super().texts(replace(sample, target=target))

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        samples = list(samples)
        made = super().encode(samples)
        if self.marks is None:
            return made
        for sample in samples:
            steps = joined(steps_of(sample.target))
            made.counts["answers_without_conclusion"] += all(step.conclusion is None for step in steps)
            made.counts["answers_with_joined_steps"] += len(steps) > len(self.marks.conclusions)
        return Encoded(made.features, +made.counts, made.facts)

    def values(self, ids: list[int], prompt: int) -> dict[str, Any]:
        made = super().values(ids, prompt)
        if self.marks is None:
            return made
        finished = ids[-1] == self.processor.eos_token_id
        factors = {"key_step": self.task.key_step_weight, "conclusion": self.task.conclusion_weight}
        counts = Layout(self.marks, ids).weights(**factors, finished=finished)[1:]
        weights = [0.0 if label == IGNORE else w for label, w in zip(made["labels"], counts, strict=True)]
        return {**made, "weights": weights}

    def collate(self, features: Sequence[Feature], side: str = "right") -> Batch:
        batch = super().collate(features, side)
        if self.marks is None:
            return batch
        if not self.task.key_step_weight == self.task.conclusion_weight == 1:
            batch = replace(batch, weights=_padded([f.values["weights"] for f in features], batch.labels, side))
        if self.task.mask == "full":
            return batch
        parts = parts_of([Layout(self.marks, f.values["input_ids"]) for f in features], side)
        return replace(batch, inputs={**batch.inputs, "attention_mask": additive(visible(parts, parts))})

    def generate(
        self,
        model: PreTrainedModel,
        prompts: Sequence[list[int]],
        ends: set[int],
        tokens: int,
        minimum: int = 0,
        live: Live | None = None,
    ) -> Tensor:
        if self.marks is None or self.task.mask == "full":
            return super().generate(model, prompts, ends, tokens, minimum, live)
        self._check(model)
        return generate_in_steps(model, prompts, self.marks, self.processor.pad_token_id, ends, tokens, minimum, live)


def question_of(sample: Sample) -> str:
    """What stands before the answer, without a template."""
    return "\n".join(turn["content"] for turn in sample.inputs["messages"])


def _special(count: int) -> list[Any]:
    from tokenizers import AddedToken

    return [AddedToken(mark, special=True, normalized=False) for mark in vocabulary(count)]


def _padded(rows: Sequence[Sequence[float]], like: Tensor, side: str) -> Tensor:
    padded = torch.zeros(like.shape)
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(padded.shape[1] - len(row), None)
        padded[i, where] = torch.tensor(row)
    return padded


@torch.no_grad()
def add_rows(model: PreTrainedModel, tokenizer: Any) -> None:
    """Give a model's embeddings and head a row for every mark, drawn around the mean of the rows that it has.

    A new row `e ~ N(mean, std^2)`, by dimension, starts as likely as the average token. Rows of padding that lie where
    the marks come to stand are drawn anew too.

    Reference:
        Hewitt, Initializing New Word Embeddings for Pretrained Language Models, 2021.
    """
    marks = Marks.of(tokenizer)
    assert marks is not None
    new = torch.tensor([marks.use, *marks.steps, *marks.conclusions])
    before = int(new.min())
    if cast(nn.Embedding, model.get_input_embeddings()).num_embeddings < len(tokenizer):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embeddings = cast(nn.Embedding, model.get_input_embeddings())
    head = cast(nn.Linear, model.get_output_embeddings())
    place, tied = new.to(head.weight.device), head.weight is embeddings.weight
    for matrix in [embeddings.weight] if tied else [embeddings.weight, head.weight]:
        known = matrix[:before].float()
        noise = torch.randn(len(new), known.shape[1], generator=torch.Generator().manual_seed(0))
        matrix[place] = (known.mean(0) + known.std(0) * noise.to(known.device)).to(matrix.dtype)
    if head.bias is not None:
        head.bias[place] = head.bias[:before].mean()


@torch.no_grad()
def check_mask(model: PreTrainedModel) -> None:
    """Make sure that a model obeys a mask that hides single tokens.

    Two short rows differ in one token that the last position does not see. What the model says there must not differ,
    and must differ where that token is seen.

    Raises:
        ModelError: it has layers that take no such mask (sliding windows, states), or does not obey.
    """
    name, kind = type(model).__name__, model.config._attn_implementation
    allowed, fix = "full attention in every layer, by sdpa or eager", "attn_implementation: sdpa; or task.mask=full"
    layers = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kind not in ("sdpa", "eager") or layers != {"full_attention"}:
        got = f"{kind}; layers: {', '.join(sorted(layers))}"
        raise ModelError(f"{name} cannot take the mask of steps", got=got, allowed=allowed, fix=fix)
    device, training = model.device, model.training
    ids = torch.tensor([[0, 1, 2, 3], [0, 4, 2, 3]], device=device) % model.config.vocab_size
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool, device=device).tril()
    mask[:, :, 2:, 1] = False
    decoder = model.eval().get_decoder()
    hidden = {
        hides: decoder(input_ids=ids, attention_mask=additive(seen, model.dtype), use_cache=False).last_hidden_state
        for hides, seen in ((True, mask), (False, torch.ones_like(mask).tril()))
    }
    model.train(training)
    differs = {hides: not torch.allclose(two[0, -1], two[1, -1], atol=1e-6) for hides, two in hidden.items()}
    if differs[True] or not differs[False]:
        raise ModelError(f"{name} does not obey the mask of steps", allowed=allowed, fix=fix)
