"""Scores on validation rows, over processes."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from limbeck.core.types import Batch
from limbeck.tasks import Feature
from limbeck.training.validate import validate
from tests.models.conftest import new


def test_a_process_without_rows_finds_what_the_others_find() -> None:
    """Or it would go back to other weights than they do, or wait for them for ever."""
    row = Feature("a", 1, {})
    pixels = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    codec = SimpleNamespace(collate=lambda rows: Batch(("a",), {"pixel_values": pixels}, torch.tensor([1])))
    sums: list[torch.Tensor] = []

    def reduce(mine: torch.Tensor, how: str) -> torch.Tensor:
        sums.append(mine)
        return torch.stack(sums).sum(0)

    found = []
    for rank in (0, 1):  # one after the other; the second one has all sums
        engine = SimpleNamespace(
            num_processes=2, process_index=rank, device=torch.device("cpu"), autocast=nullcontext, reduce=reduce
        )
        found.append(validate(engine, new("vit"), codec, [row], 4))  # type: ignore[arg-type]
    assert found[0].keys() == found[1].keys() == {"loss", "accuracy"}
    assert found[0] == pytest.approx(found[1])
