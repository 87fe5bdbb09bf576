"""A student in torch as tools want it that trace: one module, its inputs in order, logits alone.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.core.errors import ModelError
from limbeck.core.quiet import quiet
from limbeck.core.recipe import Model
from limbeck.models.load import load_model
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import fitting
from limbeck.runtime.card import Card
from limbeck.runtime.example import example, free_axes, signature
from limbeck.runtime.student import Floats, codec_of, task_in
from limbeck.tasks import Codec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Logits(torch.nn.Module):
    """A model that takes its inputs in order and gives logits alone."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], causal: bool):
        super().__init__()
        self.model, self.names = model, list(names)
        self.extra = {"use_cache": False} if causal else {}

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.extra).logits


@dataclass(frozen=True)
class Traceable:
    """What a tool traces.

    Attributes:
        module: takes `inputs` in order.
        inputs: an example, by name.
        name: the model's class, for messages.
    """

    module: Logits
    inputs: Mapping[str, torch.Tensor]
    name: str


def traceable(
    student: Path,
    card: Card,
    rows: int = 2,
    *,
    attention: str = "eager",
    change: Callable[[PreTrainedModel], Any] | None = None,
) -> Traceable:
    """A student in float32, with made-up rows of its task.

    Args:
        student: its folder.
        card: how it is asked.
        rows: how many are made up.
        attention: transformers' name of it.
        change: done to the model before it is traced.
    """
    # Attention that is written out is a smaller graph, and 3 to 13 % faster in ONNX Runtime, than that of `sdpa`.
    spec = Model(model=str(student), attn_implementation=attention)
    model = load_model(spec, task_in(card).auto_class, settings={}, dtype=torch.float32).eval()
    if change is not None:
        change(model)
    given = example(codec_of(student, card), rows)
    # A tracer takes a size of one for a constant, and the graph would then know no other.
    if short := [name for name, x in given.items() if _length(name, x) == 1]:
        fix = "look at its pre_tokenizer: a text of several words should be several tokens"
        raise ModelError("the student's tokenizer reads each text as one token", got=", ".join(short), fix=fix)
    causal = model.get_output_embeddings() is not None
    return Traceable(Logits(model, list(given), causal).eval(), given, type(model).__name__)


def _length(name: str, x: torch.Tensor) -> int | None:
    """Positions of an input; None where it has none."""
    return next((x.shape[axis] for axis, title in free_axes(name, x.ndim).items() if title == "length"), None)


def longest(card: Card, otherwise: int) -> int:
    """The most positions of a row."""
    return int(card.task.get("max_length") or otherwise)


Row = list[NDArray[np.generic]]
"""The inputs of one row, in order."""
Call = Callable[[Row], Floats]


class OneByOne(Runner):
    """A model of a device's engine, which takes one row at a time.

    Args:
        engine: its name.
        codec: of the student; tells what goes in.
        call: from the inputs of one row, in order, to its logits.
        length: positions that every row must have; None: any number.
    """

    def __init__(self, engine: str, codec: Codec, call: Call, length: int | None = None):
        self.engine, self.call, self.length = engine, call, length
        self.inputs = signature(example(codec))
        self.outputs = {"logits": Tensors("float32", (None, None))}

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = fitting(inputs, self.inputs)
        found = []
        for i in range(len(next(iter(given.values())))):
            row = [self._filled(array[i : i + 1]) for array in given.values()]
            found.append(np.asarray(self.call(row))[0])
        return {"logits": np.stack(found)}

    def _filled(self, row: NDArray[np.generic]) -> NDArray[np.generic]:
        """The row with as many positions as the engine wants; those behind are masked."""
        if self.length is None or row.ndim != 2:
            return row
        return np.pad(row, ((0, 0), (0, self.length - row.shape[1])))


@contextmanager
def hushed() -> Iterator[None]:
    """Without a tool's progress, advice and warnings, which its result does not depend on."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "executorch")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), quiet(*names):
        warnings.simplefilter("ignore")
        yield


def first_line(error: BaseException) -> Any:
    """What an error of another project says, in short."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
