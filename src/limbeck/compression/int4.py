"""Weights of four bits, by ONNX Runtime.

w ~ s_b * q,  q in [-8, 7],  a scale s_b for each block b of a channel;   what goes in is rounded to 8 bits there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from limbeck.compression._base import Compressor
from limbeck.compression._blocks import blockwise
from limbeck.core.parts import part
from limbeck.runtime import Arrays


@part
class Int4(Compressor):
    """Weights of products as 4-bit integers in blocks, after training: for language models above all.

    Reference:
        Dettmers and Zettlemoyer, The case for 4-bit precision: k-bit Inference Scaling Laws, 2022, arXiv:2212.09720
        (blocks).
    """

    group_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights of a channel that share a scale."""

    precision: ClassVar[str] = "int4"

    def compress(
        self, source: Path, target: Path, rows: Sequence[Arrays], *, only: str | None = None
    ) -> Mapping[str, Any]:
        return blockwise(source, target, 4, self.group_size, self.keep, only)
