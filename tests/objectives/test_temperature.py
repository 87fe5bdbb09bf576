"""Temperatures: what each one is for a row, and what is learned of it.

Shapes: N rows, V classes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.parts import build, config_of, names
from limbeck.core.types import Dense, Head
from limbeck.objectives import Chunk, distribution_loss
from limbeck.objectives.distribution.kl import KL
from limbeck.objectives.temperature import Learned, LearnedTemperature, PerSample, Temperature, per_row

N, V, D = 6, 5, 3
LABELS = torch.arange(N) % V


def draw(*shape: int, seed: int = 0, size: float = 1.0) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chunk(**more: Any) -> Chunk:
    return Chunk(draw(N, V), LABELS, draw(N, V, seed=1, size=3), **more)


def temperature(config: Any) -> Temperature:
    found = build("temperature", config)
    assert isinstance(found, Temperature)
    return found


def test_a_number_is_a_fixed_temperature() -> None:
    assert KL(temperature=2).temperature.at(chunk(), "kl") == 2.0
    assert KL().temperature.at(chunk(), "kl") == 1.0
    assert set(names("temperature")) == {"fixed", "scheduled", "per_sample", "learned"}


@pytest.mark.parametrize("config", [{"type": name} for name in ("per_sample", "learned")] + [4])
def test_a_written_temperature_reads_back(config: Any) -> None:
    term = build("objective", {"type": "kl", "temperature": config})
    assert build("objective", config_of(term)) == term


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 4.0), (0.5, 2.5), (1.0, 1.0)])
def test_scheduled(progress: float, expected: float) -> None:
    falling = temperature({"type": "scheduled", "value": {"type": "linear", "start": 4, "end": 1}})
    assert falling.at(chunk(progress=progress), "kl") == expected


@pytest.mark.parametrize("of", ["teacher", "student"])
@pytest.mark.parametrize("by", ["std", "max"])
def test_per_sample_follows_the_spread_of_the_logits(of: str, by: str) -> None:
    given = chunk()
    logits = given.teacher_NU if of == "teacher" else given.logits_NV
    assert logits is not None
    found = PerSample(factor=1.5, by=by, of=of, low=0.01, high=100).at(given, "kl")
    rows = [
        math.sqrt(sum((x - sum(row) / V) ** 2 for x in row) / V) if by == "std" else max(row) - sum(row) / V
        for row in logits.tolist()
    ]
    torch.testing.assert_close(found, 1.5 * torch.tensor(rows, dtype=torch.float64)[:, None])


def test_per_sample_stays_between_its_bounds() -> None:
    found = PerSample(factor=1.0, low=2.0, high=2.5).at(chunk(), "kl")
    assert found.min() >= 2.0
    assert found.max() <= 2.5
    assert len(found.unique()) > 1


def test_a_sure_teacher_is_softened_more() -> None:
    sure = Chunk(draw(N, V), LABELS, 10 * draw(N, V, seed=1))
    unsure = Chunk(draw(N, V), LABELS, 2 * draw(N, V, seed=1))
    by_spread = PerSample(low=0.01, high=100)
    assert (by_spread.at(sure, "kl") > by_spread.at(unsure, "kl")).all()
    softened = [c.teacher(by_spread.at(c, "kl")) for c in (sure, unsure)]
    torch.testing.assert_close(*softened)  # of logits that differ by a factor, the same is left


def test_per_sample_carries_no_gradient() -> None:
    logits = draw(N, V).requires_grad_()
    found = PerSample(of="student").at(Chunk(logits, LABELS, draw(N, V, seed=1)), "kl")
    assert not found.requires_grad


def test_per_sample_shares_one_temperature_between_both_models() -> None:
    """Row by row the same as a fixed temperature of that row's value."""
    given, by_spread = chunk(), PerSample(low=0.01, high=100)
    together = KL(temperature=by_spread).rows(given)
    for row, value in enumerate(by_spread.at(given, "kl").flatten().tolist()):
        torch.testing.assert_close(together[row], KL(temperature=value).rows(chunk())[row])


def test_only_per_sample_needs_all_classes() -> None:
    need = {name: KL(temperature=_any(name)).needs_all_classes for name in names("temperature")}
    assert need == {"fixed": False, "scheduled": False, "per_sample": True, "learned": False}


def _any(name: str) -> Any:
    return {"type": name, **({"value": 2} if name in ("fixed", "scheduled") else {})}


def test_per_row_is_a_factor_of_values() -> None:
    assert per_row(2.0) == 2.0
    assert per_row(torch.tensor(3.0)).shape == ()
    assert per_row(torch.ones(N, 1)).shape == (N,)


# Learned.


def started(**more: Any) -> LearnedTemperature:
    made = Learned(**more).module()
    return made.double()


