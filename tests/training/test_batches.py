"""The order of samples under mixtures and curricula; the plain order is tested in test_loop.py too."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import RecipeError, TrainingError
from limbeck.core.recipe import Stage
from limbeck.core.types import Sample
from limbeck.tasks import Encoded, Feature
from limbeck.training.batches import Order, order_of

PLAIN = [
    (250, 32, 20, [0, 1], True),
    (2000, 16, 125, [3], True),
    (2000, 16, 125, [3], False),
    (7, 16, 9, [5], True),
    (1000, 8, 300, [1, 0], True),
    (64, 64, 5, [2], True),
]


def stage(**fields: Any) -> Stage:
    return Stage(name="x", terms=[{"type": "cross_entropy"}], **{"global_batch_size": 26, **fields})


def rows(sizes: dict[str, int], seed: int = 0) -> Encoded:
    draws, features = np.random.default_rng(seed), []
    for name in [name for name, size in sizes.items() for _ in range(size)]:
        i = len(features)
        sample = Sample(f"s{i}", {"text": "x"}, "y", {"stage": name, "hard": float(draws.random())})
        features.append(Feature(sample.id, int(draws.integers(1, 50)), {}, sample))
    return Encoded(features)


def test_without_mixture_and_curriculum_the_order_is_what_it_always_was() -> None:
    digest = hashlib.sha256()
    for count, batch, steps, seed, by_length in PLAIN:
        order = Order([1 + i * 7919 % 101 for i in range(count)], batch, steps, seed, by_length)
        for step in range(steps):
            digest.update(repr(order.step(step)).encode())
    assert digest.hexdigest() == "d4d54a8c9eb8d77b6daf16bbf377e6615a4bfe1d06ae4b54ca0e4a7462c98522"
    train = rows({"a": 100})
    plain = Order([f.length for f in train.features], 26, 10, [0, 0], True)
    told = order_of(stage(), train, 10, (0, 0))
    assert [told.step(i) for i in range(10)] == [plain.step(i) for i in range(10)]


@pytest.mark.parametrize("by_length", [True, False])
def test_a_mixture_has_its_shares_in_every_step_and_counts_epochs_by_part(by_length: bool) -> None:
    train = rows({"adversarial": 30, "basic": 700, "specialised": 100})
    order = order_of(stage(mixture="20:5:1", group_by_length=by_length), train, 200, [1])
    seen: Counter[int] = Counter()
    for step in range(200):
        batch = order.step(step)
        parts = Counter(train.features[i].source.meta["stage"] for i in batch)  # type: ignore[union-attr]
        assert parts == {"basic": 20, "specialised": 5, "adversarial": 1}
        seen.update(batch)
    for name, told in zip(("basic", "specialised", "adversarial"), order.told(), strict=True):
        mine = [i for i, f in enumerate(train.features) if f.source and f.source.meta["stage"] == name]
        counts = [seen[i] for i in mine]
        assert max(counts) - min(counts) <= 1
        assert told == {
            "part": name, "rows": len(mine), "samples": sum(counts), "epochs": sum(counts) / len(mine)
        }  # fmt: skip


def test_a_scheduled_weight_moves_the_shares() -> None:
    train = rows({"basic": 300, "hard": 300})
    rising = {"basic": 1, "hard": {"type": "linear", "start": 0, "end": 1}}
    order = order_of(stage(mixture=rising, global_batch_size=20), train, 101, [0])
    hard = [sum(i >= 300 for i in order.step(step)) for step in range(101)]
    for step, count in enumerate(hard):
        wanted = 20 * (step / 100) / (1 + step / 100)
        assert abs(count - wanted) < 1
    assert hard[0] == 0
    assert hard[-1] == 10


def test_a_step_of_a_mixture_holds_like_lengths() -> None:
    train = rows({"basic": 1000, "hard": 500})
    lengths = [f.length for f in train.features]
    spread = {}
    for grouped in (True, False):
        order = order_of(stage(mixture={"basic": 2, "hard": 1}, group_by_length=grouped), train, 60, [0])
        batches = [[lengths[i] for i in order.step(step)] for step in range(60)]
        spread[grouped] = sum(max(b) - min(b) for b in batches)
        if grouped:
            assert all(batch == sorted(batch, reverse=True) for batch in batches)
    assert spread[True] < spread[False] / 4


@pytest.mark.parametrize("mixture", [None, {"a": 3, "b": 1}])
@pytest.mark.parametrize("kind", ["competence", "by_stage", "buckets"])
def test_a_curriculum_draws_only_from_rows_that_are_due(kind: str, mixture: dict[str, int] | None) -> None:
    train, steps = rows({"a": 400, "b": 200}), 120
    hard = np.array([f.source.meta["hard"] for f in train.features if f.source])
    plan = stage(mixture=mixture, curriculum={"type": kind, "difficulty": "hard"}, global_batch_size=8)
    order = order_of(plan, train, steps, [0])
    parts = [np.arange(400), np.arange(400, 600)] if mixture else [np.arange(600)]
    place = np.empty(600)  # of each row: the share of its part that is easier
    for part in parts:
        place[part] = np.argsort(np.argsort(hard[part])) / len(part)
    for step in range(steps):
        batch = order.step(step)
        assert len(set(batch)) == len(batch)
        low, high = plan.curriculum.span(step / (steps - 1))  # type: ignore[union-attr]
        assert place[batch].max() <= max(high, 8 / 200)
        assert place[batch].min() >= low - 1e-9
    assert place[order.step(steps - 1)].max() > 0.7


def test_buckets_show_every_row_as_often_as_every_other() -> None:
    train = rows({"a": 400})
    order = order_of(stage(curriculum={"type": "buckets", "difficulty": "hard"}, global_batch_size=10), train, 80, [0])
    counts = Counter(i for step in range(80) for i in order.step(step))
    assert set(counts.values()) == {2}
    assert len(counts) == 400


def test_a_bucket_that_is_smaller_than_a_step_takes_in_its_neighbours() -> None:
    train = rows({"a": 20})
    order = order_of(stage(curriculum={"type": "buckets", "difficulty": "hard"}, global_batch_size=8), train, 12, [0])
    assert all(len(set(order.step(step))) == 8 for step in range(12))


def test_the_order_has_no_memory_and_hangs_on_the_seed() -> None:
    plan = stage(mixture={"a": 2, "b": 1}, curriculum={"type": "competence", "difficulty": "hard"})
    train = rows({"a": 300, "b": 90})
    one, two = (order_of(plan, train, 150, (3, 0)) for _ in range(2))
    forward = [one.step(i) for i in range(150)]
    assert [two.step(i) for i in reversed(range(150))] == forward[::-1]
    for seed in ((4, 0), (3, 1)):
        other = order_of(plan, train, 150, seed)
        assert forward != [other.step(i) for i in range(150)]


def test_equally_difficult_rows_come_in_a_random_order() -> None:
    features = [Feature(f"s{i}", 1, {}, Sample(f"s{i}", {}, None, {"hard": i // 200})) for i in range(400)]
    plan = stage(curriculum={"type": "by_stage", "difficulty": "hard"}, global_batch_size=10)
    first = order_of(plan, Encoded(features), 40, [0]).step(0)
    assert max(first) < 200
    assert max(first) > 100  # not the source's first hundred


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mixture": {"basic": 1}}, "a part without a weight"),
        ({"mixture": {"basic": 1, "other": 1, "none": 1}}, "have no rows: none"),
        ({"mixture": {"by": "topic", "weights": {"basic": 1}}}, "no such column"),
        ({"mixture": {"basic": 0, "other": 0}}, "all weights of the mixture are zero"),
        ({"mixture": {"basic": {"type": "linear", "start": 1, "end": -1}, "other": 1}}, "negative"),
        ({"curriculum": {"type": "competence", "difficulty": "luck"}}, "no `luck`"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        order_of(stage(**fields), rows({"basic": 20, "other": 20}), 10, [0])


def test_a_task_that_keeps_no_samples_cannot_be_mixed() -> None:
    with pytest.raises(TrainingError, match="keeps no samples"):
        order_of(stage(mixture="20:5:1"), Encoded([Feature("a", 1, {})]), 10, [0])


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        ("20:5", "three numbers"),
        (72301, "in quotes"),
        ({}, "at least 1"),
        ({"a": {"type": "plateau", "start": 1}}, "hangs on validations"),
        ({"weights": {"a": 1}, "bye": "x"}, "did you mean 'by'"),
    ],
)
def test_mixtures_that_are_none_are_refused(mixture: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stage(mixture=mixture)


def test_a_mixture_is_resolved_to_one_form() -> None:
    plan = stage(mixture="20:5:1")
    assert plan == stage(mixture={"basic": 20, "specialised": 5, "adversarial": 1})
    dumped = plan.model_dump(mode="json")
    assert dumped["mixture"]["by"] == "stage"
    assert Stage(**dumped) == plan


def test_a_million_rows_are_ordered_quickly() -> None:
    lengths = np.arange(1_000_000) % 97 + 1
    order = Order(lengths, 256, 4000, [0], True)
    assert len(set(order.step(3000))) == 256
