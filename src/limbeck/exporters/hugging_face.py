"""A plain Hugging Face folder with a card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.exporters._base import Exporter, copy_beside
from limbeck.models.load import load_model
from limbeck.runtime.card import Card
from limbeck.runtime.student import task_in

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@part
class HuggingFace(Exporter):
    """safetensors, config and tokenizer or preprocessor, as transformers loads them."""

    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of the weights."""

    tasks: ClassVar[tuple[str, ...]] = (*Exporter.tasks, "structured_reasoning")

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        spec = Model(model=str(student))
        model = load_model(spec, task_in(card).auto_class, settings={}, dtype=_TYPES[self.precision])
        model.save_pretrained(folder, safe_serialization=True)
        written = (folder / "config.json").read_bytes()
        copy_beside(student, folder, card)
        (folder / "config.json").write_bytes(written)  # it tells the weights' type
        return replace(card, format="pytorch", precision=self.precision, file=None, facts={})
