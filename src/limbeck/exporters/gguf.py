"""GGUF files for llama.cpp, by llama.cpp's own converter."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
import transformers
from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._tool import run_tool
from limbeck.exporters._traced import first_line
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.example import example, signature
from limbeck.runtime.student import ServedStudent, codec_of
from limbeck.runtime.torch_runner import TorchRunner

FILE = "model.gguf"
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "q8_0"}


@part
class Gguf(Exporter):
    """A language model for llama.cpp and what builds on it; read back by transformers to be compared."""

    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp16"
    """Of the weights: int8 is llama.cpp's q8_0. Its own `llama-quantize` makes smaller files of this one."""
    converter: str = "convert_hf_to_gguf.py"
    """llama.cpp's script: a path, or a name on the PATH."""
    minutes: float = Field(default=60.0, gt=0)
    """The most time that it may take."""

    tasks: ClassVar[tuple[str, ...]] = ("causal_lm",)
    tools: ClassVar[tuple[Tool, ...]] = (Tool("gguf", "gguf"),)
    runs_here: ClassVar[bool] = False

    def check(self, card: Card) -> None:
        super().check(card)
        self._script()

    def _script(self) -> Path:
        place = Path(os.path.expanduser(self.converter))
        found = place if place.is_file() else shutil.which(self.converter)
        if found is None:
            fix = "git clone https://github.com/ggml-org/llama.cpp; converter: llama.cpp/convert_hf_to_gguf.py"
            raise ModelError("llama.cpp's converter is not found", got=self.converter, fix=fix)
        return Path(found).resolve()

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        copy_beside(student, folder, card)
        words = [sys.executable, str(self._script()), str(student.resolve())]
        words += ["--outfile", str((folder / FILE).resolve()), "--outtype", _TYPES[self.precision]]
        with tempfile.TemporaryDirectory() as scratch:
            run_tool("llama.cpp's converter", words, Path(scratch), self.minutes * 60)
        return replace(card, format="gguf", precision=self.precision, file=FILE, facts={})

    def load(self, folder: Path, card: Card) -> ServedStudent:
        codec = codec_of(folder, card)
        file = file_inside(folder, card.file, "the card")
        try:
            # The student's own config: transformers does not read all of it from the file.
            config = transformers.AutoConfig.from_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, config=config, gguf_file=file.name, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, struct.error) as error:
            what = "transformers cannot read the GGUF file back, so that it cannot be compared"
            raise ModelError(what, got=first_line(error)) from error
        return ServedStudent(card, codec, TorchRunner(model, signature(example(codec)), threads=1, device="cpu"))
