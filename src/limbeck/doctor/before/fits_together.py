"""What a run checks by itself before its first step."""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan


@part
class FitsTogether(BeforeCheck):
    """Batch sizes, precision, gates, generation, checkpointing, the cache: whatever a run refuses by itself."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        plan.check()
        yield self.ok("the recipe's parts fit together")
