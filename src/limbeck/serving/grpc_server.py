"""The Open Inference Protocol over gRPC.

Reference:
    https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from limbeck.serving.door import SlowBody, new_id, same_token
from limbeck.serving.errors import BadRequest, Draining, NotFound, Overloaded, ServingError, Unauthorized
from limbeck.serving.inference import changed, infer, may_change, model_metadata, seconds_of, server_metadata
from limbeck.serving.logs import log_request
from limbeck.serving.metrics import Metrics
from limbeck.serving.protos import SERVICE, message, methods
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings
from limbeck.serving.tensors import Tensor, from_bytes, from_values, to_bytes

Call = Callable[[Any, Any], Awaitable[Any]]
_Metadata = Mapping[str, "str | bytes"]
_LOG = logging.getLogger(__name__)
_HEADERS = 16 * 1024
_PROBES = frozenset({"ServerLive", "ServerReady"})
"""Calls that are answered without a token, and however much there is to do."""
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
        self._in_flight = self._held = 0  # calls; bytes of their messages
        # Half of what all messages together may be is for those that are being read, half for those that have been.
        self._room = max(settings.max_bodies // 2, settings.max_body)
        self._readers = asyncio.Semaphore(max(1, settings.max_bodies // 2 // settings.max_body))
        self._calls: dict[str, Call] = {
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
            ("grpc.http2.bdp_probe", 0),  # else windows grow, and with them what is held of messages nobody reads yet
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", 300_000),
        ]
        self._server = aio.server(options=options)
        self._server.add_generic_rpc_handlers((_Calls(self._serve),))
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

    async def _serve(self, name: str, metadata: _Metadata, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """A call from its headers to its end: who may not come in is refused before a message has been read."""
        began, code, size = time.monotonic(), "CANCELLED", 0
        self._in_flight += 1
        try:
            self._admit(name, metadata)
            request = None
            if name not in _PROBES:
                data = await self._read(messages)
                size = self._hold(len(data))
                request = _parsed(name, data)
            answer: bytes = (await self._calls[name](request, context)).SerializeToString()
            code = "OK"
            return answer
        except ServingError as error:
            code = error.code
            await _abort(context, error)
            raise  # it does not come to this
        except asyncio.CancelledError:
            raise
        except Exception as error:
            code = "INTERNAL"
            _LOG.exception("a call failed")
            await _abort(context, ServingError("the server failed on this request"))
            raise error  # nor to this
        finally:
            self._in_flight -= 1
            self._held -= size
            self._tell(name if name in self._calls else "other", code, time.monotonic() - began)

    def _admit(self, name: str, metadata: _Metadata) -> None:
        if name in _PROBES:
            return
        if not same_token(_text(metadata.get("authorization")), self._settings.token):
            raise Unauthorized("the token is missing or wrong", fix="metadata authorization: Bearer TOKEN")
        if name not in self._calls:
            raise _Unknown("there is no such call")
        if self.closed:
            raise Draining("the server is about to stop")
        if self._in_flight > self._settings.max_requests:
            raise Overloaded("too many requests are under way")

    async def _read(self, messages: AsyncIterator[bytes]) -> bytes:
        """A call's message: how large it is, one knows once it is there, so that only some are read at a time."""
        seconds = self._settings.body_seconds
        try:
            async with asyncio.timeout(2 * seconds):  # those who send nothing are gone by then
                await self._readers.acquire()
        except TimeoutError as error:
            raise Overloaded("too many requests are being read") from error
        try:
            async with asyncio.timeout(seconds):
                return await anext(messages)
        except TimeoutError as error:
            raise SlowBody("the request took too long to come") from error
        except StopAsyncIteration as error:
            raise BadRequest("the call has no message") from error
        finally:
            self._readers.release()

    def _hold(self, size: int) -> int:
        if self._held + size > self._room:
            raise Overloaded("too many large requests are under way")
        self._held += size
        return size

    def _tell(self, name: str, code: str, seconds: float) -> None:
        self._metrics.ended("grpc", name, code, seconds)
        log_request(request_id=new_id(), protocol="grpc", route=name, status=code, ms=round(seconds * 1000, 2))

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
        may_change(self._settings)
        _refuse_others(request.parameters)
        await changed(self._repository.load, request.model_name)
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, context: Any) -> Any:
        may_change(self._settings)
        _refuse_others(request.parameters, "unload_dependents")  # no model here depends on another
        await changed(self._repository.unload, request.model_name)
        return message("RepositoryModelUnloadResponse")()


class _Calls(grpc.GenericRpcHandler):
    """All calls, as such with a stream of messages: of these, none is read before it is asked for.

    Args:
        serve: a call by its name, with its metadata.
    """

    def __init__(self, serve: Callable[..., Awaitable[bytes]]):
        self._serve = serve

    def service(self, details: Any) -> Any:
        service, _, name = details.method.strip("/").partition("/")
        metadata = dict(details.invocation_metadata or ())
        return grpc.stream_unary_rpc_method_handler(partial(self._serve, name if service == SERVICE else "", metadata))


class _Unknown(NotFound):
    """There is no such call."""

    code = "UNIMPLEMENTED"


def _parsed(name: str, data: bytes) -> Any:
    try:
        return methods()[name][0].FromString(data)
    except DecodeError as error:
        raise BadRequest("the message cannot be read") from error


def _refuse_others(parameters: Any, *known: str) -> None:
    if unknown := sorted(set(parameters) - set(known)):
        raise BadRequest(f"the parameter `{unknown[0]}` is not known", allowed=", ".join(known) or "none")


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
