"""Engines that language models run in: how each is started, and how a request is put to it."""

from __future__ import annotations

import importlib.util
import json
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from limbeck.core.errors import MissingExtra, ModelError, nearest
from limbeck.core.types import Sample
from limbeck.runtime.guess import PRECISIONS
from limbeck.serving.errors import BadRequest
from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.model import Found, LanguageModel, found_in, open_model
from limbeck.serving.language.schema import RICH, Asked, TextAsked
from limbeck.serving.language.view import NAME, make_view

_DTYPES = {short: name for name, short in PRECISIONS.items()}
_MOST_SEEDS = 2**31


@dataclass(frozen=True)
class Address:
    """Where an engine listens: a socket file in a folder that nobody else can enter, or a port that wants a key.

    Attributes:
        socket: the file.
        port: of this machine, where the engine knows no files.
        key: that it wants then.
    """

    socket: Path | None = None
    port: int | None = None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Start:
    """How an engine is started.

    Attributes:
        words: for `launch`.
        address: where it will listen.
        environment: beyond the server's own.
    """

    words: list[str]
    address: Address
    environment: dict[str, str] = field(default_factory=dict)


class Engine(ABC):
    """One of the engines, for one model.

    Args:
        model: that it serves.
        bounds: places and lengths.
        threads: for one process; None: the engine's own choice.

    Attributes:
        name: as the command line has it.
        module: that must be installed.
        extra: of this package, that brings it.
        formats: of folders that it reads.
        running: answers that it writes at a time by default.
        fields: of a request, beyond those that all engines have.
        speaks: whether its answers are passed on as they are; else they are put into shape here.
        metrics: its own route of figures for Prometheus.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str]
    formats: ClassVar[tuple[str, ...]] = ("pytorch",)
    running: ClassVar[int] = 1
    fields: ClassVar[frozenset[str]] = frozenset()
    speaks: ClassVar[bool] = True
    metrics: ClassVar[str | None] = None

    def __init__(self, model: LanguageModel, bounds: Bounds, threads: int | None = None):
        self.model, self.bounds, self.threads = model, bounds, threads
        self.slots = bounds.running or self.running

    def prepare(self, place: Path) -> None:
        """Put what it needs into a folder of our own."""
        make_view(self.model, place)

    @abstractmethod
    def start(self, place: Path, attempt: int) -> Start:
        """How it is started.

        Args:
            place: the folder of our own, where it will run too.
            attempt: counts the starts, from 1.
        """

    def request(self, asked: Asked) -> dict[str, Any]:
        """The body that it is sent.

        Raises:
            BadRequest: it cannot do what is asked for.
        """
        drawing = self.model.drawing
        told = {
            "model": self.model.name,
            **asked.content(),
            "temperature": drawing.temperature if asked.temperature is None else asked.temperature,
            "top_p": drawing.top_p if asked.top_p is None else asked.top_p,
            "stream": asked.streams,
            **asked.rich(self.fields),
        }
        if drawing.top_k and asked.top_k is None:
            told["top_k"] = drawing.top_k
        if (most := self._longest(asked)) is not None:
            told["max_tokens"] = most
        if asked.seed is not None:
            told["seed"] = asked.seed % _MOST_SEEDS
        if asked.stops:
            told["stop"] = asked.stops
        if asked.streams:
            told["stream_options"] = {"include_usage": True}
        return told

    def _longest(self, asked: Asked) -> int | None:
        most = [each for each in (asked.longest, self.bounds.max_tokens) if each is not None]
        return min(most) if most else None

    def route(self, asked: Asked) -> str:
        """Its own route for a request."""
        return asked.route

    @classmethod
    def installed(cls) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(cls.module) is not None


class Genai(Engine):
    """onnxruntime-genai, in a small server of ours."""

    name, module, extra = "genai", "onnxruntime_genai", "genai"
    formats = ("onnxruntime-genai",)
    running = 4

    def prepare(self, place: Path) -> None:
        """Nothing: it reads the folder itself, prompts as in training."""

    def start(self, place: Path, attempt: int) -> Start:
        address = _socket(place, attempt)
        words = ["limbeck.serving.language.genai", str(self.model.folder.resolve()), str(address.socket)]
        words += [self.model.name, str(self.model.context), str(self.threads or 0)]
        return Start(words, address)

    def request(self, asked: Asked) -> dict[str, Any]:
        return super().request(asked) | {"stop": asked.stops}


class TransformersServe(Engine):
    """`transformers serve`: one answer at a time, in torch.

    It is asked for the continuation of texts alone: of a conversation it would read the model's kind from its name, and
    take thoughts, or the prompt itself, for parts of the answer. Its streams are read in any case, since it does not
    notice when the caller of a whole answer goes away; and shaped anew, since stop strings, ends of streams and the
    model's name are not as OpenAI's.
    """

    name, module, extra = "transformers", "transformers", "serve"
    speaks = False

    @classmethod
    def installed(cls) -> bool:
        from transformers.utils.import_utils import is_serve_available

        return bool(is_serve_available())

    def start(self, place: Path, attempt: int) -> Start:
        address = _socket(place, attempt)
        words = ["--socket", str(address.socket), "transformers.cli.transformers", "serve", NAME]
        words += ["--device", "auto", "--dtype", "auto", "--log-level", "error"]
        return Start(words, address, {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)})

    def route(self, asked: Asked) -> str:
        return TextAsked.route

    def request(self, asked: Asked) -> dict[str, Any]:
        told = super().request(asked)
        how: dict[str, Any] = {"do_sample": told["temperature"] > 0}
        if how["do_sample"]:
            how |= {"temperature": told["temperature"], "top_p": told["top_p"], "top_k": told.get("top_k", 0)}
        kept = {name: value for name, value in self.model.generation.items() if name not in _DRAWN}
        text, tokens = self._prompt(asked)
        # It would run over the end of the model's positions without a word.
        most = room(tokens, told.get("max_tokens"), self.model.context)
        passed: dict[str, Any] = {name: value for name, value in told.items() if name in _PASSED}
        plan = json.dumps({**kept, **how, "eos_token_id": self.model.ends, "max_new_tokens": most})
        return {**passed, "prompt": text, "stream": True, "generation_config": plan}

    def _prompt(self, asked: Asked) -> tuple[str, int]:
        """The prompt as text, and its tokens."""
        codec, content = self.model.codec, asked.content()
        if "messages" not in content:
            return content["prompt"], len(self._read(content["prompt"]))
        sample = Sample("asked", content)
        text, ids = codec.prompt_text(sample), codec.prompt_ids(sample)
        if self._read(text) != ids:  # it puts an opening token before what has one from its template
            text = text.removeprefix(codec.processor.bos_token or "")
            if self._read(text) != ids:
                what = "transformers serve would read this prompt otherwise than the student was taught"
                raise BadRequest(what, fix="another engine")
        return text, len(ids)

    def _read(self, text: str) -> list[int]:
        return list(self.model.codec.processor(text, verbose=False)["input_ids"])


class _OnGpu(Engine):
    """Engines that batch continuously, and say by themselves what is too long."""

    running = 256
    fields = RICH
    metrics = "/metrics"

    def _told(self) -> dict[str, str]:
        """What both are told of the model, by vLLM's names."""
        quantization = self.model.config.get("quantization_config") or {}
        method = quantization.get("quant_method")
        dtype = _DTYPES.get(self.model.card.precision, "auto")
        return {"dtype": dtype, **({"quantization": str(method)} if method else {})}


