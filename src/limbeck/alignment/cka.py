"""Linear CKA, unbiased: how alike two models see the same samples, whatever their widths.

    CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)),   K = X X^T, L = Y Y^T

HSIC is the unbiased estimate HSIC_1. With A the U-centred form of K (zero diagonal; its row and column means taken
out so that every row sums to zero), HSIC_1(K, L) = sum_ij A_ij B_ij / (n (n - 3)). The biased one finds likeness in
independent features as soon as their width is not small beside the number of samples.

Shapes: n samples, D and E widths; L sets of features, of which X and Y are compared; b samples of a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.core.errors import DataError

LEAST = 4
"""Samples that the unbiased estimate needs."""
BLOCK_BYTES = 64 * 2**20
"""Memory of the Gram matrices' rows that `cka_map` works on at once."""


def u_centred(features_nD: Tensor) -> Tensor:
    """The U-centred Gram matrix of features, [n, n]: zero diagonal, every row sums to zero.

    Args:
        features_nD: at least `LEAST` samples.
    """
    n = len(features_nD)
    centred_nD = features_nD - features_nD.mean(0)  # changes nothing but the rounding
    gram_nn = centred_nD @ centred_nD.T
    off = ~torch.eye(n, dtype=torch.bool, device=gram_nn.device)
    gram_nn = gram_nn * off
    rows_n = gram_nn.sum(1)
    whole = rows_n.sum() / ((n - 1) * (n - 2))
    return (gram_nn - (rows_n[:, None] + rows_n[None, :]) / (n - 2) + whole) * off


def linear_cka(x_nD: Tensor, y_nE: Tensor) -> Tensor:
    """Unbiased linear CKA of two sets of features, a scalar of at most 1; about 0 for independent ones.

    It does not change when features are turned, moved or scaled. Where a model sees all samples alike it is 0.

    Args:
        x_nD: one model's features of the samples.
        y_nE: the other's, of the same samples.

    Raises:
        DataError: there are fewer than `LEAST` samples, or not as many of one as of the other.

    Reference:
        Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, arXiv:1905.00414;
        Song et al., Feature Selection via Dependence Maximization, 2012, arXiv:0704.2668 (the estimate of HSIC).
    """
    _check(len(x_nD), len(y_nE))
    a_nn, b_nn = u_centred(x_nD), u_centred(y_nE)
    scale = len(a_nn) * (len(a_nn) - 3)  # cancels out, and keeps the sums small in half precision
    return _ratio(*((one * other).sum() / scale for one, other in ((a_nn, b_nn), (a_nn, a_nn), (b_nn, b_nn))))


@torch.no_grad()
def cka_map(xs: Sequence[Tensor], ys: Sequence[Tensor], block_bytes: int = BLOCK_BYTES) -> Tensor:
    """Unbiased linear CKA of each set of features with each of another group, [X, Y], in float64.

    Gram matrices are made a block of rows at a time and never held, n x n: HSIC_1 needs of K and L, without their
    diagonals, the sum of products and the sums of rows k, l alone,

        HSIC_1 = (sum_ij K_ij L_ij + sum k sum l / ((n - 1) (n - 2)) - 2 k.l / (n - 2)) / (n (n - 3)).

    Args:
        xs: one model's features of the samples, each [n, D], of any widths.
        ys: the other's, of the same samples.
        block_bytes: bound on the rows of all Gram matrices that are held at once.

    Raises:
        DataError: there are fewer than `LEAST` samples, or not as many of one as of the other.

    Reference:
        Song et al., 2012, arXiv:0704.2668 (the estimate); Kornblith et al., 2019, arXiv:1905.00414 (the map).
    """
    every = [*xs, *ys]
    for each in every:
        _check(len(every[0]), len(each))
    n, count = len(every[0]), len(every)
    centred = [_centred(each_nD.double()) for each_nD in every]
    products_LL, rows_Ln = centred[0].new_zeros(count, count), centred[0].new_zeros(count, n)
    for at in torch.arange(n, device=rows_Ln.device).split(max(1, block_bytes // (8 * n * count))):
        gram_Lbn = torch.stack([each_nD[at] @ each_nD.T for each_nD in centred])
        gram_Lbn[:, torch.arange(len(at), device=at.device), at] = 0
        rows_Ln[:, at] = gram_Lbn.sum(2)
        products_LL += gram_Lbn.flatten(1) @ gram_Lbn.flatten(1).T
    sums_L = rows_Ln.sum(1)
    hsic_LL = products_LL + torch.outer(sums_L, sums_L) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows_Ln @ rows_Ln.T)
    own_L = hsic_LL.diagonal()
    return _ratio(hsic_LL, own_L[:, None], own_L[None, :])[: len(xs), len(xs) :]


def _centred(features_nD: Tensor) -> Tensor:
    """Features without their mean; zeros where only rounding is left of them."""
    centred_nD = features_nD - features_nD.mean(0)
    return centred_nD * (centred_nD.norm() > 1e-12 * features_nD.norm())


class StreamingCKA:
    """`cka_map` of samples that come a batch at a time; the value is that of all samples at once, in whatever batches.

    Kept are the n x D numbers of each set. Sums over batches that need no samples would be larger: D x E numbers for
    every pair of sets. A mean of the batches' own values would be of other samples: those of a batch are alike, in
    their length for instance.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[Sequence[Tensor]], list[Sequence[Tensor]]] = ([], [])

    def update(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> None:
        """Take in a batch.

        Args:
            xs: one model's features of the batch, each [b, D], of any widths.
            ys: the other's, of the same samples.
        """
        self._kept[0].append(xs)
        self._kept[1].append(ys)

    def value(self) -> Tensor:
        """CKA over all samples so far, [X, Y], in float64.

        Raises:
            DataError: there are fewer than `LEAST` samples, or not as many of one as of the other.
        """
        xs, ys = ([torch.cat(parts) for parts in zip(*kept, strict=True)] for kept in self._kept)
        if not xs:
            raise DataError("CKA is asked for and no batch was taken in")
        return cka_map(xs, ys)


def _check(one: int, other: int) -> None:
    if one != other or one < LEAST:
        raise DataError(
            "CKA cannot be computed on these features",
            got=f"{one} and {other} samples",
            allowed=f"as many of one as of the other, at least {LEAST}",
        )


def _ratio(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    """xy / sqrt(xx yy); 0 with gradient 0 where one of the two has no variance."""
    known = (xx > 0) & (yy > 0)
    one = torch.ones_like(xy)
    roots = torch.where(known, xx, one).sqrt() * torch.where(known, yy, one).sqrt()
    return torch.where(known, xy / roots, xy * 0)
