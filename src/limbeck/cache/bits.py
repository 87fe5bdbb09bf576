"""Rows of (rank, code) pairs as bits: common classes cost little, and numpy reads many samples at once.

The pairs of a row stand in the order of their ranks. Rank r lies in bucket b = floor(log2(r + 1)), which holds 2^b
ranks. Since buckets do not fall within a row, they are written as steps in unary: a zero for every bucket passed, a one
for every pair. What is left of the rank takes b bits, beside it stands the code with a fixed number of bits. Reading
needs no loop over pairs: the ones' places give the buckets, and a running sum of the widths gives all other places.

A sample is `bytes of the unary part (uint32) | pairs of each row (uint8) | unary part | ranks and codes`.

Shapes: S samples, N rows, E pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import ArtifactError

Ints = NDArray[np.int64]
HEAD = 4
"""Bytes before a sample's rows."""
MOST = 255
"""Pairs that a row may have."""
WIDEST = 57
"""Bits of rank and code together that one read of 64 bits reaches from any bit of a byte."""


def buckets_of(ranks: Ints) -> Ints:
    """floor(log2(rank + 1)), exactly."""
    return np.frexp(ranks + 1.0)[1].astype(np.int64) - 1


def pack(ranks_E: Ints, codes_E: Ints, counts_N: Ints, rows_S: Ints, bits: int) -> list[bytes]:
    """Rows as bytes, one string for each sample.

    Args:
        ranks_E: ranks, rising within each row.
        codes_E: what is kept of each, below 2^bits.
        counts_N: pairs of each row, 1 to `MOST`.
        rows_S: rows of each sample.
        bits: width of a code.
    """
    bucket_E = buckets_of(ranks_E)
    first_N = _before(counts_N)
    # Zeros before each pair: its bucket, and the last bucket of every earlier row.
    last_N = np.where(counts_N > 0, bucket_E[np.maximum(first_N + counts_N - 1, 0)], 0) if len(bucket_E) else counts_N
    row_E = np.repeat(np.arange(len(counts_N)), counts_N)
    ones_E = np.arange(len(ranks_E)) + bucket_E + _before(last_N)[row_E]
    values_E = (ranks_E + 1 - (1 << bucket_E)) << bits | codes_E
    end_E = np.cumsum(bucket_E + bits)
    rows_before = np.concatenate([[0], np.cumsum(rows_S)])
    pairs_before = np.concatenate([[0], np.cumsum(counts_N)])[rows_before]
    zeros_before = np.concatenate([[0], np.cumsum(last_N)])[rows_before]
    packed = []
    for s in range(len(rows_S)):
        pairs = slice(pairs_before[s], pairs_before[s + 1])
        unary = np.zeros(pairs.stop - pairs.start + zeros_before[s + 1] - zeros_before[s], dtype=np.uint8)
        unary[ones_E[pairs] - pairs.start - zeros_before[s]] = 1
        steps = np.packbits(unary, bitorder="little").tobytes()
        begin = end_E[pairs.start - 1] if pairs.start else 0
        fields = _fields(values_E[pairs], bucket_E[pairs] + bits, end_E[pairs] - begin)
        counts = counts_N[rows_before[s] : rows_before[s + 1]].astype(np.uint8).tobytes()
        packed.append(np.array([len(steps)], dtype="<u4").tobytes() + counts + steps + fields)
    return packed


def _fields(values: Ints, widths: Ints, ends: Ints) -> bytes:
    """Numbers of their own widths, the lowest bit first."""
    if not len(values):
        return b""
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    starts = ends - widths
    for place in range(int(widths.max())):
        wide = widths > place
        bits[starts[wide] + place] = (values[wide] >> place) & 1
    return np.packbits(bits, bitorder="little").tobytes()


def unpack(
    samples: Sequence[bytes | memoryview], rows_S: Ints, bits: int, where: str = "a recording"
) -> tuple[NDArray[np.int32], NDArray[np.int32], Ints]:
    """Ranks [E], codes [E] and pairs of each row [N] of many samples.

    Raises:
        ArtifactError: the bytes are no rows of this form.
    """
    sizes_S, counts, steps, fields = [], [], [], []
    for data, rows in zip(samples, rows_S.tolist(), strict=True):
        data = memoryview(data)
        size = int.from_bytes(data[:HEAD], "little")
        sizes_S.append((size, len(data) - HEAD - rows - size))
        counts.append(data[HEAD : HEAD + rows])
        steps.append(data[HEAD + rows : HEAD + rows + size])
        fields.append(data[HEAD + rows + size :])
    counts_N = np.frombuffer(b"".join(counts), dtype=np.uint8).astype(np.int64)
    unary = np.unpackbits(np.frombuffer(b"".join(steps), dtype=np.uint8), bitorder="little")
    ones_E = np.flatnonzero(unary.view(bool))
    if len(ones_E) != counts_N.sum():
        raise ArtifactError(f"{where} does not hold what its index says", fix="record it again")
    before_N = _before(counts_N)
    # Zeros that earlier rows and samples have taken.
    sizes = np.array(sizes_S, dtype=np.int64).reshape(-1, 2)
    first_S = _before(rows_S)
    base_N = np.where(before_N > 0, ones_E[np.maximum(before_N - 1, 0)] + 1, 0) if len(ones_E) else before_N
    filled = rows_S > 0
    base_N[first_S[filled]] = 8 * _before(sizes[:, 0])[filled]
    bucket_E = (ones_E - np.repeat(base_N - before_N, counts_N) - np.arange(len(ones_E))).astype(np.int32)
    ends_E = np.cumsum(bucket_E + np.int32(bits), dtype=np.int64)
    pairs_S = np.diff(np.concatenate([[0], np.cumsum(counts_N)])[np.concatenate([[0], np.cumsum(rows_S)])])
    ended = np.concatenate([[0], ends_E])[_before(pairs_S)]
    starts_E = ends_E - bucket_E - bits + np.repeat(8 * _before(sizes[:, 1]) - ended, pairs_S)
    ranks_E, codes_E = _read(b"".join(fields), starts_E, bucket_E, bits)
    return ranks_E, codes_E, counts_N


def _read(
    data: bytes, starts_E: Ints, bucket_E: NDArray[np.int32], bits: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ranks and codes at their places."""
    widest = int(bucket_E.max(initial=0)) + bits
    kind = np.dtype("<u4" if widest <= 25 else "<u8")
    # A number at every byte: overlapping windows, read where they are asked for.
    windows: NDArray[np.uint32] = np.ndarray((len(data),), dtype=kind, buffer=data + bytes(kind.itemsize), strides=(1,))
    found = windows.take(starts_E >> 3) >> (starts_E & 7).astype(kind)
    codes = (found & kind.type((1 << bits) - 1)).astype(np.int32)
    tops = np.left_shift(1, bucket_E, dtype=np.int32)
    ranks = ((found >> kind.type(bits)).astype(np.int32) & (tops - 1)) + (tops - 1)
    return ranks, codes


def _before(counts: Ints) -> Ints:
    """The sum of all counts before each."""
    return np.cumsum(counts) - counts
