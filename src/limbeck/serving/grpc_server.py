"""The Open Inference Protocol over gRPC.

Reference:
    https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from grpc import aio

from limbeck.core.errors import LimbeckError
from limbeck.serving.door import new_id, same_token
from limbeck.serving.errors import BadRequest, Draining, Failed, Forbidden, Overloaded, ServingError, Unauthorized
from limbeck.serving.inference import infer, model_metadata, seconds_of, server_metadata
from limbeck.serving.logs import ACCESS
from limbeck.serving.metrics import Metrics
from limbeck.serving.protos import SERVICE, message, methods
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings
from limbeck.serving.tensors import Tensor, from_bytes, from_values, to_bytes

Call = Callable[[Any, Any], Awaitable[Any]]
_LOG = logging.getLogger(__name__)
_HEADERS = 16 * 1024
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that holds the values of a type."""


class GrpcServer:
    """The calls, and the server that takes them.

    Args:
        repository: of the models.
        settings: bounds and token.
        metrics: told of every call.

    Attributes:
        closed: whether new calls are refused.
        port: that it listens to, once it has been started.
    """

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics):
        self._repository, self._settings, self._metrics = repository, settings, metrics
        self.closed = False
        self.port = 0
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        settings = self._settings
        options = [
            ("grpc.max_receive_message_length", settings.max_body),
            ("grpc.max_send_message_length", settings.max_body),
            ("grpc.max_metadata_size", _HEADERS),
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", 300_000),
        ]
        self._server = aio.server(
            options=options, maximum_concurrent_rpcs=settings.max_requests, interceptors=[_Admission(self._admit)]
        )
        calls: dict[str, Call] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(name, calls[name]),
                request_deserializer=asked.FromString,
                response_serializer=answer.SerializeToString,
            )
            for name, (asked, answer) in methods().items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        try:
            self.port = self._server.add_insecure_port(f"{host}:{settings.grpc_port}")
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen to {host}:{settings.grpc_port}") from error
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and give those under way some time."""
        self.closed = True
        if self._server is not None:
            await self._server.stop(seconds)

    def _guarded(self, name: str, call: Call) -> Call:
        """A call with its errors, log and metrics."""

        async def guarded(request: Any, context: Any) -> Any:
            began, code = time.monotonic(), "CANCELLED"
            try:
                answer = await call(request, context)
                code = "OK"
                return answer
            except ServingError as error:
                code = error.code
                await _abort(context, error)
            except asyncio.CancelledError:
                raise
            except Exception:
                code = "INTERNAL"
                _LOG.exception("a call failed")
                await _abort(context, ServingError("the server failed on this request"))
            finally:
                self._tell(name, code, time.monotonic() - began)

        return guarded

    def _admit(self, name: str, metadata: Mapping[str, str | bytes]) -> Call | None:
        """What refuses a call; None where it may come in."""
        refusal: ServingError
        if name != "ServerLive" and not same_token(_text(metadata.get("authorization")), self._settings.token):
            refusal = Unauthorized("the token is missing or wrong", fix="metadata authorization: Bearer TOKEN")
        elif self.closed and name not in ("ServerLive", "ServerReady"):
            refusal = Draining("the server is about to stop")
        else:
            return None

        async def refuse(request: Any, context: Any) -> Any:
            raise refusal

        return self._guarded(name if name in methods() else "other", refuse)

    def _tell(self, name: str, code: str, seconds: float) -> None:
        self._metrics.requests.labels("grpc", name, code).inc()
        self._metrics.seconds.labels("grpc", name).observe(seconds)
        extra = {"request_id": new_id(), "protocol": "grpc", "route": name, "status": code}
        ACCESS.info("request", extra=extra | {"ms": round(seconds * 1000, 2)})

    async def _live(self, request: Any, context: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._repository.ready)

    async def _metadata(self, request: Any, context: Any) -> Any:
        return message("ServerMetadataResponse")(**server_metadata())

    async def _model_ready(self, request: Any, context: Any) -> Any:
        with self._repository.lease(request.name, request.version or None):
            return message("ModelReadyResponse")(ready=True)

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        with self._repository.lease(request.name, request.version or None) as model:
            return message("ModelMetadataResponse")(**model_metadata(model, self._repository.versions(model.name)))

    async def _infer(self, request: Any, context: Any) -> Any:
        inputs = _tensors(request)
        wanted = [each.name for each in request.outputs] or None
        limits = [context.time_remaining(), seconds_of(_parameter(request.parameters, "timeout"))]
        seconds = min((each for each in limits if each is not None), default=None)
        with self._repository.lease(request.model_name, request.model_version or None) as model:
            outputs = await infer(model, inputs, wanted, seconds)
            answer = message("ModelInferResponse")(model_name=model.name, model_version=model.version, id=request.id)
        for tensor in outputs:
            told = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
            if request.raw_input_contents:  # the answer is in the form of the question
                answer.raw_output_contents.append(to_bytes(tensor))
            else:
                getattr(told.contents, _CONTENTS[tensor.datatype]).extend(tensor.array.reshape(-1).tolist())
        return answer

    async def _index(self, request: Any, context: Any) -> Any:
        found = [each for each in self._repository.index() if each["state"] == "READY" or not request.ready]
        return message("RepositoryIndexResponse")(models=found)

    async def _load(self, request: Any, context: Any) -> Any:
        await self._change(self._repository.load, request.model_name)
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, context: Any) -> Any:
        await self._change(self._repository.unload, request.model_name)
        return message("RepositoryModelUnloadResponse")()

    async def _change(self, work: Callable[[str], None], name: str) -> None:
        if not self._settings.allow_load:
            raise Forbidden("models are loaded and unloaded by who started the server", fix="--allow-load")
        try:
            await asyncio.to_thread(work, name)
        except ServingError:
            raise
        except LimbeckError as error:
            raise Failed(error.what) from error


class _Admission(aio.ServerInterceptor):
    """The door, which a call comes to before its message has been read.

    Args:
        admit: gives what refuses a call of a name with metadata, or None.
    """

    def __init__(self, admit: Callable[[str, Mapping[str, str | bytes]], Call | None]):
        self._admit = admit

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        refuse = self._admit(name, dict(details.invocation_metadata or ()))
        # As a call with a stream of messages: of such, none is read before they are asked for.
        return await continuation(details) if refuse is None else grpc.stream_unary_rpc_method_handler(refuse)


async def _abort(context: Any, error: ServingError) -> None:
    trailing = (("retry-after", str(error.retry_after)),) if isinstance(error, Overloaded) else ()
    await context.abort(getattr(grpc.StatusCode, error.code), str(error), trailing)


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _parameter(parameters: Any, name: str) -> object:
    """An integer among a request's parameters; None where there is none."""
    if name not in parameters:
        return None
    field = parameters[name].WhichOneof("parameter_choice")
    return getattr(parameters[name], field) if field else None


def _tensors(request: Any) -> list[Tensor]:
    raw = request.raw_input_contents
    if not raw:
        return [_from_contents(each) for each in request.inputs]
    if len(raw) != len(request.inputs) or any(each.HasField("contents") for each in request.inputs):
        raise BadRequest("raw_input_contents must hold every input, and `contents` none")
    return [
        from_bytes(each.name, each.datatype, list(each.shape), data)
        for each, data in zip(request.inputs, raw, strict=True)
    ]


def _from_contents(given: Any) -> Tensor:
    field = _CONTENTS.get(given.datatype)
    if field is None:
        raise BadRequest(f"values of `{given.name}` must be in raw_input_contents", got=given.datatype)
    if other := [each.name for each, _ in given.contents.ListFields() if each.name != field]:
        raise BadRequest(f"values of `{given.name}` are in {other[0]}", allowed=field)
    return from_values(given.name, given.datatype, list(given.shape), list(getattr(given.contents, field)))