def test_only_learned_has_a_module() -> None:
    assert [name for name in names("temperature") if temperature(_any(name)).module() is not None] == ["learned"]


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_learned_starts_where_it_is_told(speed: float) -> None:
    assert started(low=1, high=21, initial=4, speed=speed)(0.5).item() == pytest.approx(4.0)


def test_learned_is_bounded() -> None:
    module = started(low=1, high=5, initial=2)
    for far, bound in ((-1e4, 1.0), (1e4, 5.0)):
        torch.nn.init.constant_(module.theta, far)
        assert module(1.0).item() == bound


def test_the_gradient_is_reversed_by_lambda() -> None:
    """Half a cosine from 0 to 1 over the first `rise` of the stage."""
    slopes = []
    for progress in (0.0, 0.1, 0.2, 1.0):
        module = started(rise=0.2, speed=1.0)
        module(progress).backward()
        assert module.theta.grad is not None
        slopes.append(module.theta.grad.item())
    share = torch.sigmoid(started(speed=1.0).theta).item()
    true = 20 * share * (1 - share)
    assert slopes == pytest.approx([0.0, -0.5 * true, -true, -true])


def test_speed_is_that_of_theta() -> None:
    """A step of plain gradient descent moves the temperature's own number `speed` times as far."""
    moved = []
    for speed in (1.0, 4.0):
        module = started(speed=speed, rise=0)
        module(1.0).backward()
        assert module.theta.grad is not None
        moved.append((speed * 1e-3 * module.theta.grad).item())
    assert moved[1] == pytest.approx(4 * moved[0])


def loss_at(value: Tensor, told: str = "dense", **more: Any) -> Tensor:
    weight, teacher = draw(V, D, seed=2), draw(V, D, seed=3, size=3)
    student = Head(draw(N, D, seed=4), weight)
    given = Dense(draw(N, D, seed=5) @ teacher.T) if told == "dense" else Head(draw(N, D, seed=5), teacher)
    term = KL(temperature=Learned(initial=4), name="soft")
    return distribution_loss(student, given, LABELS, [term], [1.0], learned={"soft": value}, **more)[0]


@pytest.mark.parametrize("chunk_bytes", [8 * V * 2, 2**20])
def test_the_pass_hands_the_temperature_its_gradient(chunk_bytes: int) -> None:
    value = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: loss_at(t, chunk_bytes=chunk_bytes), [value])


def test_the_pass_equals_a_fixed_temperature() -> None:
    value = torch.tensor(4.0, dtype=torch.float64)
    weight, teacher = draw(V, D, seed=2), draw(V, D, seed=3, size=3)
    fixed, _ = distribution_loss(
        Head(draw(N, D, seed=4), weight),
        Dense(draw(N, D, seed=5) @ teacher.T),
        LABELS,
        [KL(temperature=4, name="soft")],
        [1.0],
    )
    torch.testing.assert_close(loss_at(value), fixed)


def test_learning_moves_the_temperature_to_where_the_loss_is_higher() -> None:
    module = started(initial=4, rise=0, speed=10)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    seen = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_at(module(1.0)) / N
        loss.backward()
        optimizer.step()
        seen.append((module(1.0).item(), loss.item()))
    (first, low), (last, high) = seen[0], seen[-1]
    assert abs(last - first) > 0.1
    assert high > low
    assert all(b[1] >= a[1] for a, b in pairwise(seen))


def test_nothing_moves_while_lambda_is_zero() -> None:
    module = started(initial=4, rise=1)
    loss_at(module(0.0)).backward()
    assert module.theta.grad is not None
    assert module.theta.grad.item() == 0


def test_a_checkpoint_holds_it() -> None:
    module, other = Learned(initial=4).module(), Learned(initial=7).module()
    other.load_state_dict(module.state_dict())
    assert other(0.0).item() == pytest.approx(4.0)
    assert module.theta.ndim == 1, "sharding strategies refuse parameters without dimensions"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "learned", "initial": 30}, "low < initial < high"),
        ({"type": "per_sample", "low": 3, "high": 2}, "low is above high"),
        (0, "greater than 0"),
        ({"type": "per_sample", "by": "entropy"}, "std"),
    ],
)
def test_wrong_values_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("objective", {"type": "kl", "temperature": config})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"type": "plateau", "start": 4, "factor": 0.5}, "plateau"),
        ({"type": "linear", "start": 4, "end": 0}, "above zero; it is 0"),
        ({"type": "linear", "start": -1, "end": 4}, "above zero; it is -1"),
    ],
)
def test_a_schedule_that_is_no_temperature_is_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build("objective", {"type": "kl", "temperature": {"type": "scheduled", "value": value}})
