"""Folders for onnxruntime-genai, made by its own builder."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._tool import run_tool
from limbeck.runtime.card import Card
from limbeck.runtime.genai import FILE, GenaiRunner
from limbeck.runtime.student import ServedStudent, codec_of


@part
class OnnxruntimeGenai(Exporter):
    """A language model for onnxruntime-genai: weights, cache and loop of a generation in one engine."""

    precision: Literal["fp32", "fp16", "int8", "int4"] = "fp32"
    """Of the weights: int8 and int4 are weight-only, in blocks."""
    execution_provider: Literal["cpu", "cuda", "webgpu", "dml"] = "cpu"
    """What it will run on; with another than this machine has, it cannot be compared here, and is refused."""
    minutes: float = Field(default=60.0, gt=0)
    """The most time that the builder may take."""

    tasks: ClassVar[tuple[str, ...]] = ("causal_lm",)
    tools: ClassVar[tuple[Tool, ...]] = (Tool("onnxruntime_genai", "genai"), Tool("onnx_ir", "genai"))

    @property
    def least(self) -> float:
        usual = {"int8": 0.95, "int4": 0.75}
        return self.same_answers if self.same_answers is not None else usual.get(self.precision, super().least)

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        copy_beside(student, folder, card)
        with tempfile.TemporaryDirectory() as scratch:
            words = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(student.resolve())]
            words += ["-o", str(folder.resolve()), "-p", self.precision, "-e", self.execution_provider, "-c", scratch]
            words += ["--extra_options", "hf_token=false"]
            run_tool("onnxruntime-genai's builder", words, Path(scratch), self.minutes * 60)
        config = json.loads((student / "config.json").read_text(encoding="utf-8"))
        told: dict[str, Any] = {"ends": _ends(student), "positions": config.get("max_position_embeddings")}
        return replace(card, format="onnxruntime-genai", precision=self.precision, file=FILE, facts=told)

    def load(self, folder: Path, card: Card) -> ServedStudent:
        return ServedStudent(card, codec_of(folder, card), GenaiRunner(folder, card, threads=1))


def _ends(student: Path) -> list[int]:
    """Tokens that the model's own settings name as ends."""
    path = student / "generation_config.json"
    told = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    return cast(list[int], told) if isinstance(told, list) else [] if told is None else [int(told)]
