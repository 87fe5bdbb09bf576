"""Requests and responses over HTTP as pydantic reads and describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from limbeck.serving.tensors import DATATYPES

_TEXT = Field(min_length=1, pattern=r"\S", description="A text; not blank.")
_IMAGE = Field(min_length=4, description="A picture's file in base64.", json_schema_extra={"contentEncoding": "base64"})


def _whole(value: object) -> object:
    """JSON knows one kind of number: 2.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
Text = Annotated[str, _TEXT]
Picture = Annotated[str, _IMAGE]
TopK = Annotated[int, Field(ge=1, le=1000, description="How many classes to name, the likeliest first."), _WHOLE]
Name = Annotated[str, Field(min_length=1, max_length=256, description="Left out: the first model of the server.")]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,18}$", description="Left out: the highest that is ready.")]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]
assert set(Datatype.__args__) == DATATYPES.keys()  # type: ignore[attr-defined]
Size = Annotated[int, Field(ge=1, le=2**31 - 1), _WHOLE]
Parameters = dict[str, bool | int | float | str]


class Strict(BaseModel):
    """Unknown fields are refused; nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Row(Strict):
    """One row: a text, two texts, or a picture, as the model reads it."""

    text: Text | None = None
    text_pair: Text | None = None
    image: Picture | None = None


class _Choice(Strict):
    top_k: TopK = 1
    model: Name | None = None
    version: Version | None = None


class PredictOne(_Choice, Row):
    """One row to classify."""


class PredictMany(_Choice):
    """Rows to classify."""

    inputs: Annotated[list[Text | Row], Field(min_length=1, max_length=1024)]


class Scored(BaseModel):
    """A class and its probability."""

    label: str
    confidence: Annotated[float, Field(ge=0, le=1)]


class Prediction(Scored):
    """The likeliest class, and the `top_k` likeliest."""

    top: list[Scored]
    by: Annotated[str, Field(description="Of a cascade: the model whose answer it is.")] | None = None
    missed: (
        Annotated[
            list[str],
            Field(description="Of a cascade: models that should have been asked and gave no answer, and why."),
        ]
        | None
    ) = None


class Predictions(BaseModel):
    """One prediction a row, in order."""

    model: str
    version: str
    predictions: list[Prediction]


class Error(BaseModel):
    """Why there is no answer."""

    error: str


class InputTensor(Strict):
    """One input; its data here, or after the JSON in the binary extension."""

    model_config = ConfigDict(json_schema_extra={"required": ["name", "shape", "datatype", "data"]})

    name: Annotated[str, Field(min_length=1, max_length=256)]
    shape: Annotated[list[Size], Field(min_length=1, max_length=8)]
    datatype: Datatype
    parameters: Parameters = {}
    data: list[Any] | None = None


class WantedTensor(Strict):
    """An output that is asked for."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    parameters: Parameters = {}


class InferRequest(Strict):
    """Inference request of the Open Inference Protocol."""

    id: Annotated[str, Field(max_length=256)] | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=64)]
    outputs: Annotated[list[WantedTensor], Field(max_length=64)] | None = None


class OutputTensor(BaseModel):
    """One output."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters = {}
    data: list[Any] | None = None


class InferResponse(BaseModel):
    """Inference response of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A model's input or output; -1 where any size fits."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(BaseModel):
    """Whether the server is there."""

    live: bool


class Ready(BaseModel):
    """Whether requests will be answered."""

    ready: bool


class IndexRequest(Strict):
    """Which models to list."""

    ready: bool = False


class IndexEntry(BaseModel):
    """A model's version and its state."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class Nothing(Strict):
    """No parameters: none is known."""


class LoadRequest(Strict):
    """Loading; the models are those that the server was started with, as their folders are now."""

    parameters: Nothing = Nothing()


class UnloadParameters(Strict):
    """Triton's clients send it; no model here depends on another."""

    unload_dependents: bool = False


class UnloadRequest(Strict):
    """Unloading."""

    parameters: UnloadParameters = UnloadParameters()
