"""What a model is asked to write before the training: answers to prompts, and new inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from limbeck.core.parts import Part, PartOf
from limbeck.core.recipe.endpoint import Endpoint, ExtraFields
from limbeck.core.recipe.models import Model, refuse_beside_endpoint
from limbeck.core.recipe.section import AnyPerturbation, AnySource, Section

AnyVerifier = Annotated[Part, PartOf("verifier")]
AnyFilter = Annotated[Part, PartOf("filter")]


class Sampling(Section):
    """How an answer is drawn."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 takes the likeliest token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens that hold this much of the probability."""
    max_tokens: Annotated[int, Field(gt=0)] = 1024
    """Longest answer, the thought included; one that reaches it is cut off there."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an answer; they are no part of it."""
    extra: ExtraFields = {}
    """Further fields: for an endpoint whatever it knows, for a local model `top_k` and `chat_template_kwargs`."""

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn, so that all answers to a prompt are one."""
        return self.extra.get("temperature", self.temperature) == 0 or self.extra.get("top_k") == 1


class Budget(Section):
    """What may be spent, over all runs together; a call that could exceed it is not made."""

    tokens: Annotated[int, Field(gt=0)] | None = None
    """Tokens of prompts and answers. Left out: no limit."""
    cost: Annotated[float, Field(gt=0)] | None = None
    """Money, in the endpoint's currency. Left out: no limit."""


class Keep(Section):
    """Which of the answers to one prompt are learned from."""

    most: Annotated[int, Field(gt=0)] = 1
    """No more than these for each prompt."""
    prefer: Literal["shortest", "diverse", "first"] = "first"
    """`shortest`: fewest tokens. `diverse`: the ones that say the least alike. `first`: as they were asked for."""


