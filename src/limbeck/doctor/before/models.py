"""Are the models there, and is the student the smaller one?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.needs import count
from limbeck.doctor.plan import Plan
from limbeck.models.load import load_config


@part
class Models(BeforeCheck):
    """Every model of the recipe has a config and a tokenizer that can be read, and a folder has weights.

    A student has fewer parameters than its teacher.
    """

    order: ClassVar[int] = 1

    def look(self, plan: Plan) -> Iterator[Finding]:
        for name, spec in plan.models:
            try:
                config = load_config(spec)
            except ModelError as error:  # the other models are looked at all the same
                yield self.refused(error)
                continue
            folder = Path(str(spec.model))
            if folder.is_dir() and not any(folder.glob("*.safetensors")):
                evidence = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
                change = "a folder with *.safetensors: model.save_pretrained(FOLDER)"
                yield self.found("error", f"the {name}'s folder {folder} holds no weights", evidence, change)
            else:
                yield self.ok(f"the {name} is there", f"{spec.model} ({config.model_type})")
        yield from self._sizes(plan)

    def _sizes(self, plan: Plan) -> Iterator[Finding]:
        readers = (plan.student, *plan.teachers)
        known = [(reader, count(reader)) for reader in readers if reader.model is not None]
        told = ", ".join(f"{r.name} {'' if r.is_exact else 'at most '}{n:,}" for r, n in known)
        larger = [r.name for r, n in known[1:] if plan.student.model is not None and known[0][1] > n]
        if larger and plan.student.is_exact:
            change = "`teacher` and `student` in each other's place, or a smaller student"
            yield self.found("warning", f"the student is larger than the {larger[0]}", told, change)
        elif known:
            yield self.ok("parameters", told)
