"""A model repository for Triton Inference Server, with its ONNX Runtime backend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import copy_beside
from limbeck.runtime import Tensors
from limbeck.runtime.card import Card, weights_in, write_card
from limbeck.runtime.onnx_runner import OnnxRunner
from limbeck.serving.deploy._base import Deployment, Written

MODEL = "model.onnx"
_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}
"""Triton's names of numpy's types."""


@part
class Triton(Deployment):
    """A model repository for Triton Inference Server: the ONNX file as it is, and its config.

    Triton takes a model's own tensors. What makes them out of texts or pictures lies in `client/`.
    """

    max_batch_size: int = Field(default=64, ge=1)
    """Rows of a batch."""
    max_wait: float = Field(default=0.002, ge=0)
    """Seconds that a request may wait for others of the same length."""
    max_queue: int = Field(default=1024, ge=1)
    """Requests that wait; more are refused."""
    deadline: float = Field(default=10.0, gt=0)
    """Seconds that a request may wait before it is refused."""
    instances: int = Field(default=1, ge=1)
    """Copies of the model that run at a time."""
    device: Literal["cpu", "gpu"] = "cpu"
    """What the copies run on."""
    threads: int = Field(default=0, ge=0)
    """Of one copy on a CPU; 0: as many as there are cores."""

    engine: ClassVar[str] = "onnxruntime"

    def check(self, card: Card) -> None:
        super().check(card)
        if card.format != "onnx":
            raise ModelError("triton takes a student in the format onnx", got=card.format, fix="--to onnx first")
        if bad := [label for label in card.labels or () if "\n" in label or "\r" in label]:
            raise ModelError("Triton's file of labels has one a line", got=repr(bad[0]))

    def write(self, student: Path, card: Card, name: str, folder: Path) -> Written:
        version = folder / "models" / name / "1"
        version.mkdir(parents=True)
        for path in weights_in(student, card):
            # The names stay: the graph names the file with its weights.
            shutil.copyfile(path, version / (MODEL if path.name == card.file else path.name))
        runner = OnnxRunner(version / MODEL, threads=1)
        config = self.config(name, runner.inputs, runner.outputs, card)
        (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
        (version.parent / "labels.txt").write_text("\n".join(card.labels or ()) + "\n", encoding="utf-8")
        client = folder / "client"
        client.mkdir()
        copy_beside(student, client, card)
        write_card(card, client)
        return Written({"inputs": list(runner.inputs), "outputs": list(runner.outputs)})

    def config(self, name: str, inputs: Mapping[str, Tensors], outputs: Mapping[str, Tensors], card: Card) -> str:
        """`config.pbtxt`.

        Args:
            name: of the model.
            inputs: of the ONNX file.
            outputs: of the ONNX file.
            card: the student's.

        Raises:
            ModelError: the file takes a certain number of rows only, so that nothing can be batched.
        """
        for each, tensors in [*inputs.items(), *outputs.items()]:
            if not tensors.shape or tensors.shape[0] is not None:
                raise ModelError(f"the number of rows of `{each}` is fixed", got=str(tensors.shape), fix="--to onnx")
        lines = [f"name: {_quoted(name)}", 'backend: "onnxruntime"', f"default_model_filename: {_quoted(MODEL)}"]
        lines += [f"max_batch_size: {self.max_batch_size}"]
        for kind, tensors_by_name in (("input", inputs), ("output", outputs)):
            for each, tensors in tensors_by_name.items():
                lines += _tensor(kind, each, tensors, labels=kind == "output" and each == "logits")
        lines += [
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {round(self.max_wait * 1e6)}",
            "  default_queue_policy {",
            "    timeout_action: REJECT",
            f"    default_timeout_microseconds: {round(self.deadline * 1e6)}",
            f"    max_queue_size: {self.max_queue}",
            "  }",
            "}",
            f"instance_group [{{ count: {self.instances} kind: KIND_{self.device.upper()} }}]",
            f'parameters {{ key: "temperature" value {{ string_value: "{card.temperature!r}" }} }}',
        ]
        if self.threads:
            value = f'value {{ string_value: "{self.threads}" }}'
            lines += [f'parameters {{ key: "intra_op_thread_count" {value} }}']
        return "\n".join(lines) + "\n"


def _tensor(kind: str, name: str, tensors: Tensors, labels: bool) -> list[str]:
    dims = ", ".join("-1" if size is None else str(size) for size in tensors.shape[1:])
    return [
        f"{kind} {{",
        f"  name: {_quoted(name)}",
        f"  data_type: {_TYPES[tensors.dtype]}",
        f"  dims: [{dims}]",
        *(['  label_filename: "labels.txt"'] if labels else []),
        "}",
    ]


def _quoted(text: str) -> str:
    """A string of protobuf's text format; JSON's escapes are among its own."""
    return json.dumps(text)
