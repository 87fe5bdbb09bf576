"""What REST and gRPC have in common: a model's face in the Open Inference Protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from limbeck._version import __version__
from limbeck.core.errors import LimbeckError
from limbeck.serving.cascade import CascadeModel, Told
from limbeck.serving.errors import BadRequest, Failed, Forbidden, ServingError
from limbeck.serving.model import Model
from limbeck.serving.settings import Settings
from limbeck.serving.tensors import DATATYPE, Tensor, texts

_ADDED = {"probabilities": "FP32", "label": "BYTES", "confidence": "FP32"}
"""What is given beside the model's own outputs."""
_OF_A_CASCADE = {"by": "BYTES", "missed": "BYTES"}
"""And by a cascade: whose answer it is, and what was missed."""


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "limbeck", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}


def model_metadata(model: Model, versions: Sequence[str]) -> dict[str, Any]:
    """Inputs and outputs; a request holds either the plain inputs, like `text`, or all of the model's own."""
    runner = model.student.runner
    plain = [{"name": role, "datatype": "BYTES", "shape": [-1]} for role in model.roles]
    classes = len(model.student.labels)
    own = [
        {"name": name, "datatype": DATATYPE[each.dtype], "shape": [-1 if size is None else size for size in each.shape]}
        for name, each in runner.inputs.items()
    ]
    outputs = [{"name": "logits", "datatype": "FP32", "shape": [-1, classes]}]
    shapes = {"probabilities": [-1, classes]}
    added = _ADDED | (_OF_A_CASCADE if isinstance(model, CascadeModel) else {})
    outputs += [{"name": name, "datatype": kind, "shape": shapes.get(name, [-1])} for name, kind in added.items()]
    return {
        "name": model.name,
        "versions": list(versions),
        "platform": f"limbeck_{runner.engine}",
        "inputs": [*plain, *own],
        "outputs": outputs,
    }


async def infer(
    model: Model, inputs: Sequence[Tensor], wanted: Sequence[str] | None, seconds: float | None
) -> list[Tensor]:
    """The outputs for a request.

    Args:
        model: that is asked.
        inputs: plain ones, or the model's own.
        wanted: names of outputs; None: all.
        seconds: the caller's own deadline.

    Raises:
        ServingError: there is no answer.
    """
    given = {tensor.name: tensor.array for tensor in inputs}
    if len(given) != len(inputs):
        raise BadRequest("an input is given twice")
    known = ["logits", *_ADDED, *(_OF_A_CASCADE if isinstance(model, CascadeModel) else ())]
    if unknown := [name for name in wanted or () if name not in known]:
        raise BadRequest(f"the model has no output `{unknown[0]}`", allowed=", ".join(known))
    if given.keys() & model.roles.keys():
        outputs = await model.ask(_fields(model, given), seconds)
    else:
        outputs = await model.ask_arrays(given, seconds)
    answers = model.answers(outputs)
    found = {
        "logits": np.stack(outputs["logits"]).astype(np.float32, copy=False),
        "probabilities": np.stack([answer.probabilities for answer in answers]),
        "label": texts([answer.label for answer in answers]),
        "confidence": np.array([answer.confidence for answer in answers], dtype=np.float32),
    }
    told = [answer for answer in answers if isinstance(answer, Told)]
    found |= {"by": texts([each.by for each in told]), "missed": texts(["; ".join(each.missed) for each in told])}
    return [Tensor(name, found[name]) for name in (wanted or known)]


def may_change(settings: Settings) -> None:
    """Make sure that callers may load and unload models.

    Raises:
        Forbidden: they may not.
    """
    if not settings.allow_load:
        raise Forbidden("models are loaded and unloaded by who started the server", fix="--allow-load")


async def changed(work: Callable[[str], None], name: str) -> None:
    """Load or unload a model, in a thread.

    Args:
        work: of the repository.
        name: of the model.

    Raises:
        ServingError: it cannot be done.
    """
    try:
        await asyncio.to_thread(work, name)
    except ServingError:
        raise
    except LimbeckError as error:
        raise Failed(error.what, got=error.got, allowed=error.allowed, fix=error.fix) from error


def seconds_of(timeout: object) -> float | None:
    """A request's `timeout` parameter, microseconds as Triton has it.

    Raises:
        BadRequest: it is no number of them.
    """
    if timeout is None:
        return None
    if type(timeout) is not int or timeout < 0:
        raise BadRequest("`timeout` is no number of microseconds")
    return timeout / 1e6 if timeout else None


def _fields(model: Model, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row's plain inputs after another's."""
    if other := sorted(given.keys() - model.roles.keys()):
        raise BadRequest(f"`{other[0]}` cannot be mixed with plain inputs", allowed=", ".join(model.roles))
    columns = {}
    for name, array in given.items():
        if array.dtype.kind != "O":
            raise BadRequest(f"the input `{name}` is not BYTES")
        if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
            raise BadRequest(f"the input `{name}` is not of shape [-1] or [-1, 1]")
        columns[name] = [_read(name, value) for value in array.reshape(-1)]
    if len({len(column) for column in columns.values()}) > 1:
        raise BadRequest("the inputs differ in their number of rows")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read(name: str, value: bytes) -> str | bytes:
    if name == "image":
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the input `{name}` is not UTF-8") from error
