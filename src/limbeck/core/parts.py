"""Parts: everything that a recipe names by `type:`.

A part is a frozen dataclass whose fields are its configuration. Its class name in snake case is its
`type:`, and where a kind has a folder, its file's name too, so that a part is found without a table
and imported only when it is named:

    type: reverse_kl  ->  limbeck/objectives/distribution/reverse_kl.py  ->  class ReverseKL

Other packages add parts with an entry point in the group `limbeck.<kind>`, named as the type. They cannot take
the place of a built-in part.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError, core_schema

from limbeck.core.errors import RecipeError, nearest

KINDS: dict[str, tuple[str, ...]] = {
    "schedule": ("limbeck.core.schedules",),
    "source": ("limbeck.data.sources",),
    "task": ("limbeck.tasks",),
    "objective": ("limbeck.objectives.distribution", "limbeck.objectives.features", "limbeck.objectives.relational"),
    "temperature": ("limbeck.objectives.temperature",),
    "augmentation": ("limbeck.data.augmentation",),
    "perturbation": ("limbeck.data.perturbation",),
    "verifier": ("limbeck.verification.verifiers",),
    "filter": ("limbeck.verification.filters",),
    "curriculum": ("limbeck.data.curriculum",),
    "metric": ("limbeck.evaluation.metrics",),
    "compressor": ("limbeck.compression",),
    "optimization": ("limbeck.optimization",),
    "exporter": ("limbeck.exporters",),
    "deployment": ("limbeck.serving.deploy",),
    "check": ("limbeck.doctor.before", "limbeck.doctor.after"),
}
"""Where the parts of each kind are: packages with one part a file, or single modules."""

C = TypeVar("C", bound=type)


class Part:
    """Base of every part; see the module's text."""

    @classmethod
    def type(cls) -> str:
        """The name that recipes use."""
        return snake_case(cls.__name__)

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        """The fields that a bare value stands for (`weight: 0.5`), or None if it stands for nothing."""
        return None


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def part(cls: C) -> C:
    """Make a class a part: a frozen, keyword-only dataclass, validated when it is made."""
    make = partial(
        pydantic_dataclass, frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
    )
    return make(cls)  # type: ignore[return-value]


