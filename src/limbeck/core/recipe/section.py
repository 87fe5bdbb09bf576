"""What every section of a recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, model_validator

from limbeck.core.parts import Part, PartOf, refuse_unknown

AnySource = Annotated[Part, PartOf("source")]
AnyObjective = Annotated[Part, PartOf("objective")]
AnyTask = Annotated[Part, PartOf("task")]
AnyAugmentation = Annotated[Part, PartOf("augmentation")]
AnyPerturbation = Annotated[Part, PartOf("perturbation")]
AnyCurriculum = Annotated[Part, PartOf("curriculum")]
AnyMetric = Annotated[Part, PartOf("metric")]
AnyCompressor = Annotated[Part, PartOf("compressor")]
AnyExporter = Annotated[Part, PartOf("exporter")]


class Section(BaseModel):
    """A mapping in a recipe. Unknown keys are refused with the nearest known one suggested."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_unknown(data, cls.model_fields)
        return data


def dump_recipe(recipe: Section) -> dict[str, Any]:
    """A recipe or a section as JSON values, every default spelled out."""
    return recipe.model_dump(mode="json")
