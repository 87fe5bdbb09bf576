"""How a student is judged: which rows, which axes, and what it may cost at most."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from limbeck.core.parts import Part
from limbeck.core.recipe.section import AnyMetric, AnyPerturbation, Section

Positive = Annotated[int, Field(gt=0)]
Severity = Annotated[int, Field(ge=1, le=5)]


class Robustness(Section):
    """How quality falls as the input gets worse."""

    perturbations: list[AnyPerturbation] | None = None
    """What is done to the rows. Left out: every perturbation that fits them and asks no model."""
    severities: list[Severity] = [1, 3, 5]
    """How strongly; perturbations without degrees are done once."""
    max_samples: Positive = 200
    """Rows that are perturbed, drawn by the data's seed."""

    @field_validator("perturbations")
    @classmethod
    def _ask_no_model(cls, given: list[Part] | None) -> list[Part] | None:
        for each in given or ():
            if getattr(each, "asks_teacher", False):
                raise ValueError(
                    f"`{each.type()}` is written by a model; write such rows by `generate` and test on them"
                )
        return given


class Interpretability(Section):
    """What is looked at inside of the models."""

    max_samples: Positive = 128
    """Rows that are looked at, drawn by the data's seed."""
    examples: Positive = 10
    """Rows of which the way through the layers and the difference at each token are kept."""


class Speed(Section):
    """How time and memory are taken."""

    batch_sizes: list[Positive] = [1, 8, 32]
    """Rows at a time, for throughput."""
    seconds: Annotated[float, Field(gt=0)] = 1.0
    """The most time for each model and batch size."""
    price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of this machine costs. Left out: no price of requests."""
    currency: str = "USD"
    """What the price is counted in."""


class Evaluate(Section):
    """How the final figures are taken. Predictions are written first, and every figure is computed from them."""

    split: Literal["test", "validation"] = "test"
    """Rows that decide the report's figures."""
    max_samples: Positive | None = None
    """Use this many of them, drawn by the data's seed."""
    max_new_tokens: Positive = 256
    """Longest answer of a language model."""
    samples: Positive | None = None
    """Answers drawn from each language model to every row, beside its greedy one, for pass@k and the majority vote."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the answers that are drawn."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Those are drawn from the likeliest tokens that hold this much of the probability."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""
    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap draws behind an interval that is taken by them: all but those of shares of rows."""
    latency_runs: Annotated[int, Field(ge=2)] = 50
    """Timed single requests per model, taken in turns."""
    metrics: list[AnyMetric] | None = None
    """What is computed from the predictions. Left out: every metric that fits them."""
    slices: list[str] = []
    """Columns of the data by whose values the rows are also scored apart, beside those that limbeck makes itself."""
    robustness: Robustness | None = Robustness()
    """Accuracy against severity; null: not measured."""
    interpretability: Interpretability | None = Interpretability()
    """What happens inside of the models; null: not looked at."""
    speed: Speed = Speed()
    """How time and memory are taken."""
    harness: list[str] = []
    """Tasks of lm-evaluation-harness, by name or as a path to a task's YAML file, for language models."""


class Limits(Section):
    """What the student may cost, the compressed one where there is one. A student beyond one of these is refused at the
    end; its files and report stay."""

    bytes: Positive | None = None
    """Its weights, on disk."""
    latency_p50: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds of a single request, the median."""
    latency_p95: Annotated[float, Field(gt=0)] | None = None
    """Milliseconds of a single request, 95 of 100 are below."""
    memory: Positive | None = None
    """Bytes of memory at its peak."""
    price: Annotated[float, Field(gt=0)] | None = None
    """Of 1,000 requests; wants `evaluate.speed.price_per_hour`."""
