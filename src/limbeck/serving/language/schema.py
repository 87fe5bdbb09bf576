"""What callers may ask, by OpenAI's names. A field that would be without effect is refused rather than passed over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from limbeck.serving.errors import BadRequest

Word = Annotated[str, Field(min_length=1, max_length=256)]
_TEXT = Field(max_length=4 * 2**20)

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "top_k": (-1, 0),
    "min_p": (0.0,),
    "repetition_penalty": (1.0,),
}
"""Fields that not every engine has, and their values that change nothing."""
RICH = frozenset(NEUTRAL)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextPart(_Strict):
    """A part of a turn."""

    type: Literal["text"]
    text: Annotated[str, _TEXT]


class Message(_Strict):
    """A turn. What clients send back of an earlier answer is taken, and not read: a thought, or nothing at all."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, _TEXT] | list[TextPart]
    reasoning_content: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None

    def plain(self) -> dict[str, str]:
        """Role and text."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(_Strict):
    """How a stream is told."""

    include_usage: bool = False


class Asked(_Strict, ABC):
    """What both routes have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Word | Annotated[list[Word], Field(max_length=4)] | None = None
    n: int | None = Field(None, ge=1, le=16)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, max_length=300)
    response_format: dict[str, Any] | None = None
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None

    route: ClassVar[str]
    shortest: ClassVar[int | None] = None
    """Tokens of an answer where a request does not say so; None: what the context leaves."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """What the answer is to."""

    @property
    def stops(self) -> list[str]:
        """Its stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def longest(self) -> int | None:
        """Tokens that its answer may have; None: what the context leaves."""
        return self.max_tokens or self.shortest

    @property
    def streams(self) -> bool:
        """Whether the answer comes piece by piece."""
        return bool(self.stream)

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def rich(self, known: frozenset[str]) -> dict[str, Any]:
        """Those of the fields that not every engine has.

        Args:
            known: those that this one has.

        Raises:
            BadRequest: there is one that it has not.
        """
        given = {name: value for name in sorted(RICH) if (value := getattr(self, name)) is not None}
        effective = {
            name: value  # for the text route, `logprobs: 0` asks for something, and 0 == False
            for name, value in given.items()
            if not any(value == nothing and type(value) is type(nothing) for nothing in NEUTRAL[name])
        }
        if unknown := sorted(set(effective) - known):
            raise BadRequest(f"this engine does not know `{unknown[0]}`", fix="leave it out")
        return effective


class ChatAsked(Asked):
    """A conversation to go on with."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)

    route: ClassVar[str] = "/v1/chat/completions"

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def content(self) -> dict[str, Any]:
        return {"messages": [message.plain() for message in self.messages]}


class TextAsked(Asked):
    """A text to go on with."""

    prompt: Annotated[str, _TEXT]
    logprobs: int | None = Field(None, ge=0, le=5)
    top_logprobs: None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None

    route: ClassVar[str] = "/v1/completions"
    shortest: ClassVar[int | None] = 16  # OpenAI's

    def content(self) -> dict[str, Any]:
        return {"prompt": self.prompt}
