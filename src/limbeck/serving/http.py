"""The HTTP application: plain predictions, health and metrics; `v2.py` has the Open Inference Protocol."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from limbeck._version import __version__
from limbeck.runtime.student import Answer
from limbeck.serving import schema
from limbeck.serving.cascade import Told
from limbeck.serving.document import document, failures
from limbeck.serving.door import Direct, Door, Handler, error_response
from limbeck.serving.errors import BadRequest, Cancelled, ServingError, Unsupported
from limbeck.serving.metrics import CONTENT_TYPE, Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
_LONG = 0.02
"""Seconds of work after which it is looked whether the caller is still there."""
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_PREDICT: TypeAdapter[schema.PredictOne | schema.PredictMany] = TypeAdapter(schema.PredictOne | schema.PredictMany)


def create_app(repository: Repository, settings: Settings, metrics: Metrics) -> Door:
    """The application behind its door.

    Args:
        repository: of the models.
        settings: bounds and token.
        metrics: told of every request.
    """
    from limbeck.serving.v2 import add_v2

    app = FastAPI(title="limbeck", version=__version__, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_plain(app, repository, metrics)
    add_v2(app, repository, settings)
    app.openapi = lambda: document(app, repository, settings)  # type: ignore[method-assign]
    return Door(app, settings, metrics, direct=_direct(repository))


def _direct(repository: Repository) -> Direct:
    """The routes on which work is asked; the application has them too, and its document tells of them."""
    from limbeck.serving.v2 import INFER, INFER_VERSION, outputs_for

    def find(scope: Scope) -> tuple[str, Handler] | None:
        path = scope["path"]
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        if path == "/predict":
            return path, partial(_predict, repository)
        if (asked := _INFER.fullmatch(path)) is None:
            return None
        name, version = asked.groups()
        return INFER_VERSION if version else INFER, partial(outputs_for, repository, name=name, version=version)

    return find


def reply(content: Any, status: int = 200) -> Response:
    """An answer in JSON; what is None is left out."""
    if isinstance(content, BaseModel):
        content = content.model_dump(exclude_none=True)
    return Response(to_json(content), status, media_type="application/json")


def read(model: type[M], body: bytes) -> M:
    """A request's JSON, checked.

    Raises:
        BadRequest: it is no JSON, or not what the model says.
    """
    return _checked(model.model_validate, body)


def _checked(check: Callable[[Any], T], body: bytes) -> T:
    try:
        return check(from_json(body, allow_inf_nan=False))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])[:200]
        raise BadRequest(f"{place or 'the request'}: {first['msg']}") from error
    except ValueError as error:
        raise BadRequest("the request is not JSON") from error


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is given up when the caller goes away.

    Whether one has gone is looked at only while work takes long: a task that watches costs more than most answers.

    Args:
        request: whose body has been read.
        work: cancelled if nobody waits for it.
    """
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None
    gone, watching = False, list[asyncio.Task[None]]()

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        this.cancel()

    later = loop.call_later(_LONG, lambda: watching.append(loop.create_task(watch())))
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not this.uncancel():
            raise Cancelled("the caller went away") from None
        raise
    finally:
        later.cancel()
        for task in watching:
            task.cancel()


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ServingError)
    async def known(request: Request, error: ServingError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return error_response(ServingError("the server failed on this request"))


def _add_plain(app: FastAPI, repository: Repository, metrics: Metrics) -> None:
    @app.post(
        "/predict",
        response_model=schema.Predictions,
        responses=failures(400, 404, 413, 415, 429, 503, 504),
        summary="Classify texts or pictures",
    )
    async def predict(request: Request) -> Response:
        return await _predict(repository, request)

    @app.get("/metrics", responses={**failures(), 200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def measured() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})


async def _predict(repository: Repository, request: Request) -> Response:
    asked, fields = await _asked(request)
    with repository.lease(asked.model, asked.version) as model:
        outputs = await unless_gone(request, model.ask(fields))
        found = [_prediction(each, model.student.labels, asked.top_k) for each in model.answers(outputs)]
        return reply({"model": model.name, "version": model.version, "predictions": found})


async def _asked(request: Request) -> tuple[schema.PredictOne | schema.PredictMany, list[dict[str, Any]]]:
    """What is asked for, and each row's plain inputs."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "application/json":
        asked = _checked(_PREDICT.validate_python, await request.body())
        rows = asked.inputs if isinstance(asked, schema.PredictMany) else [asked]
        return asked, [_fields(row) for row in rows]
    if kind == "multipart/form-data":
        return await _form(request)
    if kind.startswith("image/"):
        return schema.PredictOne(), [{"image": await request.body()}]
    raise Unsupported("a body of this type is not taken", allowed="application/json, multipart/form-data, image/*")


async def _form(request: Request) -> tuple[schema.PredictOne, list[dict[str, Any]]]:
    try:
        async with request.form(max_files=1, max_fields=8) as form:
            given: dict[str, Any] = dict(form)
            upload = given.pop("image", None)
            if upload is None or isinstance(upload, str):
                raise BadRequest("the form has no file `image`")
            picture = await upload.read()
    except (MultiPartException, HTTPException) as error:
        raise BadRequest("the form cannot be read") from error
    if "top_k" in given:
        text = given["top_k"]
        given["top_k"] = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
    return _checked(schema.PredictOne.model_validate, to_json(given)), [{"image": picture}]


def _fields(row: str | schema.Row) -> dict[str, Any]:
    if isinstance(row, str):
        return {"text": row}
    fields = {name: getattr(row, name) for name in schema.Row.model_fields if getattr(row, name) is not None}
    if "image" in fields:
        fields["image"] = picture_in(fields["image"])
    return fields


def picture_in(text: str | bytes) -> bytes:
    """A picture's file from base64.

    Raises:
        BadRequest: it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("the image is not base64") from error


def _prediction(answer: Answer, labels: tuple[str, ...], top_k: int) -> dict[str, Any]:
    order = np.argsort(-answer.probabilities, kind="stable")[:top_k].tolist()
    top = [{"label": labels[i], "confidence": float(answer.probabilities[i])} for i in order]
    found = {"label": answer.label, "confidence": answer.confidence, "top": top}
    return found | {"by": answer.by, "missed": list(answer.missed)} if isinstance(answer, Told) else found
