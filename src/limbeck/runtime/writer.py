"""A language-model student that answers: whole texts, or piece by piece as they come.

Shapes: V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.models.load import check_length, load_model
from limbeck.runtime.card import Card
from limbeck.runtime.decoding import decoding_of
from limbeck.runtime.guess import card_of, student_folder
from limbeck.runtime.pieces import Pieces
from limbeck.runtime.student import codec_of, task_in
from limbeck.tasks._decode import end_tokens
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.tasks.structured_reasoning import StructuredCodec


@dataclass(frozen=True)
class Written:
    """A language model's answer.

    Attributes:
        text: without the end token.
        tokens: that were made, the end token among them.
        finished: whether it ended by itself, and not for its length.
    """

    text: str
    tokens: int
    finished: bool


class Writer(ABC):
    """A language model that continues prompts greedily. It may be used by one thread at a time.

    Args:
        card: how it is asked.
        codec: makes prompts as in training.

    Attributes:
        engine: torch, onnxruntime-genai.
        ends: tokens that end an answer.
    """

    engine: str

    def __init__(self, card: Card, codec: CausalCodec):
        self.card, self.codec = card, codec
        self.ends: set[int] = {codec.processor.eos_token_id}

    @abstractmethod
    def tokens(self, prompt: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """The tokens of an answer one by one, up to and including an end token.

        Raises:
            ModelError: the prompt is empty, or prompt and answer are too long for the model.
        """

    def stream(self, sample: Sample, max_new_tokens: int = 256) -> Iterator[str]:
        """An answer piece by piece; a character that takes several tokens comes when it is whole.

        Args:
            sample: the conversation in `inputs["messages"]`, or as the task reads it; its target is not looked at.
            max_new_tokens: the most new tokens.
        """
        pieces = Pieces(self.codec.processor)
        for token in self.tokens(self.codec.prompt_ids(sample), max_new_tokens):
            if token in self.ends:
                break
            if piece := pieces.feed(token):
                yield piece
        if rest := pieces.rest():
            yield rest

    def write(self, samples: Sequence[Sample], max_new_tokens: int = 256) -> list[Written]:
        """Answers to conversations, in order, each of them whole."""
        return [self._written(list(self.tokens(self.codec.prompt_ids(s), max_new_tokens))) for s in samples]

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.codec.processor.decode(list(ids), skip_special_tokens=True))

    def _written(self, ids: Sequence[int]) -> Written:
        stop = next((at for at, token in enumerate(ids) if token in self.ends), None)
        count = len(ids) if stop is None else stop + 1
        return Written(self._decoded(ids[:stop]), count, stop is not None)


class TorchWriter(Writer):
    """A language model in torch.

    Args:
        folder: config.json and safetensors.
        card: how it is asked.
        codec: makes prompts.
        threads: of the whole process; None leaves them.
        device: cpu, cuda, or `auto`: cuda where there is one.
        batch_size: prompts that `write` continues together.
    """

    engine = "torch"

    def __init__(
        self,
        folder: Path,
        card: Card,
        codec: CausalCodec,
        *,
        threads: int | None = None,
        device: str = "auto",
        batch_size: int = 8,
    ):
        super().__init__(card, codec)
        if threads is not None:
            torch.set_num_threads(threads)
        self.decoding = decoding_of(card)
        self.model = load_model(Model(model=str(folder)), task_in(card).auto_class, settings={}).eval()
        self.decoding.changed(self.model)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        torch.nn.Module.to(self.model, torch.device(chosen))
        self.ends, self.batch_size = end_tokens(codec.processor, self.model), batch_size
        self.in_steps = isinstance(codec, StructuredCodec) and codec.marks is not None and codec.task.mask == "steps"

    @torch.inference_mode()
    def tokens(self, prompt: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        self._check(prompt, max_new_tokens)
        if self.in_steps:  # what a token sees changes with the steps: the task's own loop knows how
            found = self.codec.generate(self.model, [list(prompt)], self.ends, max_new_tokens)[0].tolist()
            stop = next((at + 1 for at, token in enumerate(found) if token in self.ends), len(found))
            yield from found[:stop]
            return
        given, call = torch.tensor([list(prompt)], device=self.model.device), self.model
        cache, step = self.decoding.new_cache(call, len(prompt) + max_new_tokens), self.decoding.step(call)
        for _ in range(max_new_tokens):
            said = call(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token, cache = int(said.logits[0, -1].argmax()), said.past_key_values
            yield token
            if token in self.ends:
                return
            given, call = torch.tensor([[token]], device=self.model.device), step

    @torch.inference_mode()
    def write(self, samples: Sequence[Sample], max_new_tokens: int = 256) -> list[Written]:
        prompts = [self.codec.prompt_ids(sample) for sample in samples]
        for prompt in prompts:
            self._check(prompt, max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found: dict[int, Written] = {}
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            new = self._continued([prompts[i] for i in places], max_new_tokens)
            found.update((i, self._written(ids)) for i, ids in zip(places, new.tolist(), strict=True))
        return [found[i] for i in range(len(prompts))]

    def _continued(self, prompts: list[list[int]], tokens: int) -> torch.Tensor:
        if self.in_steps or self.decoding.plain:
            return self.codec.generate(self.model, prompts, self.ends, tokens)
        pad_id, width = self.codec.processor.pad_token_id, max(map(len, prompts))
        found: torch.Tensor = self.decoding.generate(self.model, prompts, pad_id, sorted(self.ends), tokens)
        return found[:, width:]

    def _check(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        if not prompt:
            raise ModelError("a model cannot begin a text out of nothing: a prompt has no tokens")
        check_length(self.model, len(prompt) + max_new_tokens, "the student", "prompt and answer", "fewer new tokens")


def load_writer(
    folder: str | Path, engine: str = "auto", threads: int | None = None, *, device: str = "auto"
) -> Writer:
    """A language-model student from its folder.

    Args:
        folder: the student's, or an artifact or run that has one.
        engine: torch or onnxruntime-genai; `auto`: what its format is made for.
        threads: of the whole process (torch); None leaves them.
        device: cpu, cuda, or `auto`: cuda where there is one.

    Raises:
        ModelError: there is no student, it is a classifier, or the engine does not know its format.
        MissingExtra: the engine is not installed.
    """
    place = student_folder(Path(folder))
    card = card_of(place)
    codec = codec_of(place, card)
    if not isinstance(codec, CausalCodec):
        raise ModelError(
            f"the student in {folder} is no language model", got=str(card.task["type"]), fix="load_student"
        )
    known = {"pytorch": "torch", "onnxruntime-genai": "onnxruntime-genai"}
    if card.format not in known or engine not in ("auto", known[card.format]):
        raise ModelError(
            f"{'nothing here' if engine == 'auto' else engine} writes with the format `{card.format}`",
            allowed=", ".join(f"{name} by {by}" for name, by in known.items()),
            fix="limbeck export RUN --to onnxruntime-genai, or the trained folder itself",
        )
    if card.format == "pytorch":
        return TorchWriter(place, card, codec, threads=threads, device=device)
    from limbeck.runtime.genai import GenaiWriter

    return GenaiWriter(place, card, codec)
