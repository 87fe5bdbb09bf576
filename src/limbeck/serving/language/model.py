"""Which language model is served, of all that a run may have, and what its folder tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.errors import ModelError
from limbeck.runtime.card import CARD, Card
from limbeck.runtime.guess import card_of, refuse_old, student_folder
from limbeck.runtime.student import codec_of, task_in
from limbeck.serving.folders import named
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from limbeck.tasks.structured_reasoning import StructuredReasoning

_IN_A_RUN = ("export/*", "compress/student", "train/student")
"""Where a run may have language models, the readiest first."""


@dataclass(frozen=True)
class Found:
    """A language model's folder.

    Attributes:
        name: to serve it under.
        folder: its own.
        card: how it is asked.
    """

    name: str
    folder: Path
    card: Card


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn where a request does not say so.

    Attributes:
        temperature: 0: the likeliest token.
        top_p: the share of probability that is drawn from.
        top_k: the likeliest tokens that are drawn from; 0: all.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True)
class LanguageModel:
    """A language model that is to be served.

    Attributes:
        name: that callers ask for.
        folder: its own.
        card: how it is asked.
        codec: makes prompts as in training.
        config: of Hugging Face.
        generation: its `generation_config.json`.
        context: tokens of a prompt and its answer together.
    """

    name: str
    folder: Path
    card: Card
    codec: CausalCodec
    config: dict[str, Any]
    generation: dict[str, Any]
    context: int

    @property
    def ends(self) -> list[int]:
        """Tokens that end an answer."""
        told = self.generation.get("eos_token_id")
        more = told if isinstance(told, list) else [] if told is None else [told]
        return sorted({self.codec.processor.eos_token_id, *more, *self.card.facts.get("ends", ())})

    @property
    def drawing(self) -> Drawing:
        """As its folder tells; without `do_sample` it is asked as it was evaluated, greedily."""
        told = self.generation
        if not told.get("do_sample"):
            return Drawing()
        return Drawing(float(told.get("temperature") or 1.0), float(told.get("top_p") or 1.0), told.get("top_k") or 0)


def is_language_model(word: str) -> bool:
    """Whether a word of the command line means a language model: a run, or a folder, perhaps as NAME=FOLDER.

    What cannot be read is none; whoever serves it will say why.
    """
    try:
        card = card_of(student_folder(named(word)[1]))
        return isinstance(task_in(card), CausalLM)
    except ModelError:
        return False


def found_in(word: str, name: str | None = None) -> list[Found]:
    """The language models that a word of the command line may mean, the readiest first.

    Raises:
        ModelError: there is none.
    """
    told, given = named(word, name)
    if not given.is_dir():
        raise ModelError(f"there is no folder {given}", fix="a run, or a student's folder")
    folders = list(_in_a_run(given)) if (given / "recipe.json").is_file() else [student_folder(given)]
    cards = [(folder, card_of(folder)) for folder in folders]
    found = [Found(told, folder, card) for folder, card in cards if isinstance(task_in(card), CausalLM)]
    if not found:
        raise ModelError(f"there is no language model in {given}", fix="limbeck run trains one")
    return found


def _in_a_run(run: Path) -> Iterator[Path]:
    for inside in _IN_A_RUN:
        for folder in sorted(run.glob(inside)):
            if any((folder / name).is_file() for name in (CARD, "config.json")):
                refuse_old(run, folder)
                yield folder


def open_model(found: Found, formats: Sequence[str]) -> LanguageModel:
    """A language model with all that serving it needs to know.

    Args:
        found: its folder.
        formats: that the engine reads.

    Raises:
        ModelError: it is of another format, or its answers need more than an engine can do.
    """
    folder, card = found.folder, found.card
    if card.format not in formats:
        raise ModelError(f"the engine does not read `{card.format}`", got=str(folder), allowed=", ".join(formats))
    task = task_in(card)
    if isinstance(task, StructuredReasoning) and task.mask == "steps":
        what = "answers in steps are written under a mask that no engine knows"
        raise ModelError(what, got=str(folder), fix="train with task.mask=full, or ask it by limbeck play")
    codec = codec_of(folder, card)
    assert isinstance(codec, CausalCodec)
    config, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    text = config.get("text_config") or config
    context = card.facts.get("positions") or text.get("max_position_embeddings") or task.max_length  # type: ignore[attr-defined]
    return LanguageModel(found.name, folder, card, codec, config, generation, int(context))


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{path} cannot be read", got=str(error)) from error
