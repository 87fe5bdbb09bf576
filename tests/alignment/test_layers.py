"""From patterns to pairs of layers."""

from __future__ import annotations

import pytest

from limbeck.alignment.layers import expand, find_layers, match_layers
from limbeck.core.errors import ModelError, RecipeError
from tests.models.conftest import new


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a.b", "a.b"),
        ("l.{0..3}", "l.0 l.1 l.2 l.3"),
        ("l.{0..6..2}", "l.0 l.2 l.4 l.6"),
        ("l.{1,4}", "l.1 l.4"),
        ("l.{1,3,...,11}", "l.1 l.3 l.5 l.7 l.9 l.11"),
        ("l.{0,1}.{query,key}", "l.0.query l.0.key l.1.query l.1.key"),
        ("l.{10..12}.x", "l.10.x l.11.x l.12.x"),
    ],
)
def test_braces(pattern: str, wanted: str) -> None:
    assert expand(pattern) == wanted.split()


@pytest.mark.parametrize(
    "pattern",
    ["l.{", "l.{0..", "l.{3..1}", "l.{1,3,...,10}", "l.{1,...,3}", "l.{}", "l.{a b}", "l.{3,1,...,9}", "l.0}"],
)
def test_braces_that_make_no_sense_are_refused(pattern: str) -> None:
    with pytest.raises(RecipeError, match="braces"):
        expand(pattern)


def test_a_path_may_begin_in_the_middle() -> None:
    model = new("bert", num_hidden_layers=2)
    wanted = ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert find_layers(model, "encoder.layer.{0..1}") == wanted
    assert find_layers(model, "bert.encoder.layer.*") == wanted
    assert find_layers(model, "layer.{1,0}") == wanted[::-1]
    assert find_layers(model, "layer.0:input") == ["bert.encoder.layer.0:input"]
    assert find_layers(model, "layer.*.attention.self:output.1") == [
        f"{name}.attention.self:output.1" for name in wanted
    ]


def test_what_is_unclear_or_missing_is_told() -> None:
    model = new("bert", num_hidden_layers=2)
    with pytest.raises(ModelError, match="may be several layers"):
        find_layers(model, "dense")
    with pytest.raises(ModelError, match="may be several layers"):
        find_layers(model, "output.*")
    with pytest.raises(ModelError, match=r"(?s)no layer 'encoder.layer.5'.*bert.encoder.layer.\{0..1\}"):
        find_layers(model, "encoder.layer.5")


def test_pairs_are_made_in_order_and_lists_must_be_equal() -> None:
    student, teacher = new("bert", num_hidden_layers=2), new("bert", num_hidden_layers=4)
    pairs = match_layers(student, teacher, [("layer.{0,1}", "layer.{1,3}"), ("bert.embeddings", "bert.embeddings")])
    assert pairs == [
        ("bert.encoder.layer.0", "bert.encoder.layer.1"),
        ("bert.encoder.layer.1", "bert.encoder.layer.3"),
        ("bert.embeddings", "bert.embeddings"),
    ]
    with pytest.raises(RecipeError, match=r"(?s)different numbers.*is 2: .*is 4: "):
        match_layers(student, teacher, [("layer.*", "layer.*")])
    with pytest.raises(RecipeError, match="matched twice"):
        match_layers(student, teacher, [("layer.0", "layer.0"), ("encoder.layer.0", "layer.0")])
    assert match_layers(student, None, [("layer.0", None)]) == [("bert.encoder.layer.0", None)]
