"""Parts: found by name, imported when named, frozen, written down and made again."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, fields
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from limbeck.core import parts
from limbeck.core.errors import RecipeError
from limbeck.core.parts import KINDS, Part, build, config_of, find, names, part, reference, snake_case, summary
from limbeck.core.schedules import Constant, Linear, Schedule

# What a part needs where its fields have no defaults. A part whose name is not here is made without fields.
MINIMAL: dict[tuple[str, str], dict[str, Any]] = {
    ("schedule", "constant"): {"value": 0.5},
    ("schedule", "linear"): {"start": 1, "end": 0},
    ("schedule", "cosine"): {"start": 1, "end": 0},
    ("temperature", "fixed"): {"value": 2},
    ("temperature", "scheduled"): {"value": 2},
    ("schedule", "plateau"): {"start": 1},
    ("schedule", "step"): {"boundaries": [0.5], "values": [1, 2]},
    ("source", "csv"): {"path": "rows.csv"},
    ("source", "hub"): {"name": "org/rows", "splits": {"test": "validation"}},
    ("source", "image_folder"): {"path": "photos"},
    ("source", "jsonl"): {"path": "rows.jsonl"},
    ("source", "npz"): {"path": "rows.npz"},
    ("source", "parquet"): {"path": "rows.parquet"},
    ("filter", "length"): {"min_answer": 1},
    ("objective", "deep_to_shallow"): {"layers": ["encoder.layer.0"]},
}
MATCHING = (
    *("attention_maps", "attention_transfer", "fitnets", "hidden", "multilevel", "nst", "relations", "value_relations"),
    *("cka", "crd", "pkt", "rkd", "similarity_preserving"),
)
"""Objectives that compare layers, and so need to know which."""
MINIMAL |= {("objective", name): {"match": {"encoder.layer.0": "encoder.layer.{0..1}"}} for name in MATCHING}
ALL = [(kind, name) for kind in KINDS for name in names(kind)]


@pytest.mark.parametrize(("kind", "name"), ALL, ids=str)
class TestEveryPart:
    def make(self, kind: str, name: str) -> Part:
        return build(kind, {"type": name, **MINIMAL.get((kind, name), {})})

    def test_bears_its_name(self, kind: str, name: str) -> None:
        assert find(kind, name).type() == name
        assert find(kind, name.replace("_", "-")) is find(kind, name)

    def test_is_frozen_and_keyword_only(self, kind: str, name: str) -> None:
        made = self.make(kind, name)
        for each in fields(made):  # type: ignore[arg-type]
            with pytest.raises(FrozenInstanceError):
                setattr(made, each.name, getattr(made, each.name))
        with pytest.raises((ValidationError, TypeError)):
            type(made)("positional")  # type: ignore[call-arg]

    def test_refuses_fields_that_it_has_not(self, kind: str, name: str) -> None:
        values = {**MINIMAL.get((kind, name), {}), "no_such_field": 1}
        with pytest.raises(ValueError, match="unknown key"):
            build(kind, {"type": name, **values})
        with pytest.raises(ValidationError):
            find(kind, name)(**values)

    def test_is_written_down_and_made_again(self, kind: str, name: str) -> None:
        made = self.make(kind, name)
        config = config_of(made)
        assert config["type"] == name
        assert set(config) == {"type", *(each.name for each in fields(made))}  # type: ignore[arg-type]
        assert build(kind, config) == made
        assert config_of(build(kind, config)) == config

    def test_is_told_in_one_line(self, kind: str, name: str) -> None:
        line = summary(find(kind, name))
        assert 10 < len(line) <= 110
        assert line.endswith((".", ":")) or "." in line


@pytest.mark.parametrize("name", names("objective"))
def test_an_objective_names_its_paper(name: str) -> None:
    assert reference(find("objective", name))


class TestNames:
    @pytest.mark.parametrize(
        ("camel", "snake"),
        [
            ("KL", "kl"),
            ("ReverseKL", "reverse_kl"),
            ("CausalLM", "causal_lm"),
            ("CrossEntropy", "cross_entropy"),
            ("CSV", "csv"),
            ("JSONLFile", "jsonl_file"),
            ("Top5Accuracy", "top5_accuracy"),
        ],
    )
    def test_in_snake_case(self, camel: str, snake: str) -> None:
        assert snake_case(camel) == snake

    def test_are_found_without_importing_a_part(self) -> None:
        code = (
            "import sys; from limbeck.core.parts import names\n"
            "assert 'kl' in names('objective') and 'digits' in names('source') and 'causal_lm' in names('task')\n"
            "heavy = {'limbeck.objectives.distribution.kl', 'limbeck.data.sources.csv', 'torch'} & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_part_is_imported_alone(self) -> None:
        code = (
            "import sys; from limbeck.core.parts import build\n"
            "build('source', 'digits')\n"
            "assert 'limbeck.data.sources.digits' in sys.modules\n"
            "assert 'limbeck.data.sources.parquet' not in sys.modules\n"
            "assert 'torch' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_leave_out_bases_and_helpers(self) -> None:
        assert not [name for kind in KINDS for name in names(kind) if name.startswith("_")]
        assert "schedule" not in names("schedule")


class TestBuild:
    def test_from_a_part_a_name_a_mapping_or_a_shorthand(self) -> None:
        linear = Linear(start=0, end=1)
        assert build("schedule", linear) is linear
        assert build("schedule", {"type": "linear", "start": 0, "end": 1}) == linear
        assert build("schedule", 2) == Constant(value=2)
        assert build("objective", "reverse-kl").type() == "reverse_kl"
        assert build("source", "rows.csv").type() == "csv"

    def test_leaves_the_mapping_as_it_was(self) -> None:
        config = {"type": "linear", "start": 0, "end": 1}
        build("schedule", config)
        assert config == {"type": "linear", "start": 0, "end": 1}

    @pytest.mark.parametrize(
        ("kind", "config", "said"),
        [
            ("schedule", {"type": "liner"}, "there is no schedule named 'liner'.*did you mean 'linear'"),
            ("objective", {"type": "zzzzzz"}, "limbeck list objectives"),
            ("schedule", {"start": 1}, "a schedule needs its `type:`"),
            ("schedule", {"type": 3}, "a schedule needs its `type:`"),
            ("schedule", "liner", "this names no schedule.*did you mean 'linear'"),
            ("schedule", True, "this names no schedule"),
            ("schedule", [1], "this names no schedule"),
            ("source", None, "this names no source"),
        ],
    )
    def test_says_what_is_wrong(self, kind: str, config: Any, said: str) -> None:
        with pytest.raises(RecipeError, match=f"(?s){said}"):
            build(kind, config)

    def test_a_field_is_checked(self) -> None:
        with pytest.raises(ValidationError, match="greater than 0"):
            build("objective", {"type": "kl", "temperature": 0})
        with pytest.raises(ValueError, match="did you mean 'temperature'"):
            build("objective", {"type": "kl", "temprature": 1})


class TestText:
    def test_summary_is_the_first_line(self) -> None:
        assert summary(Linear) == "A straight line from `start` to `end`."

    def test_reference_is_one_line_and_may_be_missing(self) -> None:
        assert "arXiv:1503.02531" in reference(find("objective", "kl"))
        assert "\n" not in reference(find("objective", "cross_entropy"))
        assert reference(Linear) == ""


@part
class HalfWay(Schedule):
    """From a value to half of it; a plug-in of the tests."""

    value: float = Field(gt=0)

    def __call__(self, progress: float) -> float:
        return self.value * (1 - progress / 2)


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that another package brings parts; `plug_in(name, value)` adds an entry point for schedules."""
    found: list[EntryPoint] = []

    def entry_points(group: str) -> list[EntryPoint]:
        return [entry for entry in found if entry.group == group]

    def clear() -> None:
        for cached in (parts._plugins, parts.names, parts.find):
            cached.cache_clear()

    def add(name: str, value: str, group: str = "limbeck.schedule") -> None:
        found.append(EntryPoint(name, value, group))
        clear()

    module = types.ModuleType("half_way_plugin")
    module.HalfWay = HalfWay  # type: ignore[attr-defined]
    module.not_a_part = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "half_way_plugin", module)
    monkeypatch.setattr(parts, "entry_points", entry_points)
    yield add
    monkeypatch.undo()
    clear()


