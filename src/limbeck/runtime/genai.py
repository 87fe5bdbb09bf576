"""Language models run by onnxruntime-genai: its own loop and cache; prompts and texts are the task's.

Shapes: N rows, T positions, V vocabulary.
"""

from __future__ import annotations

import json
import re
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
CONFIG = "genai_config.json"
"""What onnxruntime-genai reads first: it names the files of the model."""
_ELSEWHERE = re.compile(r"(?:^|[._])(?:file|path|folder|dir(?:$|ector)|librar|profil)", re.IGNORECASE)
"""In the names of settings by which an engine loads code, or reads and writes beyond the folder."""


def load_genai(folder: Path, card: Card, threads: int | None = None) -> Any:
    """A model of onnxruntime-genai.

    Args:
        folder: with genai_config.json.
        card: of the student.
        threads: of one product; None: its own choice.

    Raises:
        ModelError: it cannot be loaded, names files outside of its folder, or code.
        MissingExtra: the package is not installed.
    """
    try:
        import onnxruntime_genai
    except ImportError as error:
        raise MissingExtra("running onnxruntime-genai folders", "genai") from error
    file_inside(folder, card.file, "the card")
    for file in files_of(folder):
        check_weights_inside(file)
    try:
        config = onnxruntime_genai.Config(str(folder))
        if threads is not None:
            options = {"intra_op_num_threads": threads}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        return onnxruntime_genai.Model(config)
    except Exception as error:  # its errors have no other base
        raise ModelError(f"onnxruntime-genai cannot load {folder}", got=str(error).splitlines()[0]) from error


def files_of(folder: Path) -> list[Path]:
    """The ONNX files that a folder's settings name, each of them in the folder.

    Raises:
        ModelError: the settings cannot be read, name other files, or ask the engine to load or write something else.
    """
    path = file_inside(folder, CONFIG, "onnxruntime-genai")
    settings: list[tuple[str, Any]] = []
    try:  # every one, for a name that is there twice counts twice for its reader
        json.loads(path.read_bytes(), object_pairs_hook=settings.extend)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read", got=str(error)) from error
    found = []
    for name, value in settings:
        if name == "filename":
            found.append(file_inside(folder, value, CONFIG))
        elif name in ("config_filename", "adapter_filename"):
            file_inside(folder, value, CONFIG)
        elif _ELSEWHERE.search(name) and value not in (None, "", False):
            raise ModelError(f"{path} sets `{name}`, which reaches beyond the folder", got=value, fix="remove it")
    return found


def generator(model: Any, prompt: Sequence[int], length: int, **search: Any) -> Any:
    """A generator that has read the prompt.

    Args:
        model: of `load_genai`.
        prompt: token ids.
        length: of prompt and answer together, at most.
        search: how tokens are drawn; left out: the likeliest.
    """
    import onnxruntime_genai

    options = onnxruntime_genai.GeneratorParams(model)
    options.set_search_options(**{"do_sample": False, **search, "max_length": length, "batch_size": 1})
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
        ends, positions = card.facts.get("ends", []), card.facts.get("positions")
        if not isinstance(ends, list) or not all(isinstance(each, int) for each in (*ends, positions or 0)):
            raise ModelError("the card's facts are none", got=f"ends {ends}, positions {positions}", allowed="numbers")
        self.ends = {*self.ends, *ends}
        self.positions: int | None = positions

    def tokens(self, prompt: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        length = len(prompt) + max_new_tokens
        if not prompt or (self.positions is not None and length > self.positions):
            what = "the student cannot read this prompt and answer it"
            allowed = f"1 to {self.positions} tokens together"
            raise ModelError(what, got=f"{len(prompt)} + {max_new_tokens}", allowed=allowed, fix="fewer new tokens")
        writing = generator(self.model, prompt, length)
        for _ in range(max_new_tokens):
            writing.generate_next_token()
            token = int(writing.get_next_tokens()[0])
            yield token
            if token in self.ends or writing.is_done():
                return


class GenaiRunner(Runner):
    """What such a model says of rows that are given whole: its logits, to be compared with the student's.

    Args:
        folder: with genai_config.json.
        card: how it is asked.
        threads: of one row; None: the engine's own choice.
    """

    engine = "onnxruntime-genai"

    def __init__(self, folder: Path, card: Card, threads: int | None = None):
        self.model = load_genai(folder, card, threads)
        self.device = "cuda" if str(self.model.device_type).upper() == "CUDA" else "cpu"
        both = Tensors("int64", (None, None))
        self.inputs = {"input_ids": both, "attention_mask": both}
        self.outputs = {"logits": Tensors("float32", (None, None, None))}

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = fitting(inputs, self.inputs)
        found: list[NDArray[np.float32]] = []
        for ids, real in zip(given["input_ids"], given["attention_mask"].sum(1).tolist(), strict=True):
            prompt = ids[:real].tolist()
            logits_TV = np.asarray(generator(self.model, prompt, real + 1).get_output("logits"), np.float32)[0]
            found.append(np.pad(logits_TV, ((0, len(ids) - real), (0, 0))))
        return {"logits": np.stack(found)}
