"""Is there room for what a run writes?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.figures import in_bytes
from limbeck.doctor.needs import recorded_bytes, stored_bytes, written_bytes
from limbeck.doctor.plan import Plan


@part
class Disk(BeforeCheck):
    """Weights, checkpoints, the teacher's recording and written rows against the free space.

    Layers in a recording (`cache` beside terms that read some) come on top.
    """

    def look(self, plan: Plan) -> Iterator[Finding]:
        parts = {"weights and checkpoints": stored_bytes(plan), "the recording (cache)": recorded_bytes(plan)}
        parts["written rows (generate)"] = written_bytes(plan)
        if parts["weights and checkpoints"] is None:
            return
        need = sum(filter(None, parts.values()))
        folder = plan.recipe.output.absolute()
        folder = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(folder).free
        told = ", ".join(f"{name} {in_bytes(size)}" for name, size in parts.items() if size)
        told = f"about {in_bytes(need)} ({told}); {in_bytes(free)} free at {folder}"
        if need > free:
            yield self.found("error", "the disk is too small", told, "output=A FOLDER ON ANOTHER DISK")
        elif need > 0.8 * free:
            yield self.found("warning", "the disk is nearly too small", told, "output=A FOLDER ON ANOTHER DISK")
        else:
            yield self.ok("there is room on the disk", told)
