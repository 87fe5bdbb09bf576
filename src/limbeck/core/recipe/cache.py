"""The section `cache`: what the teacher says is recorded once, and training reads the recording."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from limbeck.core.recipe.section import Section


class CacheSection(Section):
    """How the teacher's signals are recorded; no teacher is loaded for the training then."""

    type: Literal["auto", "top_k", "sampled", "full"] = "auto"
    """`top_k`: the likeliest classes and the mass of the rest; `sampled`: classes drawn from the teacher, unbiased
    (terms linear in it at temperature 1, such as kl); `full`: all logits. `auto`: full for a
    classifier without a budget and where the budget pays it, drawn below 40 bytes where the terms allow it, else
    top_k."""
    bytes_per_token: Annotated[float, Field(gt=0)] | None = None
    """What one label's distribution may take, its share of the index included. Left out: 100, and for a classifier
    whatever its logits take."""
    k: Annotated[int, Field(gt=0)] | None = None
    """With `top_k`: exactly so many classes, in floating point. Left out: as many in each row as its budget pays."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of logits (`full`) and of log-probabilities (with `k`)."""
    features: Literal["float16", "int8"] = "float16"
    """How layers that terms read are kept; int8 has a scale for each row."""
    per_device_batch_size: Annotated[int, Field(gt=0)] = 16
    """Samples in one forward pass of the teacher."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.k is not None and self.type not in ("auto", "top_k"):
            raise ValueError("`k` goes with `type: top_k`")
        if self.k is not None and self.bytes_per_token is not None:
            raise ValueError("give `k` or `bytes_per_token`, not both")
        if self.type == "full" and self.bytes_per_token is not None:
            raise ValueError("`full` takes what all logits take; leave `bytes_per_token` out, or take `auto`")
        return self
