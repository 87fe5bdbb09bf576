"""Layers by name, kind and shape, without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError
from limbeck.models.describe import LayerRow, describe_layers, layers_of, together
from limbeck.models.taps import Taps
from tests.models.conftest import inputs_of, new


def saved(name: str, folder: Path) -> str:
    """The folder of a tiny model that has its config and no weights."""
    model = new(name)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    return str(folder)


def test_a_text_model_gives_tokens_and_rows(tmp_path: Path) -> None:
    rows = {row.name: row for row in describe_layers(saved("bert", tmp_path))}
    assert rows["bert.encoder.layer.3"].shape == "B x T x 16"
    assert rows["bert.pooler"].shape == "B x 16"
    assert rows["classifier"].kind == "Linear"
    assert rows["classifier"].parameters == 2 * 16 + 2
    assert "bert.encoder.layer" not in rows, "a list of layers gives out nothing that could be tapped"


def test_a_picture_model_gives_maps(tmp_path: Path) -> None:
    (row,) = describe_layers(saved("resnet", tmp_path), ["resnet.encoder.stages.1"])
    assert (row.kind, row.shape) == ("ResNetStage", "B x 8 x 8 x 8")


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "vit"])
def test_without_memory_it_says_what_a_real_pass_says(name: str, tmp_path: Path) -> None:
    model = new(name)
    seen = describe_layers(saved(name, tmp_path))
    assert seen == layers_of(model)
    with Taps(model, [row.name for row in seen if row.kind != "Dropout"]) as taps, torch.no_grad():
        model(**inputs_of(model))
    assert taps.features(), "every name can be tapped"


def test_a_model_type_is_its_default_config() -> None:
    rows = together(describe_layers("bert", ["encoder.layer.*"]))
    assert LayerRow("encoder.layer.{0..11}", "BertLayer", "B x T x 768", 7_087_872) in rows


def test_a_pattern_may_leave_out_the_beginning(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path)
    short, full = (describe_layers(folder, [p]) for p in ("layer.?.attention", "bert.encoder.layer.?.attention"))
    assert [row.name for row in short] == [f"bert.encoder.layer.{i}.attention" for i in range(4)]
    assert short == full


def test_a_pattern_without_a_layer_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no layer '\*\.atention'") as caught:
        describe_layers(saved("bert", tmp_path), ["*.atention"])
    assert "bert.encoder.layer.{0..3}" in str(caught.value)


def test_a_model_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be found"):
        describe_layers(str(tmp_path / "none"))


def test_a_class_that_transformers_does_not_know(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("bert", architectures=["BertForFortuneTelling"])
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no class"):
        describe_layers(str(tmp_path))


def test_layers_that_differ_in_a_number_are_one_row() -> None:
    def rows(*names: str) -> list[LayerRow]:
        return [LayerRow(name, "Linear", "B x 2", 6) for name in names]

    names = ["a.0.b.0", "a.0.b.1", "a.1.b.0", "a.1.b.1", "c.0", "c.2", "d"]
    assert [row.name for row in together(rows(*names))] == ["a.{0..1}.b.{0..1}", "c.0", "c.2", "d"]
    other = [*rows("a.0"), LayerRow("a.1", "Linear", "B x 3", 9)]
    assert together(other) == other
