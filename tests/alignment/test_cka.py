"""CKA against a second form of it, on independent features, as a map of layers, and batch by batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from limbeck.alignment.cka import StreamingCKA, cka_map, linear_cka, u_centred
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
def test_cka_is_of_means_over_different_samples(n: int, d: int, e: int) -> None:
    x, y = normal(n, d), normal(n, e, seed=1)
    y[:, 0] += x[:, 0]
    wanted = naive_hsic(x, y) / (naive_hsic(x, x) * naive_hsic(y, y)).sqrt()
    assert abs(linear_cka(x, y) - wanted) < 1e-10


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


def layers(n: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Layers of two models, of other widths, partly alike, far from zero."""
    xs = [normal(n, 5, seed=seed) + 30, normal(n, 40, seed=seed + 1)]
    return xs, [normal(n, 3, seed=seed + 2), xs[0][:, :3] + normal(n, 3, seed=seed + 3), xs[1] @ normal(40, 7)]


@pytest.mark.parametrize("rows", [1, 5, 23])
def test_the_map_is_that_of_the_written_out_form_whatever_the_blocks(rows: int) -> None:
    xs, ys = layers(23)
    found = cka_map(xs, ys, block_bytes=8 * 23 * 5 * rows)
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            wanted = naive_hsic(x, y) / (naive_hsic(x, x) * naive_hsic(y, y)).sqrt()
            assert abs(found[i, j] - wanted) < 1e-9
            assert abs(found[i, j] - linear_cka(x, y)) < 1e-9


@pytest.mark.parametrize("size", [1, 4, 7, 23])
def test_batch_by_batch_is_the_whole(size: int) -> None:
    xs, ys = layers(23)
    stream = StreamingCKA()
    for at in torch.arange(23).split(size):
        stream.update([x[at] for x in xs], [y[at] for y in ys])
    torch.testing.assert_close(stream.value(), cka_map(xs, ys), rtol=0, atol=1e-12)


def test_independent_layers_are_not_alike_at_32_samples() -> None:
    found = cka_map(list(normal(8, 32, 512)), list(normal(8, 32, 256, seed=1)))
    assert found.abs().max() < 0.2
    assert abs(found.mean()) < 0.02


def test_a_layer_that_sees_all_alike_is_like_nothing() -> None:
    same = torch.full((9, 3), 0.1, dtype=torch.float64)
    assert (cka_map([same, normal(9, 3)], [normal(9, 3)]) == torch.tensor([[0.0], [1.0]])).tolist()[0] == [True]
    with pytest.raises(DataError, match="3 and 3 samples"):
        cka_map([normal(3, 2)], [normal(3, 2)])


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
