"""CKA against a second form of it, on independent features, and batch by batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.alignment.cka import StreamingCKA, hsic, linear_cka, u_centred
from limbeck.core.errors import DataError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_hsic(x: Tensor, y: Tensor) -> Tensor:
    """HSIC_1 as a mean over different samples i, j, k, l: what it estimates, written out."""
    k, m, n = x @ x.T, y @ y.T, len(x)
    k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
    pairs = (k * m).sum() / (n * (n - 1))
    rows = k.sum(1) * m.sum(1)
    triples = (rows.sum() - (k * m).sum()) / (n * (n - 1) * (n - 2))
    # k_ij m_kl with all four different: all of them, less those that share one or two samples.
    quadruples = (k.sum() * m.sum() - 4 * rows.sum() + 2 * (k * m).sum()) / (n * (n - 1) * (n - 2) * (n - 3))
    return pairs + quadruples - 2 * triples


def biased_cka(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(0), y - y.mean(0)
    return (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


@pytest.mark.parametrize(("n", "d", "e"), [(4, 2, 3), (9, 5, 1), (32, 40, 7)])
def test_hsic_is_the_mean_over_different_samples(n: int, d: int, e: int) -> None:
    x, y = normal(n, d), normal(n, e, seed=1)
    torch.testing.assert_close(hsic(x, y), naive_hsic(x, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("moved", [0.0, 100.0])
def test_float32_is_close_to_float64(moved: float) -> None:
    """Features far from zero are no harder, because they are centred first."""
    x, y = normal(64, 30) + moved, normal(64, 20, seed=1) + moved
    y[:, :10] += x[:, :10] - moved
    wanted = naive_hsic(x, y) / (naive_hsic(x, x) * naive_hsic(y, y)).sqrt()
    assert abs(linear_cka(x, y) - wanted) < 1e-6
    assert abs(linear_cka(x.float(), y.float()) - wanted) < 1e-5


def test_independent_features_are_not_alike() -> None:
    """At 32 samples and width 512 the biased form sees likeness where there is none."""
    found = normal(20, 2, 32, 512)
    unbiased = torch.stack([linear_cka(x, y) for x, y in found])
    biased = torch.stack([biased_cka(x, y) for x, y in found])
    assert abs(unbiased.mean()) < 0.04
    assert unbiased.abs().max() < 0.2
    assert biased.min() > 0.9


def test_turning_moving_and_scaling_change_nothing() -> None:
    x, y = normal(12, 6), normal(12, 5, seed=1) + normal(12, 6)[:, :5]
    turn = torch.linalg.qr(normal(6, 6, seed=2)).Q
    torch.testing.assert_close(linear_cka(3 * x @ turn + 7, y), linear_cka(x, y))
    torch.testing.assert_close(linear_cka(x, x), torch.ones((), dtype=torch.float64))
    assert linear_cka(x, y) < 0.99


def test_rows_of_the_centred_matrix_sum_to_zero() -> None:
    centred = u_centred(normal(7, 3) + 5)
    assert centred.sum(1).abs().max() < 1e-12
    assert (centred.diagonal() == 0).all()


def test_streaming_is_the_ratio_of_sums() -> None:
    x, y = normal(40, 8), normal(40, 6, seed=1) + normal(40, 8)[:, :6]
    stream, sums = StreamingCKA(), torch.zeros(3, dtype=torch.float64)
    for a, b in zip(x.split(10), y.split(10), strict=True):
        stream.update(a.float(), b.float())
        sums += torch.stack([naive_hsic(a, b), naive_hsic(a, a), naive_hsic(b, b)])
    assert stream.batches == 4
    assert abs(stream.value() - sums[0] / (sums[1] * sums[2]).sqrt()) < 1e-6
    one = StreamingCKA()
    one.update(x, y)
    assert abs(one.value() - linear_cka(x, y)) < 1e-12


def test_streaming_over_small_batches_comes_to_the_whole() -> None:
    """The unbiased form is about the same from batches of 8 as from all at once; the biased one would not be."""
    x = normal(1000, 64)
    y = x[:, :32] + normal(1000, 32, seed=1)
    stream = StreamingCKA()
    for a, b in zip(x.split(8), y.split(8), strict=True):
        stream.update(a, b)
    assert abs(stream.value() - linear_cka(x, y)) < 0.02
    assert biased_cka(x[:8], y[:8]) > linear_cka(x, y) + 0.1


def test_what_does_not_vary_is_like_nothing() -> None:
    x, same = normal(6, 3).requires_grad_(), torch.ones(6, 2, dtype=torch.float64, requires_grad=True)
    value = linear_cka(x, same)
    assert value == 0
    gradients = torch.autograd.grad(value, [x, same])
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 6)])
def test_too_few_or_unequal(n: int, m: int) -> None:
    with pytest.raises(DataError, match=f"{n} and {m} samples"):
        linear_cka(normal(n, 2), normal(m, 2))
    with pytest.raises(DataError, match="no batch"):
        StreamingCKA().value()
