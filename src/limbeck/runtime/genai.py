"""Language models run by onnxruntime-genai: its own loop and cache; prompts and texts are the task's.

Shapes: N rows, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import file_inside, fitting
from limbeck.runtime.card import Card
from limbeck.runtime.onnx_runner import check_weights_inside
from limbeck.runtime.writer import Writer
from limbeck.tasks.causal_lm import CausalCodec

FILE = "model.onnx"


def load_genai(folder: Path, card: Card) -> Any:
    """A model of onnxruntime-genai.

    Raises:
        ModelError: it cannot be loaded, or names files outside of its folder.
        MissingExtra: the package is not installed.
    """
    try:
        import onnxruntime_genai
    except ImportError as error:
        raise MissingExtra("running onnxruntime-genai folders", "genai") from error
    check_weights_inside(file_inside(folder, card.file, "the card"))
    try:
        return onnxruntime_genai.Model(str(folder))
    except Exception as error:  # its errors have no other base
        raise ModelError(f"onnxruntime-genai cannot load {folder}", got=str(error).splitlines()[0]) from error


def _generator(model: Any, prompt: Sequence[int], length: int) -> Any:
    """A greedy generator that has read the prompt."""
    import onnxruntime_genai

    options = onnxruntime_genai.GeneratorParams(model)
    options.set_search_options(max_length=length, do_sample=False, batch_size=1)
    generator = onnxruntime_genai.Generator(model, options)
    generator.append_tokens(np.asarray([list(prompt)], dtype=np.int32))
    return generator


class GenaiWriter(Writer):
    """A language model in onnxruntime-genai.

    Args:
        folder: with genai_config.json.
        card: how it is asked.
        codec: makes prompts.
    """

    engine = "onnxruntime-genai"

    def __init__(self, folder: Path, card: Card, codec: CausalCodec):
        super().__init__(card, codec)
        self.model = load_genai(folder, card)
        self.ends = {*self.ends, *card.facts.get("ends", ())}
        self.positions: int | None = card.facts.get("positions")

    def tokens(self, prompt: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        length = len(prompt) + max_new_tokens
        if not prompt or (self.positions is not None and length > self.positions):
            what = "the student cannot read this prompt and answer it"
            allowed = f"1 to {self.positions} tokens together"
            raise ModelError(what, got=f"{len(prompt)} + {max_new_tokens}", allowed=allowed, fix="fewer new tokens")
        generator = _generator(self.model, prompt, length)
        for _ in range(max_new_tokens):
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            yield token
            if token in self.ends or generator.is_done():
                return


class GenaiRunner(Runner):
    """What such a model says of rows that are given whole: its logits, to be compared with the student's.

    Args:
        folder: with genai_config.json.
        card: how it is asked.
    """

    engine = "onnxruntime-genai"

    def __init__(self, folder: Path, card: Card):
        self.model = load_genai(folder, card)
        both = Tensors("int64", (None, None))
        self.inputs = {"input_ids": both, "attention_mask": both}
        self.outputs = {"logits": Tensors("float32", (None, None, None))}

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = fitting(inputs, self.inputs)
        found: list[NDArray[np.float32]] = []
        for ids, real in zip(given["input_ids"], given["attention_mask"].sum(1).tolist(), strict=True):
            prompt = ids[:real].tolist()
            logits_TV = np.asarray(_generator(self.model, prompt, real + 1).get_output("logits"), np.float32)[0]
            found.append(np.pad(logits_TV, ((0, len(ids) - real), (0, 0))))
        return {"logits": np.stack(found)}
