"""Is writing slower than it need be?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.run import Run, StageLog

_WRITERS = ("CausalLM", "ConditionalGeneration")
"""Ends of transformers' class names; a model that only classifies needs no cache."""


@part
class SlowGeneration(AfterCheck):
    """A student that writes without its key-value cache, or a stage that mostly waits for its own texts."""

    most: float = Field(default=0.8, gt=0, lt=1)
    """Share of a stage's time that may go into writing."""

    def look(self, run: Run) -> Iterator[Finding]:
        path = run.path / "train" / "student" / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        writes = any(name.endswith(_WRITERS) for name in config.get("architectures") or ())
        if writes and config.get("use_cache") is False:
            evidence = "use_cache is false in its config, so that every token costs a pass over all before it"
            change = "student.config.use_cache=true, or set it in the config.json of the model it is made from"
            yield self.found("warning", "the student writes without a key-value cache", evidence, change)
        for stage in run.stages:
            yield from self._waits(stage)

    def _waits(self, stage: StageLog) -> Iterator[Finding]:
        own = [r for r in stage.steps if r.get("on_policy", {}).get("tokens_per_second")]
        total = sum(row["seconds"] for row in stage.steps)
        refresh = (stage.spec.get("on_policy") or {}).get("refresh", 1)
        wrote = sum(refresh * row["on_policy"]["tokens"] / row["on_policy"]["tokens_per_second"] for row in own)
        if own and wrote > self.most * total:
            evidence = f"about {wrote:.0f} of {total:.0f} s went into writing"
            change = (
                f"stages.{stage.name}.on_policy.engine=vllm, a larger per_device_generation_batch_size or `refresh`, "
                "a smaller max_new_tokens"
            )
            yield self.found(
                "note", f"stage {stage.name}: the training waits for the student's texts", evidence, change
            )
