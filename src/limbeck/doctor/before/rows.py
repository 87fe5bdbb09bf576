"""Are the rows there, with their columns, and are they what they should be?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan


@part
class Rows(BeforeCheck):
    """Files, columns and labels are there; no measured row is trained on; no class is without rows."""

    order: ClassVar[int] = 0

    def look(self, plan: Plan) -> Iterator[Finding]:
        splits = plan.splits
        told = ", ".join(f"{name} {count:,}" for name, count in _sizes(plan).items())
        yield self.ok("rows and columns are there", told)
        for split in ("validation", "test"):
            shared = splits.counts.get(f"train_rows_also_in_{split}", 0)
            if shared:
                evidence = f"{shared:,} of {len(splits.train):,} training rows have the inputs of a {split} row"
                change = f"remove them, or name other rows: data.{split}=..."
                yield self.found("warning", f"training rows are also in {split}", evidence, change)
        if lacking := splits.counts.get("classes_without_training_rows"):
            evidence = f"{len(lacking)}: {', '.join(map(str, lacking[:5]))}"
            yield self.found("warning", "classes without a training row", evidence, "a larger data.max_samples")
        for stage in plan.recipe.stages:
            steps = plan.steps(stage)
            if steps * stage.warmup_ratio < 1 and steps > 1 and stage.warmup_ratio:
                evidence = f"{steps} steps of {stage.global_batch_size} samples"
                change = f"stages.{stage.name}.epochs more, or a smaller global_batch_size"
                yield self.found("note", f"stage {stage.name} has too few steps for a warm-up", evidence, change)


def _sizes(plan: Plan) -> dict[str, int]:
    return {name: len(getattr(plan.splits, name)) for name in ("train", "validation", "test")}
