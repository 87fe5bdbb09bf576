"""ExecuTorch programs, for phones and small devices, by its own exporter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch.export import Dim

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._traced import OneByOne, Row, first_line, hushed, longest, traceable
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.example import free_axes
from limbeck.runtime.student import Floats, ServedStudent, codec_of

FILE = "model.pte"


@part
class Executorch(Exporter):
    """A program of one row at a time, its products done by XNNPACK."""

    tasks: ClassVar[tuple[str, ...]] = ("text_classification", "image_classification")
    tools: ClassVar[tuple[Tool, ...]] = (Tool("executorch", "executorch"),)
    runs_here: ClassVar[bool] = False

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        copy_beside(student, folder, card)
        given = traceable(student, card, rows=1)
        length = Dim("length", min=2, max=longest(card, 512))
        free = tuple(
            {axis: length for axis, title in free_axes(name, x.ndim).items() if title == "length"} or None
            for name, x in given.inputs.items()
        )
        try:
            with hushed(), torch.no_grad():
                traced = torch.export.export(
                    given.module, tuple(given.inputs.values()), dynamic_shapes=(free,), strict=False
                )
                program = to_edge_transform_and_lower(traced, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:  # of torch.export and of ExecuTorch, which have no common base
            raise ModelError(f"ExecuTorch cannot lower {given.name}", got=first_line(error)) from error
        (folder / FILE).write_bytes(program.buffer)
        facts = {"length": None if card.task["type"] == "image-classification" else longest(card, 512)}
        return replace(card, format="executorch", precision="fp32", file=FILE, facts=facts)

    def load(self, folder: Path, card: Card) -> ServedStudent:
        from executorch.runtime import Runtime

        path, codec = file_inside(folder, card.file, "the card"), codec_of(folder, card)
        method = Runtime.get().load_program(path).load_method("forward")

        def call(row: Row) -> Floats:
            found: Floats = method.execute([torch.from_numpy(each.copy()) for each in row])[0].numpy()
            return found

        return ServedStudent(card, codec, OneByOne("executorch", codec, call))
