"""Values of the schedules over a stage."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.core.parts import build
from limbeck.core.schedules import Constant, Cosine, Linear, Step

numbers = st.floats(-1e6, 1e6)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(value=0.3), (0.3, 0.3, 0.3)),
        (Linear(start=0.7, end=0.3), (0.7, 0.5, 0.3)),
        (Linear(start=0, end=-2), (0, -1, -2)),
        (Cosine(start=1, end=0), (1, 0.5, 0)),
        (Cosine(start=-1, end=3), (-1, 1, 3)),
        (Step(boundaries=[0.5], values=[1, 2]), (1, 2, 2)),
        (Step(boundaries=[], values=[4]), (4, 4, 4)),
    ],
)
def test_at_the_start_the_middle_and_the_end(schedule: Constant, values: tuple[float, ...]) -> None:
    assert [schedule(p) for p in (0.0, 0.5, 1.0)] == pytest.approx(values, abs=1e-12)


def test_a_cosine_is_slow_fast_slow() -> None:
    schedule = Cosine(start=0, end=1)
    assert schedule(0.25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    steps = [b - a for a, b in pairwise(schedule(i / 10) for i in range(11))]
    assert steps[0] < steps[2] < steps[4]
    assert steps == pytest.approx(steps[::-1])


@given(start=numbers, end=numbers, progress=shares)
@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_line_and_a_cosine_stay_between_their_ends(
    kind: type[Linear] | type[Cosine], start: float, end: float, progress: float
) -> None:
    slack = 1e-12 * max(abs(start), abs(end))
    assert min(start, end) - slack <= kind(start=start, end=end)(progress) <= max(start, end) + slack


@given(start=numbers, end=numbers, progress=st.tuples(shares, shares))
@pytest.mark.parametrize("kind", [Linear, Cosine])
def test_a_line_and_a_cosine_never_turn(
    kind: type[Linear] | type[Cosine], start: float, end: float, progress: tuple[float, float]
) -> None:
    earlier, later = sorted(progress)
    schedule, slack = kind(start=start, end=end), 1e-9 * max(abs(start), abs(end))
    gain = schedule(later) - schedule(earlier)
    assert gain >= -slack if end >= start else gain <= slack


def test_a_step_jumps_at_its_boundary_and_not_before() -> None:
    schedule = Step(boundaries=[0.25, 0.75], values=[1, 2, 3])
    assert [schedule(p) for p in (0, 0.2499999, 0.25, 0.7499999, 0.75, 1)] == [1, 1, 2, 2, 3, 3]


@given(st.lists(st.floats(0.001, 0.999), unique=True, max_size=6), shares)
def test_a_step_takes_the_value_of_its_stretch(boundaries: list[float], progress: float) -> None:
    boundaries = sorted(boundaries)
    schedule = Step(boundaries=boundaries, values=[float(i) for i in range(len(boundaries) + 1)])
    assert schedule(progress) == len([b for b in boundaries if b <= progress])


@pytest.mark.parametrize(
    ("boundaries", "values", "said"),
    [
        ([0.5], [1], "1 boundaries need 2 values"),
        ([0.5], [1, 2, 3], "1 boundaries need 2 values"),
        ([0.6, 0.5], [1, 2, 3], "boundaries must rise"),
        ([0.5, 0.5], [1, 2, 3], "boundaries must rise"),
        ([0.0], [1, 2], "greater than 0"),
        ([1.0], [1, 2], "less than 1"),
        ([0.5], [1, math.nan], "finite"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused(boundaries: list[float], values: list[float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Step(boundaries=boundaries, values=values)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_only_finite_values(value: float) -> None:
    for fields in ({"type": "constant", "value": value}, {"type": "linear", "start": 0, "end": value}):
        with pytest.raises(ValidationError, match="finite"):
            build("schedule", fields)


@pytest.mark.parametrize("value", [0, 1, 0.5, -3, 1e-5])
def test_a_bare_number_is_a_constant(value: float) -> None:
    assert build("schedule", value) == Constant(value=value)
