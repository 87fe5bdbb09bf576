from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import DataError
from limbeck.data.draw import hold_out, subsample

SEEDS = st.integers(0, 2**40)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=60), st.floats(0.01, 0.99), SEEDS)
def test_hold_out_parts_the_rows(groups, share, seed):
    drawn = hold_out(len(groups), share, seed=seed, groups=groups)
    assert sorted(drawn.kept + drawn.held) == list(range(len(groups)))
    assert drawn.kept == sorted(drawn.kept)
    assert drawn.held == sorted(drawn.held)
    assert drawn.kept
    sizes = Counter(groups)
    assert drawn.stratified == (min(sizes.values()) > 1)
    wanted = min(max(int(share * len(groups) + 0.5), 1), len(groups) - 1)
    held = Counter(groups[i] for i in drawn.held)
    if drawn.stratified:
        # One row of each class stays, so a large share may not be reached.
        assert len(drawn.held) <= wanted
        assert len(drawn.held) == wanted or 2 * wanted > len(groups)
        for name, size in sizes.items():
            assert held[name] < size
            assert held[name] <= size * wanted / len(groups) + 1
            assert held[name] > size * wanted / len(groups) - 1
    else:
        assert len(drawn.held) == wanted
    assert hold_out(len(groups), share, seed=seed, groups=groups) == drawn


@settings(deadline=None)
@given(st.integers(1, 60), SEEDS, st.data())
def test_subsamples_are_nested_and_ordered(count, seed, data):
    places = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    draws = [subsample(places, size, count=count, seed=seed) for size in range(1, len(places) + 2)]
    for size, (smaller, larger) in enumerate(pairwise(draws), 1):
        assert len(smaller) == size
        assert set(smaller) <= set(larger) <= set(places)
        assert larger == sorted(larger)
    assert draws[-1] == places


def test_draws_hang_on_the_seed_and_are_the_same_on_every_machine():
    assert hold_out(20, 0.25, seed=0).held == [2, 3, 11, 13, 15]
    assert subsample(range(20), 5, count=20, seed=0) == [4, 7, 10, 11, 18]
    assert hold_out(200, 0.5, seed=0) != hold_out(200, 0.5, seed=1)
    assert subsample(range(200), 50, count=200, seed=0) != subsample(range(200), 50, count=200, seed=1)


def test_the_two_draws_do_not_hang_together():
    held, kept = hold_out(10_000, 0.5, seed=3).held, subsample(range(10_000), 5_000, count=10_000, seed=3)
    assert abs(len(set(held) & set(kept)) - 2_500) < 250


def test_what_cannot_be_drawn():
    with pytest.raises(DataError, match="one row cannot be parted"):
        hold_out(1, 0.5, seed=0)
    with pytest.raises(DataError, match=r"data\.seed is negative"):
        subsample([0, 1], 1, count=2, seed=-1)