def snake_case(name: str) -> str:
    """`CrossEntropy` -> `cross_entropy`, `ReverseKL` -> `reverse_kl`, `CausalLM` -> `causal_lm`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


@cache
def _plugins(kind: str) -> Mapping[str, EntryPoint]:
    return {entry.name.replace("-", "_"): entry for entry in entry_points(group=f"limbeck.{kind}")}


def _load_plugin(kind: str, name: str) -> type[Part]:
    entry = _plugins(kind)[name]
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"the {kind} '{name}' cannot be loaded from {entry.value}", got=error) from error
    if not (isinstance(found, type) and issubclass(found, Part) and found.type() == name):
        got = found.type() if isinstance(found, type) and issubclass(found, Part) else repr(found)
        fix = f"name the entry point in limbeck.{kind} as the class in snake case"
        raise RecipeError(f"{entry.value} is not a {kind} of the type '{name}'", got=got, fix=fix)
    return found


@cache
def _built_in(kind: str) -> Mapping[str, str]:
    """Of every type: the module that holds it."""
    found: dict[str, str] = {}
    for place in KINDS[kind]:
        # Looked up as a folder: to ask Python for it would import the packages around it.
        folder = Path(__file__).parents[1].joinpath(*place.split(".")[1:])
        if folder.is_dir():
            files = (m.name for m in pkgutil.iter_modules([str(folder)]) if m.name[0] != "_")
            found |= {name: f"{place}.{name}" for name in files}
        else:
            found |= dict.fromkeys(_classes(place), place)
    return found


@cache
def names(kind: str) -> tuple[str, ...]:
    """All known types of a kind, without importing any part that has a file of its own."""
    return tuple(sorted(_built_in(kind).keys() | _plugins(kind).keys()))


def _classes(module: str) -> dict[str, type[Part]]:
    members = inspect.getmembers(importlib.import_module(module), inspect.isclass)
    mine = (c for _, c in members if issubclass(c, Part) and c.__module__ == module and not inspect.isabstract(c))
    return {c.type(): c for c in mine}


@cache
def find(kind: str, name: str) -> type[Part]:
    """The part of a kind that bears a name.

    Raises:
        RecipeError: there is none, with the nearest name suggested; or a plug-in bears the name of a built-in one.
    """
    known, name = names(kind), name.replace("-", "_")
    if name in _plugins(kind):
        if name in _built_in(kind):
            raise RecipeError(
                f"a plug-in brings a {kind} named '{name}', but limbeck has one of that name itself",
                got=_plugins(kind)[name].value,
                fix="rename the plug-in's, or uninstall the package that brings it",
            )
        return _load_plugin(kind, name)
    if name not in known:
        guess = nearest(name, known)
        raise RecipeError(
            f"there is no {kind} named '{name}'",
            allowed=", ".join(known),
            fix=f"did you mean '{guess}'?" if guess else f"limbeck list {kind}s",
        )
    return _classes(_built_in(kind)[name])[name]


def build(kind: str, config: Any) -> Part:
    """Make a part from what a recipe says of it: a part, `{type: ..., field: ...}`, a name, or a shorthand.

    Raises:
        RecipeError: the type is unknown, or the value cannot name one.
        ValueError: a field is unknown or its value is wrong (pydantic's ValidationError and custom errors).
    """
    if isinstance(config, Part):
        return config
    if isinstance(config, str) and config.replace("-", "_") in names(kind):
        config = {"type": config}
    if not isinstance(config, Mapping):
        config = _from_shorthand(kind, config)
    if not isinstance(config.get("type"), str):
        raise RecipeError(f"a {kind} needs its `type:`", got=dict(config), allowed=", ".join(names(kind)))
    chosen = find(kind, config["type"])
    values = {k: v for k, v in config.items() if k != "type"}
    refuse_unknown(values, [each.name for each in fields(chosen)])  # type: ignore[arg-type]
    return TypeAdapter(chosen).validate_python(values)


def refuse_unknown(given: Iterable[Any], known: Iterable[str]) -> None:
    """Raise on the first key that is not known, suggesting the nearest one that is."""
    known = list(known)
    for key in given:
        if key not in known:
            guess = nearest(str(key), known)
            hint = f"did you mean '{guess}'?" if guess else f"allowed: {', '.join(known) or 'no keys'}"
            # Braces would be read as placeholders of the message.
            text = f"unknown key; {hint}".replace("{", "{{").replace("}", "}}")
            raise PydanticCustomError("unknown_key", text, {"key": str(key)})


def _from_shorthand(kind: str, value: Any) -> dict[str, Any]:
    for name in names(kind):
        found = find(kind, name)
        short = found.shorthand(value)
        if short is not None:
            return {"type": name, **short}
    guess = nearest(value, names(kind)) if isinstance(value, str) else None
    raise RecipeError(
        f"this names no {kind}",
        got=repr(value),
        allowed=", ".join(names(kind)) + ", or a mapping with `type:`",
        fix=f"did you mean '{guess}'?" if guess else None,
    )


def config_of(value: Part) -> dict[str, Any]:
    """The mapping that `build` would make the same part from, with every default spelled out."""
    body = TypeAdapter(type(value)).dump_python(value, mode="json")
    return {"type": value.type(), **body}


class PartOf:
    """Annotation of a recipe field that holds a part: `Annotated[Objective, PartOf("objective")]`."""

    def __init__(self, kind: str):
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def validate(value: Any) -> Part:
            try:
                return build(self.kind, value)
            except RecipeError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(
            validate, serialization=core_schema.plain_serializer_function_ser_schema(config_of)
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        # Editors complete the type and refuse an unknown one; each part's own fields are listed by its type.
        options = [_json_schema(find(self.kind, name)) for name in names(self.kind)]
        return {"anyOf": [{"type": ["string", "number"]}, *options]}


def _json_schema(cls: type[Part]) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"enum": sorted({cls.type(), cls.type().replace("_", "-")})}}
    for each in fields(cls):  # type: ignore[arg-type]
        properties[each.name] = {"title": each.name}
    return {
        "type": "object",
        "title": cls.type(),
        "description": summary(cls),
        "properties": properties,
        "required": ["type"],
        "additionalProperties": False,
    }


def summary(cls: type) -> str:
    """First line of a part's docstring."""
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]


def reference(cls: type) -> str:
    """What the `Reference:` section of a part's docstring says, on one line."""
    found = re.search(r"^References?:\n((?:[ ]+.*\n?)+)", inspect.getdoc(cls) or "", re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""
