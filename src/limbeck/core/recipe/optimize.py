"""How a student is made cheaper to ask."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from limbeck.core.parts import Part, PartOf
from limbeck.core.recipe.section import Section

AnyOptimization = Annotated[Part, PartOf("optimization")]


class Optimize(Section):
    """Ways to answer cheaper, tried one on top of the other, each compared with the student and timed beside it.

    Language models are run by torch, all others by ONNX Runtime on one thread. What is slower, or says something else,
    is told and not kept.
    """

    passes: list[AnyOptimization] | None = None
    """In order. Left out: for language models fuse_qkv, fuse_mlp, static_cache, quantized_cache, compile and
    cuda_graphs; for others fuse_norms, fuse_qkv, fuse_mlp and fuse_attention."""
    batch_size: Annotated[int, Field(gt=1)] = 16
    """Rows of a large request; one row is timed too."""
    runs: Annotated[int, Field(gt=1)] | None = None
    """Timed requests of each size, in turns with those before the pass. Left out: 20; 5 of language models, whose
    requests are of many tokens."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Validation rows that are compared. Left out: 64; 16 of language models."""
    max_new_tokens: Annotated[int, Field(gt=2)] = 32
    """Tokens of each answer of a language model."""


def _section(value: Any) -> Any:
    """A list of passes, or `true` for the usual ones, may stand for the section."""
    if value is True:
        return {}
    return {"passes": value} if isinstance(value, list) else value


AnyOptimize = Annotated[Optimize | None, BeforeValidator(_section)]
"""The section, a list of passes, or `true`."""
