"""A teacher that is asked once about each sample."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Dense, Head, Needs
from limbeck.tasks._structure import additive
from limbeck.teachers.local import LocalTeacher
from limbeck.teachers.remembering import RememberingTeacher
from tests.models.conftest import new

LENGTHS = (5, 9, 7, 3)
IDS = [torch.randint(3, 40, (n,), generator=torch.Generator().manual_seed(n)) for n in LENGTHS]


def batch(which: list[int], width: int, side: str = "right") -> Batch:
    ids, mask = torch.zeros(len(which), width, dtype=torch.long), torch.zeros(len(which), width, dtype=torch.long)
    for row, i in enumerate(which):
        where = slice(0, LENGTHS[i]) if side == "right" else slice(width - LENGTHS[i], width)
        ids[row, where], mask[row, where] = IDS[i], 1
    labels = torch.zeros(len(which), dtype=torch.long)
    return Batch(tuple(f"row{i}" for i in which), {"input_ids": ids, "attention_mask": mask}, labels)


NEEDS = {
    "bert": Needs(True, frozenset({"bert.encoder.layer.1", "bert.encoder.layer.1.attention.self:output.1"})),
    "qwen3": Needs(True, frozenset({"model.layers.1"})),
}


@pytest.mark.parametrize("name", list(NEEDS))
def test_any_batch_gets_what_the_teacher_would_say(name: str) -> None:
    model = new(name)
    model.set_attn_implementation("eager")
    plain, wise = LocalTeacher(model), RememberingTeacher(model)
    wise.signal(batch([0, 1], 9), NEEDS[name])
    wise.signal(batch([3, 2], 8), NEEDS[name])
    model_runs = model.register_forward_pre_hook(lambda *given: pytest.fail("the model was run again"))
    asked = batch([2, 0, 3, 1], 11)
    told = wise.signal(asked, NEEDS[name])
    model_runs.remove()
    wanted = plain.signal(asked, NEEDS[name])
    real = asked.inputs["attention_mask"].bool()
    for path in NEEDS[name].features:
        mine, theirs = told.features[path], wanted.features[path]
        if mine.ndim == 4:  # maps: queries and keys that are real
            pairs = (real[:, :, None] & real[:, None, :])[:, None].expand_as(mine)
            torch.testing.assert_close(mine[pairs], theirs[pairs])
            assert (mine[~pairs] == 0).all()
        else:
            torch.testing.assert_close(mine[real], theirs[real])
            assert (mine[~real] == 0).all()
    compare(told.dist, wanted.dist, real)


def compare(mine: Any, theirs: Any, real: torch.Tensor) -> None:
    if isinstance(theirs, Dense):
        torch.testing.assert_close(mine.logits, theirs.logits)
        return
    assert isinstance(mine, Head)
    torch.testing.assert_close(mine.hidden[real], theirs.hidden[real])
    assert mine.weight is theirs.weight


def test_a_changed_text_is_another_sample() -> None:
    teacher = RememberingTeacher(new("bert"))
    first = batch([0], 5)
    said = teacher.signal(first, Needs(dist=True)).dist
    ids = first.inputs["input_ids"].clone()
    ids[0, 2] = 3 + (ids[0, 2] + 1) % 30
    again = teacher.signal(replace(first, inputs={**first.inputs, "input_ids": ids}), Needs(dist=True)).dist
    assert not torch.equal(said.logits, again.logits)  # type: ignore[union-attr]
    assert len(teacher.said) == 2


def test_a_mask_that_hides_other_tokens_is_another_sample() -> None:
    """As under `structured-reasoning`, once with `mask: full` and once with `mask: steps`."""
    teacher = RememberingTeacher(new("qwen3"))
    seen = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    hiding = seen.clone()
    hiding[..., 3:, 1] = False
    full, steps = (
        replace(given := batch([0], 5), inputs={**given.inputs, "attention_mask": additive(mask)})
        for mask in (seen, hiding)
    )
    teacher.signal(full, Needs(dist=True))
    told = teacher.signal(steps, Needs(dist=True)).dist
    compare(told, LocalTeacher(teacher.model).signal(steps, Needs(dist=True)).dist, torch.ones(1, 5, dtype=torch.bool))


def test_what_is_kept_of_a_sample_to_know_it_again_is_small() -> None:
    teacher = RememberingTeacher(new("vit"))
    teacher.signal(Batch(("a",), {"pixel_values": torch.rand(1, 1, 8, 8)}, torch.zeros(1).long()), Needs(dist=True))
    ((_, known),) = teacher.said
    assert len(known) == 16


def test_more_can_be_asked_later() -> None:
    teacher = RememberingTeacher(new("bert"))
    teacher.signal(batch([0], 5), Needs(dist=True))
    told = teacher.signal(batch([0], 5), Needs(features=frozenset({"bert.encoder.layer.0"})))
    assert told.dist is None
    assert told.features["bert.encoder.layer.0"].shape == (1, 5, 16)
    assert len(teacher.said) == 1


def test_augmented_samples_are_refused() -> None:
    teacher = RememberingTeacher(new("bert"))
    with pytest.raises(RecipeError, match="augmented"):
        teacher.signal(replace(batch([0], 5), draws=("seed/0",)), Needs(dist=True))
