"""Who writes: from a recipe's `teacher` or `writer` to a generator that answers requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from limbeck.core.artifacts import Artifact
from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Generate, Model, Teacher, Writer, dump_recipe
from limbeck.core.types import Sample
from limbeck.generation._reading import Reader
from limbeck.generation.budget import Price
from limbeck.generation.endpoint import behind
from limbeck.generation.local import LocalGenerator
from limbeck.generation.types import Generator, Request, Sampling
from limbeck.generation.vllm import VllmGenerator
from limbeck.models.load import folder_digest, load_model, origin
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._teaching import load_teachers
from limbeck.tasks._text import load_tokenizer
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from limbeck.core.recipe import Endpoint as EndpointSection

_PROMPT = "{prompt}"


def writer_of(recipe: Any, stage: Generate) -> Teacher | Writer:
    """Who writes for a data stage."""
    found = stage.writer or recipe.teacher
    assert found is not None, "the recipe sees to it"
    return found


def judge_of(stage: Generate) -> Writer | None:
    """The model that a data stage's verifier names; None where it names none."""
    named = getattr(stage.verify, "model", None)
    return None if named is None else Writer.model_validate(named)


def currencies(recipe: Any, stage: Generate) -> list[str]:
    """What the money that a data stage costs is counted in; more than one cannot be added up."""
    asked = [*([] if stage.recorded else [writer_of(recipe, stage)]), judge_of(stage)]
    return sorted({each.endpoint.currency for each in asked if each is not None and each.endpoint is not None})


def is_prepared(spec: Teacher | Writer) -> bool:
    """Whether the writer is the teacher that `prepare` left."""
    return isinstance(spec, Teacher) and spec.endpoint is None


class WriterAtWork:
    """A writer: its name is known at once, its weights are loaded when it is asked.

    Args:
        job: the run.
        prepared: the artifact `prepare`, where the writer is its teacher.
        spec: the recipe's section.
        stage: how a local model is run.
    """

    def __init__(self, job: RunJob, prepared: Artifact | None, spec: Teacher | Writer, stage: Generate):
        self.job, self.prepared, self.spec, self.stage = job, prepared, spec, stage

    @property
    def endpoint(self) -> EndpointSection | None:
        """The endpoint's section; None for a local model."""
        return self.spec.endpoint

    @property
    def identity(self) -> dict[str, Any]:
        """What the answers hang on, as far as it is not the artifact `prepare`."""
        if self.endpoint is not None:
            return {"address": self.address, "model": self.name, "extra": dict(self.endpoint.extra)}
        return {"model": self.name}

    @property
    def address(self) -> str:
        """Where it is asked, by the name that the ledger has for it; empty for a local model."""
        return "" if self.endpoint is None else self.endpoint.known_as or self.endpoint.base_url

    @cached_property
    def name(self) -> str:
        """The name in each request's key: another model, or the same one trained further, has another."""
        if self.endpoint is not None:
            return self.endpoint.model
        stored = None if self.prepared is None else self.prepared.path / "teacher"
        if is_prepared(self.spec) and stored is not None and stored.is_dir():
            return f"teacher@{folder_digest(stored)[:12]}"
        # Where a folder lies is nobody else's business, and does not change its weights.
        model = Path(str(self.spec.model))
        name = model.resolve().name if model.is_dir() else str(self.spec.model)
        return f"{name}@{origin(self.spec).fingerprint[:12]}"

    @property
    def price(self) -> Price:
        """Money per million tokens; a local model costs none."""
        return Price() if self.endpoint is None else Price(self.endpoint.price.input, self.endpoint.price.output)

    def sampling(self, **changes: Any) -> Sampling:
        """How the stage's answers are drawn.

        Args:
            changes: fields that are otherwise.
        """
        asked = self.stage.sampling
        further = {} if self.endpoint is None else self.endpoint.extra
        fields = {
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "max_tokens": asked.max_tokens,
            "stop": tuple(asked.stop),
            "extra": {**further, **asked.extra},
        }
        return Sampling(**{**fields, **changes})

    def request(
        self, id: str, sample: int, messages: Sequence[Mapping[str, str]], sampling: Sampling, *, written: bool = False
    ) -> Request:
        """What it is asked.

        Args:
            id: the prompt's id.
            sample: which of the prompt's answers this is.
            messages: the conversation.
            sampling: how the answer is drawn.
            written: a model wrote part of the conversation.
        """
        return Request(
            id, sample, tuple(messages), self.name, sampling, self.stage.seed, address=self.address, written=written
        )

    @cached_property
    def generator(self) -> Generator:
        """What answers; a local model is loaded now.

        Raises:
            RecipeError: the teacher is a classifier.
            ModelError: the model cannot be loaded.
            MissingExtra: `engine: vllm` without vLLM.
        """
        if self.endpoint is not None:
            return behind(self.endpoint)
        folder, model, reader = self._teacher() if is_prepared(self.spec) else self._loaded()
        if self.stage.engine == "vllm":
            return VllmGenerator(folder, reader)
        assert model is not None
        return LocalGenerator(model, reader, self.stage.per_device_generation_batch_size)

    def _teacher(self) -> tuple[str, Any, Reader]:
        assert self.prepared is not None
        model, codec = load_teachers(self.job, self.prepared)[0]
        if not isinstance(codec, CausalCodec):
            raise RecipeError("the teacher is no language model, so that it can write nothing", fix="generate.writer")

        def encode(messages: Sequence[Mapping[str, str]]) -> list[int]:
            return codec.prompt_ids(Sample("prompt", {"messages": [dict(m) for m in messages]}, ""))

        reader = Reader(codec.processor, self.name, codec.task.separator, _ends(model), encode)
        return str(model.name_or_path), model, reader

    def _loaded(self) -> tuple[str, Any, Reader]:
        spec = Model.model_validate({k: v for k, v in dump_recipe(self.spec).items() if k in Model.model_fields})
        name = spec.tokenizer if isinstance(spec.tokenizer, str) else str(spec.model)
        tokenizer = load_tokenizer(name, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
        if self.stage.engine == "vllm":
            return str(spec.model), None, Reader(tokenizer, self.name)
        model = load_model(spec, "AutoModelForCausalLM", settings={})
        torch.nn.Module.to(model, device())
        return str(spec.model), model.eval(), Reader(tokenizer, self.name, ends=_ends(model))


def _ends(model: Any) -> frozenset[int]:
    own = model.generation_config.eos_token_id
    return frozenset([own] if isinstance(own, int) else own or [])


def asked(stage: Generate, turns: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], ...]:
    """The conversation as the writer gets it: with the system prompt, and the last question in the template.

    Args:
        stage: the data stage.
        turns: the conversation as the student sees it.
    """
    found = [{"role": m["role"], "content": m["content"]} for m in turns]
    last = max((i for i, turn in enumerate(found) if turn["role"] == "user"), default=None)
    if last is not None:
        found[last]["content"] = stage.template.replace(_PROMPT, found[last]["content"])
    if stage.system is not None:
        found = [{"role": "system", "content": stage.system}, *(t for t in found if t["role"] != "system")]
    return tuple(found)
