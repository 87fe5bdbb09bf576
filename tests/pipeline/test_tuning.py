"""The parts of a search: samplers, the recipe's text with other values, short names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from limbeck.core.recipe import Between, Sweep, Tune
from limbeck.core.yaml import parse_yaml
from limbeck.pipeline.tuning.figure import short_names
from limbeck.pipeline.tuning.rewrite import rewrite
from limbeck.pipeline.tuning.samplers import Grid, Tpe, Tried


def quality(values: dict[str, Any]) -> float:
    return -((values["a"] - 3) ** 2) - abs(values["b"] - 0.25)


PLAN = {
    "sampler": "tpe",
    "trials": 25,
    "space": {
        "a": {"start": 0, "stop": 8, "step": 0.5},
        "b": {"low": 1e-3, "high": 1, "log": True},
        "c": {"choices": [[0, 5], "x", None]},
    },
}


def proposed(plan: Tune, known: list[Tried], count: int) -> list[Tried]:
    """A study as it goes on from known trials, with a sampler of its own for each."""
    tried = list(known)
    while len(tried) < count:
        values = Tpe(plan.space, plan.size, plan.seed).values(tried)
        tried.append(Tried(values, None if len(tried) == 4 else quality(values)))
    return tried


def test_tpe_is_a_function_of_seed_and_history() -> None:
    plan = Tune.model_validate(PLAN)
    tried = proposed(plan, [], plan.size)
    assert proposed(plan, tried[:12], plan.size) == tried
    other = proposed(Tune.model_validate({**PLAN, "seed": 1}), [], 2)
    assert other[0] != tried[0]
    for each in tried:
        assert each.values["a"] in plan.space["a"].points()  # type: ignore[union-attr]
        assert 1e-3 <= each.values["b"] <= 1
        assert each.values["b"] == float(f"{each.values['b']:.4g}")
        assert each.values["c"] in ([0, 5], "x", None)
    random, learned = tried[:10], tried[10:]
    mean = [sum(quality(each.values) for each in part) / len(part) for part in (random, learned)]
    assert mean[1] > mean[0]


def test_a_grid_is_every_combination_in_order() -> None:
    plan = Tune.model_validate({"space": {"a": {"choices": ["x", "y"]}, "b": {"start": 1, "stop": 2, "step": 1}}})
    grid = Grid(plan.space)
    tried: list[Tried] = []
    for _ in range(grid.total):
        tried.append(Tried(grid.values(tried), 0.0))
    assert [tuple(each.values.values()) for each in tried] == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]
    assert grid.total == plan.size == 4


def test_a_sweep_counts_in_decimals() -> None:
    assert Sweep(start=1, stop=1.3, step=0.1).points() == [1.0, 1.1, 1.2, 1.3]
    assert Sweep(start=1, stop=8, step=0.5).points()[-1] == 8.0
    assert [type(value) for value in Sweep(start=1, stop=3, step=2).points()] == [int, int]
    assert Sweep(start=1, stop=2, step=3).points() == [1]


def test_numbers_drawn_can_be_copied() -> None:
    assert Between(low=0.1, high=0.9).readable(0.123456) == 0.1235
    assert Between(low=0.12344, high=0.9).readable(0.12344) == 0.12344


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("a: 1 # one\nb: {c: [1, 2], d: x}\n", {"a": 2}),
        ("a: 1\nb: {c: [1, 2], d: x}\n", {"b": {"c": [3, 4, 5], "d": "y: z"}}),
        ("a:\n  - 1\n  - 2\n\n# end\n", {"a": [7]}),
        ("a:\n# c\nb: 1\n", {"a": {"x": 1}}),
        ("a:\n  b: 1 # one\n\n  # of c\n  c: {}\n# end\n", {"a": {"b": 1, "c": {"d": 1}, "e": None}}),
        ("- no\n", None),
        ("x: &x {a: 1}\ny: *x\n", {"x": {"a": 2}}),
        ("x: &x {a: 1}\ny: {<<: *x, b: 2}\n", {"y": {"a": 3, "b": 2}}),
        ("tune: {a: 1}\nb: 1", {"tune": None, "c": 1}),
        ("b: 1\ntune:\n  a: 1", {"tune": None, "c": 1e-5}),
        ('{"a": 1, "tune": 2}', {"tune": None, "a": True}),
        ("tune: 1\n", {"tune": None, "a": 1}),
        ("a: |\n  text\n  more\nb: 1\n", {"a": "x", "b": 2}),
    ],
)
def test_a_text_says_what_it_should(text: str, change: dict[str, Any] | None) -> None:
    new = yaml.safe_load(text)
    if change is not None:
        new = {key: value for key, value in {**new, **change}.items() if key != "tune"}
    changed = rewrite(text, new)
    assert parse_yaml(changed, "a test") == new
    for comment in re.findall(r"# .*", text):
        assert comment in changed
    if "*x" in text:
        assert changed.startswith("# Written anew")


def test_short_names_still_differ() -> None:
    assert short_names(["a.kl.weight", "a.hidden.weight", "b.temperature", "weight"]) == {
        "a.kl.weight": "kl.weight",
        "a.hidden.weight": "hidden.weight",
        "b.temperature": "temperature",
        "weight": "weight",
    }