class TestPlugIns:
    @pytest.mark.parametrize("name", ["half_way", "half-way"])
    def test_are_parts_like_any_other(self, plug_in: Callable[..., None], name: str) -> None:
        plug_in(name, "half_way_plugin:HalfWay")
        assert "half_way" in names("schedule")
        made = build("schedule", {"type": "half-way", "value": 4})
        assert made == HalfWay(value=4)
        assert build("schedule", config_of(made)) == made
        assert build("schedule", 1) == Constant(value=1)

    def test_are_imported_only_when_named(self, plug_in: Callable[..., None]) -> None:
        plug_in("broken", "no_such_package:Broken")
        assert "broken" in names("schedule")
        assert build("schedule", {"type": "linear", "start": 0, "end": 1})

    def test_that_are_broken_say_so(self, plug_in: Callable[..., None]) -> None:
        plug_in("broken", "no_such_package:Broken")
        plug_in("gone", "half_way_plugin:Gone")
        for name in ("broken", "gone"):
            with pytest.raises(RecipeError, match=f"the schedule '{name}' cannot be loaded from"):
                build("schedule", {"type": name})

    def test_that_are_no_parts_or_misnamed_are_refused(self, plug_in: Callable[..., None]) -> None:
        plug_in("number", "half_way_plugin:not_a_part")
        plug_in("other", "half_way_plugin:HalfWay")
        for name in ("number", "other"):
            with pytest.raises(RecipeError, match=f"is not a schedule of the type '{name}'"):
                build("schedule", {"type": name})

    def test_do_not_take_the_place_of_a_built_in_part(self, plug_in: Callable[..., None]) -> None:
        plug_in("linear", "half_way_plugin:HalfWay")
        with pytest.raises(RecipeError, match=r"(?s)a plug-in brings a schedule named 'linear'.*half_way_plugin"):
            build("schedule", {"type": "linear", "start": 0, "end": 1})
        assert build("schedule", {"type": "cosine", "start": 0, "end": 1})

    def test_belong_to_their_kind(self, plug_in: Callable[..., None]) -> None:
        plug_in("half_way", "half_way_plugin:HalfWay", group="limbeck.objective")
        assert "half_way" not in names("schedule")


def test_every_part_with_a_file_is_named_as_its_file() -> None:
    root = Path(parts.__file__).parents[2]
    for kind, places in KINDS.items():
        folders = [root / place.replace(".", "/") for place in places]
        if all(folder.is_dir() for folder in folders):
            assert {p.stem for folder in folders for p in folder.glob("[!_]*.py")} == set(names(kind))
