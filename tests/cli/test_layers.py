"""`limbeck layers`: a model's layers as `match` names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from tests.cli.command import inside, refused


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A tiny BERT, its config alone."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.AutoConfig.for_model("bert", architectures=["BertModel"], vocab_size=40, **sizes)
    config.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_line_for_each_kind_of_layer(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "layers", folder)
    assert done.returncode == 0
    first, *lines = [line.split() for line in done.stdout.splitlines()]
    assert first == ["layer", "kind", "output", "parameters"]
    assert ["encoder.layer.{0..2}", "BertLayer", "B", "x", "T", "x", "16", "1,960"] in lines
    assert len({line[0] for line in lines}) == len(lines)


def test_a_pattern_with_stars_and_ranges(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "layers", folder, "encoder.layer.{0,2}.attention")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [
        "encoder.layer.0.attention",
        "encoder.layer.2.attention",
    ]
    done = inside(monkeypatch, "layers", folder, "*.query")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["encoder.layer.{0..2}.attention.self.query"]


def test_a_pipe_gets_whole_lines(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = inside(monkeypatch, "layers", folder, "*.intermediate_act_fn")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["*.atention"], ["BertModel has no layer '*.atention'", "encoder.layer.{0..2}"]),
        (["encoder.layer.{0..}"], ["the braces of a path cannot be read", "{1,3,...,11}"]),
    ],
)
def test_a_pattern_that_fits_nothing(
    words: list[str], said: list[str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(inside(monkeypatch, "layers", folder, *words), *said)


def test_a_name_that_the_hub_does_not_answer_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(inside(monkeypatch, "layers", "nobody/nothing"), "the model 'nobody/nothing' cannot be found")
