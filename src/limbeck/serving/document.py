"""The OpenAPI document: what routes say of themselves, and the bodies that they read by themselves."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from limbeck.serving import schema
from limbeck.serving.door import OPEN
from limbeck.serving.errors import ServingError
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings

_REASONS = {
    400: "The request cannot be read, or does not fit the model.",
    401: "The token is missing or wrong.",
    403: "The server was started without leave to do this, or without a token and called by another name.",
    404: "There is no such model.",
    408: "The request took too long to come.",
    413: "The request is too large.",
    415: "The content type is not taken.",
    429: "Too much to do; `Retry-After` says when to come back.",
    500: "The model failed on this request.",
    503: "Not ready, or about to stop.",
    504: "The deadline passed.",
}
_BODIES = (
    schema.PredictOne,
    schema.PredictMany,
    schema.InferRequest,
    schema.IndexRequest,
    schema.LoadRequest,
    schema.UnloadRequest,
)
_ROWS = ("Row", "PredictOne")
"""Schemas that hold a row's plain inputs."""


def failures(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route."""
    return {code: {"model": schema.Error, "description": _REASONS[code]} for code in (401, 403, 408, 500, *codes)}


def body(name: str, *, required: bool = True, binary: bool = False) -> dict[str, Any]:
    """A body that a route reads by itself.

    Args:
        name: of its schema.
        required: whether there must be one.
        binary: whether tensors may follow the JSON.
    """
    content: dict[str, Any] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    if binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": required, "content": content}}


def document(app: FastAPI, repository: Repository, settings: Settings) -> dict[str, Any]:
    """The document for the models as they are: plain requests are told as the first model reads them."""
    try:
        with repository.lease() as model:
            roles = dict(model.roles)
    except ServingError:  # nothing is loaded
        roles = {"text": True}
    made = get_openapi(title=app.title, version=app.version, routes=app.routes)
    known = made.setdefault("components", {}).setdefault("schemas", {})
    for each in _BODIES:
        told = each.model_json_schema(ref_template="#/components/schemas/{model}")
        known |= told.pop("$defs", {})
        known[each.__name__] = told
    for name in _ROWS:
        _only(known[name], roles)
    if "text" not in roles:
        known["PredictMany"]["properties"]["inputs"]["items"] = {"$ref": "#/components/schemas/Row"}
    made["paths"]["/predict"]["post"]["requestBody"] = {"required": True, "content": _predict(roles)}
    if settings.token is not None:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, item in made["paths"].items():
            for operation in item.values():
                operation["security"] = [] if path in OPEN else [{"token": []}]
    return made


def _only(told: dict[str, Any], roles: dict[str, bool]) -> None:
    """Of a row's fields, those that a model reads; those that it needs are required."""
    for name in schema.Row.model_fields:
        if name not in roles:
            del told["properties"][name]
        elif roles[name]:
            given = next(each for each in told["properties"][name]["anyOf"] if each.get("type") != "null")
            told["properties"][name] = given
            told.setdefault("required", []).append(name)


def _predict(roles: dict[str, bool]) -> dict[str, Any]:
    one, many = ({"$ref": f"#/components/schemas/{name}"} for name in ("PredictOne", "PredictMany"))
    content: dict[str, Any] = {"application/json": {"schema": {"anyOf": [one, many]}}}
    if "image" in roles:
        image = {"type": "string", "format": "binary", "description": "A picture's file."}
        fields = {"image": image, "top_k": {"type": "integer", "minimum": 1, "maximum": 1000}}
        form = {"type": "object", "required": ["image"], "properties": fields, "additionalProperties": False}
        content["multipart/form-data"] = {"schema": form}
        content["image/png"] = content["image/jpeg"] = {"schema": image}
    return content
