"""Models: the teacher, the student, and what they have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from limbeck.core.recipe.endpoint import Endpoint
from limbeck.core.recipe.section import Section
from limbeck.core.recipe.training import Finetune


class TrainTokenizer(Section):
    """A small tokenizer made from the training texts, for models built from a config."""

    train: Literal["bpe"] = "bpe"
    """Byte-level BPE; every digit is a token of its own; decoding loses nothing."""
    vocab_size: Annotated[int, Field(ge=260)] = 512
    """Entries, the 256 bytes and the special tokens among them."""


class Model(Section):
    """A model: from the hub, from a folder, or new from a config."""

    model: str | None = None
    """A hub name or a folder; for a student also `from-teacher`."""
    config: dict[str, Any] | None = None
    """Or a new model with random weights: a transformers config, `model_type` and its fields."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    tokenizer: str | TrainTokenizer | None = None
    """Tokenizer or image processor, where it is not the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory. `auto`: as stored (teacher); float32 (whatever is trained)."""
    attn_implementation: str | None = None
    """`sdpa`, `eager`, `flash_attention_2`; left out: the library's choice."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Off unless you have read that code."""

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _named_or_trained(cls, value: Any) -> Any:
        """Told apart here, so that an error speaks of the one that was meant."""
        if isinstance(value, Mapping):
            return TrainTokenizer.model_validate(value)
        if not isinstance(value, str | TrainTokenizer | None):
            raise ValueError(f"a name, a folder or {{train: bpe}} is wanted, got {value!r}")
        return value

    @field_validator("model", "tokenizer")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """`~/x` is a folder below the user's own."""
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        ways = [name for name in ("model", "config", "recipe", "endpoint") if name in type(self).model_fields]
        if sum(getattr(self, name) is not None for name in ways) != 1:
            raise ValueError(f"give exactly one of {', '.join(f'`{name}`' for name in ways[:-1])} and `{ways[-1]}`")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("a config needs `model_type`, for instance qwen3, bert, vit or resnet")
        return self


def refuse_beside_endpoint(spec: Model, endpoint: Endpoint | None) -> None:
    """Refuse fields of a model whose weights are elsewhere.

    Raises:
        ValueError: there are such fields.
    """
    names = ("revision", "tokenizer", "dtype", "attn_implementation", "trust_remote_code")
    fields = type(spec).model_fields
    given = [f"`{name}`" for name in names if getattr(spec, name) != fields[name].default]
    if endpoint is not None and given:
        raise ValueError(f"{', '.join(given)}: an `endpoint` has no weights here that this could be about")


