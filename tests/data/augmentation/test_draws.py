"""Draws: functions of seed, step, view and sample, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build, find, names, reference
from limbeck.data.augmentation import Augmentation, DrawKey, partners, refuse_disorder

ALL = names("augmentation")


def make(name: str, **fields: Any) -> Any:
    return build("augmentation", {"type": name, **fields})


def test_the_same_key_gives_the_same_numbers_in_another_process() -> None:
    code = (
        "from limbeck.data.augmentation import DrawKey\n"
        "print(DrawKey(3, 17, 1).draws('train/5', 2).integers(0, 1000, 5).tolist(), end='')"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told == str(DrawKey(3, 17, 1).draws("train/5", 2).integers(0, 1000, 5).tolist())


def test_whatever_differs_gives_other_numbers() -> None:
    keys = [DrawKey(seed, step, view) for seed, step, view in product((0, 1), (0, 1, 11), (0, 1))]
    drawn = {key.draws(sample, place).random() for key in keys for sample in ("1", "11") for place in (0, 1)}
    assert len(drawn) == len(keys) * 4
    assert len({key.name(sample) for key in keys for sample in ("1", "11")}) == len(keys) * 2


@pytest.mark.parametrize("count", [2, 3, 8, 50])
def test_partners_are_all_samples_and_never_oneself(count: int) -> None:
    seen = set()
    for step in range(20):
        other = partners(count, DrawKey(0, step).draws("", 0))
        assert sorted(other) == list(range(count))
        assert (other != np.arange(count)).all()
        seen.add(tuple(other))
    assert len(seen) == (1 if count == 2 else 2 if count == 3 else 20)


@pytest.mark.parametrize("name", ALL)
def test_every_part_names_its_paper_and_what_it_acts_on(name: str) -> None:
    found = find("augmentation", name)
    assert issubclass(found, Augmentation)
    assert found.matter in ("text", "tokens", "pixels")
    assert reference(found)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_probability_is_the_share_that_is_changed(share: float) -> None:
    flip = make("flip", probability=share)
    hits = sum(flip.happens(DrawKey(0, step).draws("a", 0)) for step in range(2000))
    assert hits == pytest.approx(2000 * share, abs=4 * (2000 * share * (1 - share)) ** 0.5)


@pytest.mark.parametrize("order", [("token_swap", "typo"), ("mixup", "crop"), ("cutmix", "mixup", "flip")])
def test_an_order_that_cannot_be_kept_is_refused(order: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=f"'{order[-1]}' stands after '{order[-2]}'"):
        refuse_disorder([make(name) for name in order])


@pytest.mark.parametrize(
    "order", [(), ("typo", "homophone", "token_swap"), ("crop", "flip", "crop", "cutmix", "mixup")]
)
def test_an_order_that_can_be_kept_is_taken(order: tuple[str, ...]) -> None:
    refuse_disorder([make(name) for name in order])
