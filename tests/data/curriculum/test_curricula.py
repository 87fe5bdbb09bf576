"""Which rows are due when."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.parts import build, names
from limbeck.data.curriculum import Curriculum


def spans(config: dict[str, object], steps: int = 101) -> np.ndarray:
    curriculum = build("curriculum", config)
    assert isinstance(curriculum, Curriculum)
    return np.array([curriculum.span(step / (steps - 1)) for step in range(steps)])


@pytest.mark.parametrize("kind", names("curriculum"))
def test_every_curriculum_goes_from_easy_to_difficult(kind: str) -> None:
    low, high = spans({"type": kind}).T
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low < high).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert high[0] < 1
    assert high[-1] == 1


def test_competence_is_the_published_function() -> None:
    high = spans({"type": "competence", "initial": 0.1, "until": 0.8})[:, 1]
    t = np.arange(101) / 100
    assert high == pytest.approx(np.minimum(1, np.sqrt(t * (1 - 0.1**2) / 0.8 + 0.1**2)))
    assert high[0] == pytest.approx(0.1)
    assert high[79] < 1 <= high[80]
    linear = spans({"type": "competence", "shape": "linear", "initial": 0.1, "until": 0.8})[:, 1]
    assert linear == pytest.approx(np.minimum(1, t * (1 - 0.1) / 0.8 + 0.1))


def test_buckets_follow_each_other_and_by_stage_keeps_the_easier_ones() -> None:
    each, kept = spans({"type": "buckets", "buckets": 3}, 7), spans({"type": "by_stage", "buckets": 3}, 7)
    assert each[:, 0] * 3 == pytest.approx([0, 0, 1, 1, 2, 2, 2])
    assert each[:, 1] == pytest.approx(kept[:, 1])
    assert not kept[:, 0].any()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"type": "competence", "initial": 0}, "initial"),
        ({"type": "by_stage", "buckets": 1}, "buckets"),
        ({"type": "buckets", "difficulty": {}}, "at least one measure"),
    ],
)
def test_curricula_that_are_none_are_refused(config: dict[str, object], words: str) -> None:
    with pytest.raises(Exception, match=words):
        build("curriculum", config)