class Teacher(Model):
    """The model that is learned from."""

    recipe: str | None = None
    """Or a recipe whose student teaches: an assistant between a large teacher and a small student, or an earlier
    generation of the student itself. It is run first, as far as its training."""
    endpoint: Endpoint | None = None
    """Or a model behind an address, for `generate`. It gives text alone: no term can ask it for distributions."""
    finetune: Finetune | None = None
    """Train it on the task first. Left out: it is used as it is. A new one, from a config, needs it."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """With `model: moving-average`: how slowly the average of the student's own weights follows the student."""
    remember: bool = False
    """Ask the teacher about each training row once and keep in memory what it says: logits, and the layers that terms
    read. Only where rows are not augmented."""
    also: list[Teacher] = []
    """Further teachers, which teach together with this one."""
    combine: Literal["mean", "weighted", "confidence", "domain"] = "mean"
    """With `also`, how much each says of a sample: all the same, by `weight`, the less the more uncertain it is
    (entropy), or the one whose `domains` hold the sample's."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """With `combine: weighted`: this teacher's say."""
    domain: str | None = None
    """With `combine: domain`: the column that names each row's domain."""
    domains: list[str] = []
    """With `combine: domain`: what this teacher is asked about. Left out at one of them: all else."""

    @property
    def is_moving(self) -> bool:
        """Whether the teacher is the student's own past."""
        return self.model == "moving-average"

    @model_validator(mode="after")
    def _knows_something(self) -> Self:
        if self.config is not None and self.finetune is None:
            raise ValueError("a new teacher knows nothing; add `finetune`, or name a trained one with `model`")
        if self.is_moving and (self.finetune is not None or self.also or self.remember):
            raise ValueError("`moving-average` is the student's own past: no `finetune`, `also` or `remember`")
        if self.endpoint is not None and (self.finetune is not None or self.also or self.remember):
            raise ValueError("an `endpoint` gives text alone: no `finetune`, `also` or `remember`")
        refuse_beside_endpoint(self, self.endpoint)
        return self

    @model_validator(mode="after")
    def _works_together(self) -> Self:
        together: list[Teacher] = [self, *self.also]
        for other in self.also:
            if other.also or other.is_moving or other.endpoint is not None:
                what = "a teacher of `also` cannot be `moving-average` or an `endpoint`, or have an `also` of its own"
                raise ValueError(what)
        if self.combine == "domain":
            named = [name for each in together for name in each.domains]
            if self.domain is None or not named:
                raise ValueError("`combine: domain` needs `domain`, a column, and `domains` of the teachers")
            if repeated := {name for name in named if named.count(name) > 1}:
                raise ValueError(f"two teachers have the domain {', '.join(sorted(repeated))}")
            if sum(not each.domains for each in together) > 1:
                raise ValueError("only one teacher can be asked about all other domains")
        return self

    def refuse_idle(self) -> None:
        """Refuse fields that `combine` does not read; for the first teacher, since one of `also` knows no `combine`.

        Raises:
            ValueError: there are such fields.
        """
        together: list[Teacher] = [self, *self.also]
        if self.combine != "weighted" and any(each.weight != 1 for each in together):
            raise ValueError("`weight` of a teacher goes with `combine: weighted`")
        if self.combine != "domain" and (self.domain is not None or any(each.domains for each in together)):
            raise ValueError("`domain` and `domains` go with `combine: domain`")


class Lora(Section):
    """A student of which only small matrices beside its own learn; they are merged into it at the end."""

    r: Annotated[int, Field(gt=0)] = 16
    """Rank of the added matrices."""
    lora_alpha: Annotated[float, Field(gt=0)] = 32
    """The added product is scaled by lora_alpha / r."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the added matrices."""
    target_modules: list[str] | None = None
    """Ends of the names of layers that get them. Left out: all linear layers but the head."""


class Student(Model):
    """The model that learns. With `model: from-teacher` it is cut from its teacher, as the fields below say."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """Which of the teacher's layers to keep, counted from 0. Left out: all."""
    hidden_size: Annotated[int, Field(gt=0)] | None = None
    """Width, by projection onto the directions that carry most. Left out: the teacher's."""
    intermediate_size: Annotated[int, Field(gt=0)] | None = None
    """Width of the MLPs, the strongest units kept. Left out: the teacher's."""
    num_attention_heads: Annotated[int, Field(gt=0)] | None = None
    """Heads, the strongest kept. Left out: the teacher's."""
    embedding_size: Annotated[int, Field(gt=0)] | None = None
    """Factorise the word embeddings over this width (encoders). Left out: as the teacher has them."""
    vocabulary: Literal["trim"] | None = None
    """`trim`: keep only the tokens that the training rows use, special ones, and single characters."""
    compact: dict[str, Any] | None = None
    """Make a compact model of it, with relative positions and, if asked for, attention in segments: fields of its
    config, for instance `{embedding_size: 128, segment_length: 512, summary_tokens: 4}`."""
    lora: Lora | None = None
    """Learn small added matrices only. Left out: all weights learn."""

    @property
    def cuts(self) -> dict[str, Any]:
        """What is cut from the teacher, by field."""
        names = ("layers", "hidden_size", "intermediate_size", "num_attention_heads", "embedding_size", "vocabulary")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @model_validator(mode="after")
    def _cut_from_a_teacher(self) -> Self:
        asked = [*self.cuts, *(["compact"] if self.compact is not None else [])]
        if asked and self.model != "from-teacher":
            raise ValueError(f"{', '.join(f'`{name}`' for name in asked)}: only with `model: from-teacher`")
        if self.compact is not None and self.embedding_size is not None:
            raise ValueError("a compact student's `embedding_size` stands in `compact`")
        if self.model == "from-teacher" and not asked:
            raise ValueError("`from-teacher` needs to know what is kept, for instance `layers: [0, 5]`")
        return self
