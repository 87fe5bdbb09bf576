"""YAML as people mean it, and overrides from the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import load_recipe
from limbeck.core.yaml import apply_overrides, parse_yaml, read_yaml
from limbeck.objectives.temperature import Fixed
from tests.core.recipes import recipe, refusal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("3e4", 3e4),
        ("1E5", 1e5),
        ("-2e-3", -2e-3),
        ("+2e3", 2e3),
        ("1.5e3", 1.5e3),
        ("1.e-3", 1e-3),
        (".5e-3", 5e-4),
        ("1_0e3", 1e4),
        ("0.001", 0.001),
        ("12", 12),
        ("true", True),
        ("null", None),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1e-5x", "1e-5x"),
        ("'1e-5'", "1e-5"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_as_python_writes_it_is_read_back(value: float) -> None:
    assert parse_yaml(repr(value), "here") == value
    assert parse_yaml(f"[{value:e}]", "here") == [float(f"{value:e}")]


@pytest.mark.parametrize(
    "text",
    ["a: 1\na: 2", "x: {b: 1, b: 2}", "l: [{c: 1, c: 1}]", "1: a\n1: b", "{a: {}, b: {}, a: {}}", "'a': 1\na: 2"],
)
def test_a_key_given_twice_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"the key '\w' is given twice"):
        parse_yaml(text, "here")


def test_merge_keys_may_still_be_overridden() -> None:
    text = "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3"
    assert parse_yaml(text, "here")["mine"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\t- x", "{a: 1", "!!python/object/apply:os.getcwd []", "[" * 5000, "? [a]\n: 1"]
)
def test_what_is_not_yaml_is_one_message_with_its_origin(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^here is not valid YAML\n  got: ") as caught:
        parse_yaml(text, "here")
    assert len(str(caught.value).splitlines()) == 2


class TestReading:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"there is no recipe at .*nowhere"):
            read_yaml(tmp_path / "nowhere.yaml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="cannot be read"):
            read_yaml(tmp_path)

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(RecipeError, match="cannot be read"):
            read_yaml(tmp_path / "r.yaml")

    @pytest.mark.parametrize(("text", "got"), [("", "NoneType"), ("- a", "list"), ("just words", "str")])
    def test_what_is_no_mapping(self, tmp_path: Path, text: str, got: str) -> None:
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=rf"is not a recipe\n  got: {got}"):
            read_yaml(tmp_path / "r.yaml")


class TestOverrides:
    def test_by_position_name_and_type(self) -> None:
        made = load_recipe(
            recipe(),
            ["stages.0.epochs=7", "stages.distil.terms.kl.temperature=5", "stages.-1.terms.0.label_smoothing=0.1"],
        )
        assert made.stages[0].epochs == 7
        assert made.stages[0].terms[1].temperature == Fixed(value=5)
        assert made.stages[0].terms[0].label_smoothing == 0.1

    def test_a_bare_name_is_given_fields(self) -> None:
        made = load_recipe(recipe(task="causal-lm", data={"train": "t.jsonl"}), ["task.max_length=64"])
        assert made.task.max_length == 64
        sized = load_recipe(recipe(), ["data.train.test_size=0.5"])
        assert sized.data.train.test_size == 0.5

    def test_a_bare_name_in_a_list_is_given_fields(self) -> None:
        stage = {"name": "s", "terms": ["cross_entropy", "kl"]}
        for path in ("stages.s.terms.kl.temperature", "stages.s.terms.1.temperature"):
            assert load_recipe(recipe(stages=[stage]), [f"{path}=3"]).stages[0].terms[1].temperature == Fixed(value=3)

    def test_sections_that_are_not_there_are_made(self) -> None:
        made = load_recipe(
            recipe(), ["training.learning_rate=1e-5", "report.title=a title", "stages.0.data.train=t.csv"]
        )
        assert made.training.learning_rate == made.stages[0].learning_rate == 1e-5
        assert made.report.title == "a title"

    def test_values_are_yaml(self) -> None:
        found = apply_overrides({}, ["a=3e4", "b=[1, x]", "c={d: null}", "e=", "f=x=y", "g.h=true"])
        assert found == {"a": 3e4, "b": [1, "x"], "c": {"d": None}, "e": None, "f": "x=y", "g": {"h": True}}

    def test_the_last_one_holds(self) -> None:
        assert apply_overrides({"a": 0}, ["a=1", "a=2"]) == {"a": 2}

    def test_whole_items_can_be_replaced_or_a_section_removed(self) -> None:
        trained = {"model": "org/x", "finetune": {"epochs": 2}}
        made = load_recipe(recipe(teacher=trained), ["stages.0.terms.kl={type: reverse_kl}", "teacher.finetune=null"])
        assert made.stages[0].terms[1].type() == "reverse_kl"
        assert made.teacher is not None
        assert made.teacher.finetune is None

    def test_the_original_is_left_alone(self) -> None:
        raw = recipe()
        apply_overrides(raw, ["stages.0.terms.0.weight.start=9", "task.x=1", "data.train=y"])
        assert raw == recipe()

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("epochs", "not of the form key.path=value"),
            ("=3", "not of the form key.path=value"),
            ("  =3", "not of the form key.path=value"),
            ("seed.x=1", "leads into a plain value"),
            ("seed.x.y=1", "leads into a plain value"),
            ("stages.1.epochs=2", "names no item of the list\n  got: 1\n  allowed: 0..0, distil"),
            ("stages.-2.epochs=2", "names no item of the list"),
            ("stages.distill.epochs=2", "names no item of the list\n  got: distill"),
            ("stages.0.terms.jsd=2", "allowed: 0..1, cross_entropy, kl"),
            ("sede=1", "sede: unknown key; did you mean 'seed'?"),
            ("stages.distil.epoch=1", "stages.0.epoch: unknown key; did you mean 'epochs'?"),
            ("trainin.learning_rate=1", "trainin: unknown key; did you mean 'training'?"),
            ("seed=[", "seed=[ is not valid YAML"),
            ("seed={a: 1, a: 2}", "given twice"),
        ],
    )
    def test_a_wrong_one_is_explained(self, override: str, said: str) -> None:
        seed = {**recipe(), "seed": 0}
        assert said in refusal(seed, override)

    def test_names_that_are_numbers_do_not_break_the_message(self) -> None:
        with pytest.raises(RecipeError, match=r"allowed: 0\.\.0, 5"):
            apply_overrides({"stages": [{"name": 5}]}, ["stages.x.epochs=1"])
        with pytest.raises(RecipeError, match="the list is empty"):
            apply_overrides({"stages": []}, ["stages.0.epochs=1"])

    @given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
    def test_any_scalar_arrives_as_it_is(self, value: Any) -> None:
        text = {math.inf: ".inf", -math.inf: "-.inf", None: "null"}.get(value, repr(value).lower())
        found = apply_overrides({}, [f"a.b={text}"])["a"]["b"]
        assert found == value
        assert type(found) is type(value)
