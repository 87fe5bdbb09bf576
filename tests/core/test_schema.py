"""The JSON schema that editors complete and check with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.parts import KINDS, names
from limbeck.core.recipe import Recipe, Section, dump_recipe, load_recipe
from limbeck.core.yaml import read_yaml
from tests.core.recipes import ROOT, SHIPPED, recipe, with_value
from tests.core.schema_check import complaints


@cache
def schema() -> dict[str, Any]:
    """The schema as an editor reads it."""
    return json.loads(json.dumps(Recipe.model_json_schema()))  # type: ignore[no-any-return]


def field(section: str | None, name: str) -> dict[str, Any]:
    """The schema of one field of a section; None is the recipe itself."""
    where = schema() if section is None else schema()["$defs"][section]
    return where["properties"][name]  # type: ignore[no-any-return]


def types_in(value: Any) -> set[str]:
    """Every name that `type:` may take somewhere inside a schema."""
    if isinstance(value, list):
        return set().union(*map(types_in, value))
    if not isinstance(value, dict):
        return set()
    kind = value.get("properties", {}).get("type", {})
    return set(kind.get("enum", [])) | types_in(value.get("anyOf")) | types_in(value.get("items"))


@pytest.mark.parametrize(
    ("kind", "section", "name"),
    [
        ("task", None, "task"),
        ("source", "Data", "train"),
        ("source", "Data", "validation"),
        ("source", "Data", "test"),
        ("objective", "Stage", "terms"),
        ("objective", "Finetune", "terms"),
        ("augmentation", "Stage", "augment"),
        ("augmentation", "Finetune", "augment"),
        ("curriculum", "Stage", "curriculum"),
        ("perturbation", "Generate", "perturb"),
        ("verifier", "Generate", "verify"),
        ("filter", "Generate", "filters"),
        ("metric", "Evaluate", "metrics"),
        ("exporter", None, "export"),
        ("optimization", "Optimize", "passes"),
        ("perturbation", "Robustness", "perturbations"),
    ],
)
def test_every_part_is_offered(kind: str, section: str | None, name: str) -> None:
    known = set(names(kind))
    assert types_in(field(section, name)) == known | {each.replace("_", "-") for each in known}


def test_every_kind_that_recipes_name_directly_was_looked_at() -> None:
    known = {"task", "source", "objective", "schedule", "temperature", "augmentation"}
    parts = {"curriculum", "perturbation", "verifier", "filter", "metric", "exporter", "compressor", "optimization"}
    assert set(KINDS) == known | parts | {"check", "deployment"}  # no field names these two


def test_every_key_has_a_text_for_the_editor() -> None:
    sections = [Section]
    for section in sections:
        sections += section.__subclasses__()
    for section in sections:
        for name, each in section.model_fields.items():
            assert each.description, f"{section.__name__}.{name} has no text"


def test_unknown_keys_are_refused_everywhere() -> None:
    assert schema()["additionalProperties"] is False
    for name, definition in schema()["$defs"].items():
        assert definition.get("additionalProperties") is False, name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_shipped_recipes_fit(path: Path) -> None:
    assert list(complaints(read_yaml(path), schema(), schema())) == []


def test_a_resolved_recipe_fits() -> None:
    assert list(complaints(dump_recipe(load_recipe(recipe())), schema(), schema())) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("sede", 1),
        ("stages.0.epoch", 1),
        ("stages.0.epochs", 0),
        ("stages.0.terms.1", {"type": "lk"}),
        ("stages.0.terms.1", {"type": "kl", "temprature": 2}),
        ("task", {"type": "causal-ml"}),
        ("data.train", {"type": "digits", "test_sise": 1}),
        ("training.learning_rate", 0),
        ("training.precision", "fp8"),
        ("teacher.tokenizer", {"train": "wordpiece"}),
    ],
)
def test_an_editor_marks_what_limbeck_refuses(path: str, value: Any) -> None:
    assert list(complaints(with_value(path, value), schema(), schema()))


def test_it_is_a_valid_schema_to_the_reference_library() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema())
    for path in SHIPPED:
        assert list(validator(schema()).iter_errors(read_yaml(path))) == []
    assert list(validator(schema()).iter_errors(with_value("sede", 1)))
