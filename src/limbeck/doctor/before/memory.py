"""Is there memory for the training?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.figures import in_bytes
from limbeck.doctor.needs import Device, device, training_bytes
from limbeck.doctor.plan import Plan


@part
class Memory(BeforeCheck):
    """Weights, gradients, optimizer and activations of one process against a device's memory.

    Where there are several devices, what each needs with a process for every one is told too.

    Activations are what autograd keeps of a pass over a micro-batch of the longest rows, added up on a model without
    weights; with bf16 or gradient checkpointing it is a share of that. Libraries and fragments come on top.
    """

    def look(self, plan: Plan) -> Iterator[Finding]:
        here = device()
        for reader, stage in plan.trained:
            need = training_bytes(plan, reader, stage)
            if need is not None:
                parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in need.items() if size is not None)
                unknown = [name for name, size in need.items() if size is None]
                evidence = parts + "".join(f"; {name} could not be added up" for name in unknown)
                yield self._judged(f"stage {stage.name}", _total(need), evidence, here)
                if here.count > 1:
                    spread = training_bytes(plan, reader, stage, here.count)
                    told = f"about {in_bytes(_total(spread))} on each"
                    yield self.ok(f"stage {stage.name} on {here.count} devices, a process for each", told)

    def _judged(self, who: str, total: float, evidence: str, here: Device) -> Finding:
        told = f"about {in_bytes(total)} ({evidence}); {in_bytes(here.free)} free on {here.name}"
        change = (
            "a smaller per_device_train_batch_size, training.gradient_checkpointing=true, training.precision=bf16, "
            "student.lora={r: 16}, or `cache`, which trains without the teacher in memory"
        )
        if total > here.free:
            return self.found("error", f"{who} does not fit into memory", told, change)
        if total > 0.8 * here.free:
            return self.found("warning", f"{who} nearly fills the memory", told, change)
        return self.ok(f"{who} fits into memory", told)


def _total(need: Mapping[str, int | None] | None) -> int:
    return sum(filter(None, (need or {}).values()))