class Vllm(_OnGpu):
    """vLLM's own server."""

    name, module, extra = "vllm", "vllm", "vllm"

    def start(self, place: Path, attempt: int) -> Start:
        address = _socket(place, attempt)
        told = {
            "served-model-name": self.model.name,
            "max-model-len": str(self.model.context),
            "max-num-seqs": str(self.slots),
            **self._told(),
            "uds": str(address.socket),
            "uvicorn-log-level": "warning",
        }
        words = ["vllm.entrypoints.cli.main", "serve", NAME, *(f"--{name}={value}" for name, value in told.items())]
        return Start([*words, "--disable-uvicorn-access-log"], address)


class Sglang(_OnGpu):
    """SGLang's own server. It knows no socket files: it gets a key, in a file, since all can read its words."""

    name, module, extra = "sglang", "sglang", "sglang"

    def start(self, place: Path, attempt: int) -> Start:
        address = Address(port=_free_port(), key=secrets.token_urlsafe(32))
        told = {
            "model-path": NAME,
            "served-model-name": self.model.name,
            "context-length": self.model.context,
            "max-running-requests": self.slots,
            **self._told(),
            "host": "127.0.0.1",
            "port": address.port,
            "api-key": address.key,
            "log-level": "warning",
            "enable-metrics": True,
        }
        plan = place / f"engine-{attempt}.yaml"  # JSON is YAML
        plan.touch(mode=0o600)
        plan.write_text(json.dumps(told), encoding="utf-8")
        return Start(["sglang.launch_server", "--config", plan.name], address)


