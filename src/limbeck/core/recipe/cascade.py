"""The cascade: which models stand behind the student, and what is promised of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from limbeck.core.recipe.endpoint import Endpoint
from limbeck.core.recipe.generate import Budget
from limbeck.core.recipe.section import Section

PROMISES = ("accuracy", "teacher_share", "excess_errors", "cost", "latency")
Share = Annotated[float, Field(gt=0, lt=1)]
Above = Annotated[float, Field(gt=0)]
_PROMPT = (
    "Which of these classes does the text belong to? Answer with the name of one class and nothing else.\n\n"
    "Classes:\n{labels}\n\nText:\n{text}"
)


class Promise(Section):
    """What the cascade keeps; one of these."""

    accuracy: Share | None = None
    """At least this share of right answers."""
    teacher_share: Share | None = None
    """At most this share of rows comes to the last model."""
    excess_errors: Share | None = None
    """At most this share of rows has a wrong answer where the last model would have been right."""
    cost: Above | None = None
    """A row costs at most this on average; wants `cost` of every model behind the student, or the price of an
    endpoint."""
    latency: Above | None = None
    """A row takes at most so many milliseconds on average; wants `latency` of every model, or figures of `evaluate`."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in PROMISES) != 1:
            raise ValueError(f"promise exactly one of {', '.join(PROMISES)}")
        return self

    @property
    def given(self) -> tuple[Literal["accuracy", "teacher_share", "excess_errors", "cost", "latency"], float]:
        """The one that is promised, and its figure."""
        for name in PROMISES:
            if (target := getattr(self, name)) is not None:
                return name, float(target)  # type: ignore[return-value]
        raise AssertionError("there is one")


class Rung(Section):
    """A model behind the student: a classifier in a folder or on the hub, or one behind an address."""

    model: str | None = None
    """A folder or a hub name, or `teacher`: the recipe's own."""
    endpoint: Endpoint | None = None
    """Or a model behind an address, which is asked for the class in words."""
    revision: str | None = None
    """Branch, tag or commit of a hub name."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of its weights in memory. `auto`: as stored."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model, here and in the server. Off unless you have read that code."""
    name: str | None = None
    """What it is called. Left out: `teacher`, the folder, or the model's name."""
    prompt: str = _PROMPT
    """How an endpoint is asked, with `{labels}` and `{text}` in their places."""
    max_tokens: Annotated[int, Field(gt=0)] = 64
    """Longest answer of an endpoint."""
    cost: Annotated[float, Field(ge=0)] | None = None
    """What asking it for one row costs. Left out, of an endpoint: what it cost on the rows that the cascade is fitted
    on."""
    latency: Annotated[float, Field(ge=0)] | None = None
    """Milliseconds that it takes for one row. Left out: as `evaluate` has measured it."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if "{text}" not in value or "{labels}" not in value:
            raise ValueError("a prompt has places for {text} and {labels}")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give either `model` or `endpoint`")
        fields = type(self).model_fields
        names = ("revision", "dtype", "trust_remote_code")
        own = [f"`{name}`" for name in names if getattr(self, name) != fields[name].default]
        if own and (self.endpoint is not None or self.model == "teacher"):
            whose = "the recipe's `teacher` says so itself" if self.endpoint is None else "an `endpoint` has no weights"
            raise ValueError(f"{', '.join(own)}: {whose}")
        return self

    @property
    def title(self) -> str:
        """Its name."""
        return self.name or self.model or (self.endpoint.model if self.endpoint is not None else "")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | Rung) else value


class Cascade(Section):
    """The student answers where it is sure; where it is not, the next model is asked."""

    to: Annotated[list[Rung], Field(min_length=1, validate_default=True), BeforeValidator(_listed)] = ["teacher"]  # type: ignore[list-item]
    """Who is asked next, from the cheapest to the best."""
    promise: Promise = Promise(excess_errors=0.01)
    """What is kept; the threshold is chosen for it."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """The chance with which it is kept."""
    latency: Annotated[float, Field(ge=0)] | None = None
    """Milliseconds that the student takes for one row. Left out: as `evaluate` has measured it."""
    timeout: Above = 5.0
    """Seconds that a server waits for the models behind the student; then the student's answer is given."""
    max_waiting: Annotated[int, Field(gt=0)] = 64
    """Rows of a server that wait for an endpoint at most; beyond, the answer so far is given."""
    budget: Budget = Budget()
    """What endpoints may cost: the fit, and apart from it a server over all its life."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = ["student", *(each.title for each in self.to)]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models of the cascade are called {', '.join(repeated)}; give one of them a `name`")
        return self
