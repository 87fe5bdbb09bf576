"""The Open Inference Protocol over HTTP, with Triton's binary tensor data and model repository extensions.

Reference:
    https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from limbeck.serving import schema
from limbeck.serving.document import body, failures
from limbeck.serving.errors import BadRequest
from limbeck.serving.http import picture_in, read, reply, unless_gone
from limbeck.serving.inference import changed, infer, may_change, model_metadata, seconds_of, server_metadata
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings
from limbeck.serving.tensors import Tensor, from_bytes, from_json, to_bytes
from limbeck.serving.tensors import to_json as values_of

_LENGTH = "inference-header-content-length"
_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"
INFER, INFER_VERSION = f"{_MODEL}/infer", f"{_VERSION}/infer"
"""The routes of inference."""


async def outputs_for(repository: Repository, request: Request, name: str, version: str | None) -> Response:
    """A model's outputs for a request's inputs.

    Raises:
        ServingError: there are none.
    """
    with repository.lease(name, version) as model:
        asked, inputs = _request(await request.body(), request.headers.get(_LENGTH))
        wanted = [each.name for each in asked.outputs] if asked.outputs else None
        seconds = seconds_of(asked.parameters.get("timeout"))
        outputs = await unless_gone(request, infer(model, inputs, wanted, seconds))
        return _response(asked, model.name, model.version, outputs)


def add_v2(app: FastAPI, repository: Repository, settings: Settings) -> None:
    """Add the protocol's routes to an application."""
    _add_health(app, repository)
    _add_models(app, repository)
    _add_repository(app, repository, settings)


def _add_health(app: FastAPI, repository: Repository) -> None:
    @app.get("/v2", response_model=schema.ServerMetadata, responses=failures())
    async def server() -> Response:
        """What the server is."""
        return reply(server_metadata())

    @app.get("/v2/health/live", response_model=schema.Live)
    async def live() -> Response:
        """Whether the server is there."""
        return reply({"live": True})

    @app.get(
        "/v2/health/ready",
        response_model=schema.Ready,
        responses={**failures(), 503: {"model": schema.Ready, "description": "Not ready."}},
    )
    async def ready() -> Response:
        """Whether every model is served."""
        return reply({"ready": repository.ready}, 200 if repository.ready else 503)


def _add_models(app: FastAPI, repository: Repository) -> None:
    async def metadata(model_name: str, model_version: str | None = None) -> Response:
        """What a model takes and gives."""
        with repository.lease(model_name, model_version) as model:
            return reply(model_metadata(model, repository.versions(model_name)))

    async def ready(model_name: str, model_version: str | None = None) -> Response:
        """Whether a model is served."""
        with repository.lease(model_name, model_version):
            return reply({"ready": True})

    async def answer(request: Request, model_name: str, model_version: str | None = None) -> Response:
        """A model's outputs for a request's inputs."""
        return await outputs_for(repository, request, model_name, model_version)

    for path in (_MODEL, _VERSION):
        told = failures(404, 503)
        app.get(path, response_model=schema.ModelMetadata, responses=told)(metadata)
        app.get(f"{path}/ready", response_model=schema.Ready, responses=told)(ready)
        app.post(
            f"{path}/infer",
            response_model=schema.InferResponse,
            responses=failures(400, 404, 413, 429, 503, 504),
            openapi_extra=body("InferRequest", binary=True),
        )(answer)


def _add_repository(app: FastAPI, repository: Repository, settings: Settings) -> None:
    @app.post(
        "/v2/repository/index",
        response_model=list[schema.IndexEntry],
        responses=failures(400, 413),
        openapi_extra=body("IndexRequest", required=False),
    )
    async def index(request: Request) -> Response:
        """All models, their versions and states."""
        asked = read(schema.IndexRequest, await request.body() or b"{}")
        return reply([each for each in repository.index() if each["state"] == "READY" or not asked.ready])

    async def change(request: Request, asked: type[BaseModel], work: Callable[[str], None], name: str) -> Response:
        may_change(settings)
        read(asked, await request.body() or b"{}")
        await changed(work, name)
        return reply({})

    @app.post(
        "/v2/repository/models/{model_name}/load",
        response_model=dict[str, str],
        responses=failures(400, 404, 413),
        openapi_extra=body("LoadRequest", required=False),
    )
    async def load(request: Request, model_name: str) -> Response:
        """Load a model anew from its folder."""
        return await change(request, schema.LoadRequest, repository.load, model_name)

    @app.post(
        "/v2/repository/models/{model_name}/unload",
        response_model=dict[str, str],
        responses=failures(400, 404, 413),
        openapi_extra=body("UnloadRequest", required=False),
    )
    async def unload(request: Request, model_name: str) -> Response:
        """Serve a model no longer."""
        return await change(request, schema.UnloadRequest, repository.unload, model_name)


def _request(content: bytes, told: str | None) -> tuple[schema.InferRequest, list[Tensor]]:
    """The request and its tensors, whose data is in the JSON, or follows it one after another."""
    if told is None:
        size = len(content)
    elif told.isascii() and told.isdecimal() and len(told) < 20 and int(told) <= len(content):
        size = int(told)
    else:
        raise BadRequest("Inference-Header-Content-Length is no length within the body")
    asked, rest = read(schema.InferRequest, content[:size]), memoryview(content)[size:]
    inputs, place = [], 0
    for each in asked.inputs:
        count = each.parameters.get("binary_data_size")
        if (count is None) == (each.data is None):
            raise BadRequest(f"`{each.name}` wants either data or binary_data_size")
        if count is None:
            inputs.append(_from_json(each))
            continue
        if type(count) is not int or not 0 < count <= len(rest) - place:
            raise BadRequest(f"the binary data of `{each.name}` is not all there")
        inputs.append(from_bytes(each.name, each.datatype, each.shape, rest[place : place + count]))
        place += count
    if place != len(rest):
        raise BadRequest("there is more binary data than the inputs tell of", got=f"{len(rest) - place} bytes")
    return asked, inputs


def _from_json(given: schema.InputTensor) -> Tensor:
    tensor = from_json(given.name, given.datatype, given.shape, given.data or [])
    if given.name == "image" and given.datatype == "BYTES":  # JSON has no bytes
        flat = tensor.array.reshape(-1)
        flat[:] = [picture_in(value) for value in flat]
    return tensor


def _response(asked: schema.InferRequest, name: str, version: str, outputs: Sequence[Tensor]) -> Response:
    binary = {
        each.name: bool(each.parameters.get("binary_data", asked.parameters.get("binary_data_output", False)))
        for each in asked.outputs or [schema.WantedTensor(name=tensor.name) for tensor in outputs]
    }
    told: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for tensor in outputs:
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        if binary[tensor.name]:
            parts.append(to_bytes(tensor))
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = values_of(tensor)
        told.append(one)
    content: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": told}
    if asked.id is not None:
        content["id"] = asked.id
    head = to_json(content)
    if not parts:
        return Response(head, media_type="application/json")
    headers = {_LENGTH: str(len(head)), "content-type": "application/octet-stream"}
    return Response(b"".join([head, *parts]), headers=headers)
