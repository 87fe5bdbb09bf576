"""The card of a student that is ready to be asked: `limbeck.json` beside its weights.

A Hugging Face folder says what the model is; the card says how it was taught to be asked: the task with its lengths
and columns, what its scores must be divided by to be read as confidence, and in which form its weights are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError

CARD = "limbeck.json"
"""Name of the card's file."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a student is asked.

    Attributes:
        task: the task as a recipe gives it, with its `type` and fields.
        format: pytorch, onnx, openvino, onnxruntime-genai, ...
        precision: of the weights: fp32, bf16, int8, int4.
        file: the model's file in the folder; None where the format has its own way.
        labels: the classes by index; None for language models.
        temperature: what logits are divided by before the softmax, fitted on validation rows; 1.0 is as they are.
        facts: what else is known: opset, largest difference from torch, latency where it was made.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    task: dict[str, Any]
    format: str = "pytorch"
    precision: str = "fp32"
    file: str | None = None
    labels: tuple[str, ...] | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    facts: dict[str, Any] = field(default_factory=dict)


def weights_in(folder: Path, card: Card) -> list[Path]:
    """The files of a student's folder that hold its weights."""
    if card.file is None:
        return sorted(folder.glob("*.safetensors"))
    path = folder / card.file
    return [each for each in (path, path.with_name(f"{path.name}.data"), path.with_suffix(".bin")) if each.is_file()]


def write_card(card: Card, folder: Path) -> None:
    """Put the card beside the weights."""
    write_json(folder / CARD, asdict(card))


def read_card(folder: Path) -> Card:
    """The card of a folder.

    Raises:
        ModelError: there is none, or it does not say what a card says.
    """
    path = folder / CARD
    if not path.is_file():
        raise ModelError(f"{folder} has no {CARD}", fix="limbeck export RUN writes it")
    fix = "limbeck export writes a new one"
    try:
        card = _READ.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path} cannot be read", got=f"{where}: {first['msg']}", fix=fix) from error
    names = card.labels
    if not isinstance(card.task.get("type"), str):
        raise ModelError(f"{path} cannot be read", got="a task without its `type`", fix=fix)
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ModelError(f"{path} cannot be read", got=f"labels: {', '.join(names[:6])}", allowed="different names")
    return card


_READ = TypeAdapter(Card)
"""How a card is read, type by type: it may come from a stranger."""
