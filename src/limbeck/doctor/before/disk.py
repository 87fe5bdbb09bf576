"""Is there room for what a run writes?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.figures import in_bytes
from limbeck.doctor.needs import stored_bytes
from limbeck.doctor.plan import Plan


@part
class Disk(BeforeCheck):
    """Weights and checkpoints against the free space. A recording (`cache`) and generated rows come on top."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        need = stored_bytes(plan)
        if need is None:
            return
        folder = plan.recipe.output.absolute()
        folder = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(folder).free
        told = f"about {in_bytes(need)} of weights and checkpoints, {in_bytes(free)} free at {folder}"
        if need > free:
            yield self.found("error", "the disk is too small", told, "output=A FOLDER ON ANOTHER DISK")
        elif need > 0.8 * free:
            yield self.found("warning", "the disk is nearly too small", told, "output=A FOLDER ON ANOTHER DISK")
        else:
            yield self.ok("there is room on the disk", told)