ENGINES: dict[str, type[Engine]] = {each.name: each for each in (Vllm, Sglang, Genai, TransformersServe)}
"""By name."""
_PASSED = ("seed", "stop")
"""Fields that `transformers serve` has and understands as OpenAI does."""
_DRAWN = ("do_sample", "temperature", "top_p", "top_k", "min_p", "max_length", "max_new_tokens", "transformers_version")


class TooLong(BadRequest):
    """Prompt and answer do not fit into the model's context."""

    reason = "context_length_exceeded"


def room(prompt: int, wanted: int | None, context: int) -> int:
    """Tokens that an answer may have.

    Args:
        prompt: tokens of the prompt.
        wanted: what is asked for; None: what the context leaves.
        context: tokens of both.

    Raises:
        BadRequest: there is no prompt.
        TooLong: there is no room.
    """
    if prompt < 1:
        raise BadRequest("the prompt has no tokens")
    left = context - prompt
    if left < 1 or (wanted or 1) > left:
        got = f"{prompt} tokens of the prompt and {wanted or 1} of the answer"
        raise TooLong("prompt and answer are too long for the model", got=got, allowed=f"{context} together")
    return wanted or left


def choose(word: str, engine: str, bounds: Bounds, *, name: str | None = None, threads: int | None = None) -> Engine:
    """The engine for a run or a folder.

    `auto` takes vLLM or SGLang where there is a GPU, for Hugging Face folders; else onnxruntime-genai for its folders,
    and `transformers serve` for those of Hugging Face; of a run what the first of them can read.

    Args:
        word: the run or folder, perhaps as NAME=FOLDER.
        engine: `auto`, or one by name.
        bounds: places and lengths.
        name: to serve it under.
        threads: of the engine.

    Raises:
        ModelError: there is no such engine, or it cannot serve what is there.
        MissingExtra: it is not installed.
    """
    if engine != "auto" and engine not in ENGINES:
        hint = nearest(engine, ENGINES)
        fix = f"--engine {hint}" if hint else None
        raise ModelError(
            "no engine of this name serves language models", got=engine, allowed=", ".join(ENGINES), fix=fix
        )
    kinds = _order() if engine == "auto" else [ENGINES[engine]]
    found = found_in(word, name)
    matches = [(kind, each) for kind in kinds for each in found if each.card.format in kind.formats]
    if not matches:
        what = f"nothing here serves `{found[0].card.format}`" if engine == "auto" else f"{engine} does not serve this"
        allowed = ", ".join(sorted({each for kind in kinds for each in kind.formats}))
        raise ModelError(what, got=", ".join(str(each.folder) for each in found), allowed=allowed)
    kind, each = next((match for match in matches if match[0].installed()), matches[0])
    _check_installed(kind)
    return kind(_under(each, kind, bounds), bounds, threads)


def _under(found: Found, kind: type[Engine], bounds: Bounds) -> LanguageModel:
    model = open_model(found, kind.formats)
    return model if bounds.context is None else replace(model, context=min(model.context, bounds.context))


def _check_installed(kind: type[Engine]) -> None:
    if not kind.installed():
        raise MissingExtra(f"serving by {kind.name}", kind.extra)


def _order() -> Sequence[type[Engine]]:
    import torch

    return [*([Vllm, Sglang] if torch.cuda.is_available() else []), Genai, TransformersServe]


def _socket(place: Path, attempt: int) -> Address:
    """A new file for each start: what the last one left is of no use."""
    return Address(socket=place / f"engine-{attempt}.sock")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
