"""Are the models there?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan
from limbeck.models.load import load_config


@part
class Models(BeforeCheck):
    """Every model that the recipe names has a config that can be read, and weights where it is a folder."""

    order: ClassVar[int] = 0

    def look(self, plan: Plan) -> Iterator[Finding]:
        for name, spec in plan.models:
            config = load_config(spec)
            folder = Path(str(spec.model))
            if folder.is_dir() and not any(folder.glob("*.safetensors")):
                evidence = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
                change = "a folder with *.safetensors: model.save_pretrained(FOLDER)"
                yield self.found("error", f"the {name}'s folder {folder} holds no weights", evidence, change)
            else:
                yield self.ok(f"the {name} is there", f"{spec.model} ({config.model_type})")