class Synthesize(Section):
    """New inputs, written by the model after the example of the given ones."""

    by: Literal["class", "self_instruct"]
    """`class`: new texts for each class (text classification). `self_instruct`: new prompts (language modelling)."""
    count: Annotated[int, Field(gt=0)]
    """How many new inputs are wanted in all; by class, the classes share them equally."""
    shots: Annotated[int, Field(gt=0)] = 4
    """Examples shown in one request, drawn from the training rows."""
    per_request: Annotated[int, Field(gt=0)] = 8
    """New inputs asked for in one request."""
    rounds: Annotated[int, Field(gt=0)] = 4
    """How often what is still missing after duplicates were dropped is asked for again."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    """An input with at least this Jaccard similarity to a given or an earlier new one, in word 3-grams, is dropped."""
    max_characters: Annotated[int, Field(gt=0)] = 2000
    """Longer inputs are dropped."""
    instruction: str | None = None
    """What the inputs are, put before the request, for instance `Questions that customers ask their bank.`"""


class Writer(Model):
    """Who writes, if it is not the teacher."""

    endpoint: Endpoint | None = None
    """Or a model behind an address."""

    @model_validator(mode="after")
    def _can_write(self) -> Self:
        if self.config is not None:
            raise ValueError("a new model can write nothing; name a trained one with `model`, or an `endpoint`")
        refuse_beside_endpoint(self, self.endpoint)
        return self


def _named(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class Generate(Section):
    """A data stage: prompts, what is written to them, and which of it is learned from."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] = "basic"
    """The data stage; rows bear it in their column `stage`, which mixtures go by."""
    prompts: AnySource | None = None
    """Rows with the prompts, and with references in the answer's column where there are some. Left out: the training
    rows."""
    recorded: bool = False
    """Ask nobody: judge the answers that the rows hold already, and learn from the right ones."""
    reference: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Column that says what is right, or several, as a mapping; `prompt` is the question itself. Left out: the answer's
    column; nothing for recorded answers."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Take this many of them, drawn by the data's seed. Left out: all."""
    system: str | None = None
    """A system prompt. The student does not see it."""
    template: str = "{prompt}"
    """What is asked, with `{prompt}` in the prompt's place. The student sees the prompt alone."""
    samples: Annotated[int, Field(gt=0)] = 1
    """Answers to each prompt."""
    sampling: Sampling = Sampling()
    """How they are drawn."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides the draws, with the answer's number; endpoints may pay no heed to it."""
    budget: Budget = Budget()
    """What may be spent on this data stage."""
    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest share of its requests that may stay unanswered for a reason that passes, such as an endpoint that is
    down. Above it the step ends in an error, and the next run asks those requests alone; below it they are counted."""
    perturb: list[AnyPerturbation] = []
    """New prompts out of the given ones: each is changed in each of these ways."""
    synthesize: Synthesize | None = None
    """New prompts, or new texts with their classes, after the example of the given ones."""
    originals: bool = True
    """Ask the given prompts too. `false`: only the perturbed and the synthesized ones."""
    verify: AnyVerifier | None = None
    """Keep only answers that this finds right. Left out: all."""
    filters: list[AnyFilter] = []
    """Drop what is not worth learning from, in this order."""
    vote: bool | Annotated[float, Field(gt=0, le=1)] = False
    """Where a row does not say what is right, the final answer that most of its answers come to is; needs `verify`. A
    number is the least share that it must have."""
    keep: Keep | None = None
    """Which of the answers that are left to take. Left out: all."""
    add: bool | None = None
    """Learn from these rows beside the given training rows; `false`: in their place. Left out: beside them for
    classification, in their place for language modelling."""
    writer: Writer | None = None
    """Who writes: a model, or an `endpoint`. Left out: the teacher."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs a local model."""
    per_device_generation_batch_size: Annotated[int, Field(gt=0)] = 16
    """Answers that a local model writes at a time; halved by itself where memory does not suffice."""

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("the template has no `{prompt}`, so that every question would be the same")
        return value

    @field_validator("writer", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return _named(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.originals and not self.perturb and self.synthesize is None:
            raise ValueError("`originals: false` leaves no prompts; give `perturb` or `synthesize`")
        if self.keep is not None and self.keep.most > self.samples and not self.recorded:
            raise ValueError(f"`keep.most` is {self.keep.most}, but there are only {self.samples} answers to a prompt")
        if self.samples > 1 and self.sampling.is_greedy:
            what = f"the sampling is greedy, so that all {self.samples} `samples` of a prompt would be one answer"
            raise ValueError(f"{what}; raise `sampling.temperature`, or take 1")
        if self.recorded:
            self._refuse_asking()
        if self.reference is not None and self.perturb:
            raise ValueError("`reference` names a column of the rows as they are; leave it out with `perturb`")
        if self.vote and self.samples < 3 and not self.recorded:
            raise ValueError("a vote needs at least 3 `samples`")
        if self.vote and self.verify is None:
            raise ValueError("a vote needs `verify`, which reads the final answers, such as math_answer")
        if self.synthesize is not None and self.synthesize.by == "class":
            self._refuse_answering()
        return self

    def _refuse_asking(self) -> None:
        """Recorded answers are there: nobody is asked."""
        asking = ("system", "perturb", "synthesize", "writer")
        names = [f"`{name}`" for name in asking if getattr(self, name)] + ["`samples`"] * (self.samples > 1)
        if names:
            raise ValueError(f"{', '.join(names)}: recorded answers are judged, and nobody is asked")

    def _refuse_answering(self) -> None:
        """Texts of a class are inputs, which nobody answers."""
        idle = {"perturb": self.perturb, "verify": self.verify, "vote": self.vote, "keep": self.keep}
        names = [f"`{name}`" for name, value in idle.items() if value] + ["`samples`"] * (self.samples > 1)
        if names:
            raise ValueError(f"{', '.join(names)}: texts of a class are not answered, only written")


def _as_list(value: Any) -> Any:
    """One data stage may stand without a list around it."""
    return [value] if isinstance(value, Mapping | Generate) else value


DataStages = Annotated[list[Generate], BeforeValidator(_as_list, json_schema_input_type=Generate | list[Generate])]
