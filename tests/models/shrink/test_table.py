"""Where the parameters went."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console

from limbeck.models.load import parameters
from limbeck.models.shrink import as_markdown, as_rich, count_parameters, keep_layers, parameter_table
from tests.models.conftest import new


@pytest.mark.parametrize("name", ["qwen3", "qwen3-tied", "gpt2", "bert", "vit", "resnet"])
def test_every_parameter_is_counted_once(name: str) -> None:
    model = new(name)
    counts = count_parameters(model)
    assert sum(counts.values()) == parameters(model)
    assert ("attention" in counts) is (name != "resnet")
    assert counts.get("other", 0) == 0 or name == "resnet"


def test_parts_hold_what_they_are_called() -> None:
    counts = count_parameters(new("qwen3"))  # D 16, V 40, 2 heads of 8, 1 key-value head, F 24, 4 layers
    assert counts == {
        "embeddings": 40 * 16,
        "attention": 4 * (2 * 16 * 16 + 2 * 8 * 16),
        "MLP": 4 * 3 * 16 * 24,
        "norms": 4 * (2 * 16 + 2 * 8) + 16,
        "head": 40 * 16,
    }
    assert "head" not in count_parameters(new("qwen3-tied"))
    bert = count_parameters(new("bert"))
    assert bert["head"] == 16 * 17 + 2 * 17
    assert bert["embeddings"] == (40 + 32 + 2) * 16
    assert "head" not in count_parameters(new("qwen3").model)


def test_the_table_compares() -> None:
    teacher = new("qwen3")
    rows = {row.part: row for row in parameter_table(teacher, keep_layers(teacher, [0]))}
    assert (rows["attention"].kept, rows["embeddings"].kept) == (0.25, 1.0)
    assert rows["total"].before == parameters(teacher)
    assert sum(row.share for part, row in rows.items() if part != "total") == pytest.approx(1)
    text = as_markdown(list(rows.values()))
    assert text.splitlines()[0].startswith("| part | before | after")
    assert f"| attention | {4 * 768:,} | 768 | 25.0% |" in text
    out = io.StringIO()
    Console(file=out, width=100).print(as_rich(list(rows.values()), title="student"))
    assert "attention" in out.getvalue()
    assert "25.0%" in out.getvalue()


def test_a_part_that_is_new_has_no_share_left() -> None:
    rows = parameter_table(torch_head(False), torch_head(True))
    assert next(row for row in rows if row.part == "head").kept is None


def torch_head(has: bool) -> torch.nn.Module:
    model = new("qwen3")
    return model if has else model.model
