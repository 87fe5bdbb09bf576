"""The matrix products of the pass, laid out so that few rows at a time cost little more than all at once.

Shapes: N rows, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

TILE_BYTES = 2**20
"""Part of a head that is multiplied at a time: with few rows, BLAS is faster when it stays in the cache."""


def tile_rows(weight_VD: Tensor, work: torch.dtype) -> int:
    """How many rows of a head are multiplied at a time."""
    if weight_VD.device.type != "cpu":
        return max(1, len(weight_VD))
    return max(1, min(len(weight_VD), max(64, TILE_BYTES // max(1, weight_VD.shape[1] * work.itemsize))))


def product(part_ND: Tensor, head_VD: Tensor, bias_V: Tensor | None, out_NV: Tensor) -> Tensor:
    """part @ head.T + bias, written to `out_NV`."""
    # oneDNN, which multiplies bfloat16, gains nothing from tiles.
    step = 2 * tile_rows(head_VD, head_VD.dtype) if head_VD.dtype.itemsize > 2 else max(1, len(head_VD))
    for start in range(0, len(head_VD), step):
        tile = slice(start, start + step)
        if bias_V is None:
            torch.mm(part_ND, head_VD[tile].T, out=out_NV[:, tile])
        else:
            torch.addmm(bias_V[tile], part_ND, head_VD[tile].T, out=out_NV[:, tile])
    return out_NV


class HeadGradient:
    """The gradient of the head's matrix, added up over chunks in at least float32 and handed out once.

    Where products are taken in the same type, they are added in place. In half precision each tile's product is made
    apart and added in float32; the float32 tiles are freed one after the other while the result is written.

    Args:
        weight_VD: the matrix.
        work: the type that products are taken in.
        exact: the type that they are added up in.
    """

    free_bytes = 40 * 2**20
    """Size of a float32 tile that is freed alone: above 32 MiB an allocator gives it back to the system at once."""

    def __init__(self, weight_VD: Tensor, work: torch.dtype, exact: torch.dtype):
        self.shape, self.dtype, self.work, self.exact = weight_VD.shape, weight_VD.dtype, work, exact
        self.device, self.started = weight_VD.device, False
        self.step = tile_rows(weight_VD, work) if work != exact else max(1, len(weight_VD))
        rows, width = weight_VD.shape
        if weight_VD.dtype == exact:
            whole = torch.empty_like(weight_VD, memory_format=torch.contiguous_format)
            self.tiles, self.apart = [whole], max(1, rows)
            self.whole: Tensor | None = whole
        else:
            self.apart = max(self.step, self.free_bytes // max(1, width * exact.itemsize) // self.step * self.step)
            sizes = [min(self.apart, rows - start) for start in range(0, rows, self.apart)]
            self.tiles = [torch.empty(size, width, dtype=exact, device=self.device) for size in sizes]
            self.whole = None

    def add(self, dlogits_NV: Tensor, part_ND: Tensor) -> None:
        """Add dlogits.T @ part."""
        if self.work == self.exact:
            for tile_VD, slopes_VN in self._pieces(dlogits_NV):
                if self.started:
                    tile_VD.addmm_(slopes_VN, part_ND)
                else:
                    torch.mm(slopes_VN, part_ND, out=tile_VD)
        else:
            product_VD = torch.empty(self.step, self.shape[1], dtype=self.work, device=self.device)
            exact_VD = torch.empty_like(product_VD, dtype=self.exact)
            for tile_VD, slopes_VN in self._pieces(dlogits_NV):
                rows = slice(0, len(tile_VD))
                torch.mm(slopes_VN, part_ND, out=product_VD[rows])
                if self.started:  # a cast apart is faster than a sum of two types
                    tile_VD.add_(exact_VD[rows].copy_(product_VD[rows]))
                else:
                    tile_VD.copy_(product_VD[rows])
        self.started = True

    def _pieces(self, dlogits_NV: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of the gradient, and the columns that they belong to."""
        first = 0
        for tile_VD in self.tiles:
            for piece_VD in tile_VD.split(self.step):
                yield piece_VD, dlogits_NV[:, first : first + len(piece_VD)].T
                first += len(piece_VD)

    def handed_out(self, factor: Tensor) -> Tensor:
        """The gradient times a factor, in the matrix's own type; nothing is kept here."""
        if not self.started:
            self.tiles, self.whole = [], None
            return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        if self.whole is not None:
            whole, self.whole, self.tiles = self.whole, None, []
            return whole.mul_(factor)
        result = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        start = 0
        while self.tiles:
            tile_VD = self.tiles.pop(0).mul_(factor)
            result[start : start + len(tile_VD)] = tile_VD
            start += len(tile_VD)
        return result
