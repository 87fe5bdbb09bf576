"""LiteRT files (.tflite), for phones and small devices, by its own converter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._traced import OneByOne, Row, first_line, hushed, longest, traceable
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.student import Floats, ServedStudent, codec_of

FILE = "model.tflite"


@part
class Litert(Exporter):
    """One row at a time, texts filled up to `max_length`: shapes are fixed."""

    tasks: ClassVar[tuple[str, ...]] = ("text_classification", "image_classification")
    tools: ClassVar[tuple[Tool, ...]] = (Tool("litert_torch", "litert"), Tool("ai_edge_litert", "litert"))
    runs_here: ClassVar[bool] = False

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        import litert_torch

        copy_beside(student, folder, card)
        given, length = traceable(student, card, rows=1), longest(card, 512)
        whole = tuple(_filled(x, length) if x.ndim == 2 else x for x in given.inputs.values())
        try:
            with hushed(), torch.no_grad():
                litert_torch.convert(given.module, whole).export(str(folder / FILE))
        except Exception as error:  # of torch.export, JAX and its own compiler
            raise ModelError(f"LiteRT cannot convert {given.name}", got=first_line(error)) from error
        facts = {"length": length if any(x.ndim == 2 for x in whole) else None}
        return replace(card, format="litert", precision="fp32", file=FILE, facts=facts)

    def load(self, folder: Path, card: Card) -> ServedStudent:
        from ai_edge_litert.interpreter import Interpreter

        path, codec = file_inside(folder, card.file, "the card"), codec_of(folder, card)
        run = Interpreter(model_path=str(path), num_threads=1).get_signature_runner()
        # args_0, args_1: their order is the model's; the converter narrows ids to int32.
        types = {name: told["dtype"] for name, told in sorted(run.get_input_details().items())}

        def call(row: Row) -> Floats:
            given = {name: x.astype(kind) for (name, kind), x in zip(types.items(), row, strict=True)}
            (found,) = run(**given).values()
            return np.asarray(found, np.float32)

        return ServedStudent(card, codec, OneByOne("litert", codec, call, card.facts["length"]))


def _filled(row: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(row, (0, length - row.shape[1]))
