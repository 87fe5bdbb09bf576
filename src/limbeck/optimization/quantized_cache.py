"""Keys and values in fewer bits."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from limbeck.core.parts import part
from limbeck.optimization._base import OfWriters, Optimization, Subject
from limbeck.runtime.decoding import Decoding

_PACKAGES = {"quanto": ("optimum.quanto", "optimum-quanto"), "hqq": ("hqq", "hqq")}


@part
class QuantizedCache(OfWriters, Optimization):
    """Keys and values in 8 bits or fewer: less memory for each token, and some time to round them.

    Reference:
        Liu et al., KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, 2024, arXiv:2402.02750.
    """

    backend: Literal["fp8", "quanto", "hqq"] = Field(default="fp8", kw_only=True)
    """transformers' own 8-bit floats; or integers in groups by a package: optimum-quanto, hqq."""
    bits: int | None = Field(default=None, kw_only=True, ge=1, le=8)
    """Of the integers: 2 or 4 by quanto, 1 to 8 by hqq. Left out: 4."""
    residual_length: int | None = Field(default=None, kw_only=True, gt=0)
    """The newest tokens, which stay as they are until so many have come. Left out: 128; fp8 has none."""

    exact: ClassVar[bool] = False

    def refusal(self, subject: Subject) -> str | None:
        if (refused := super().refusal(subject)) is not None:
            return refused
        if self.backend == "fp8":
            return "fp8 takes no bits and no residual_length" if self.bits or self.residual_length else None
        module, package = _PACKAGES[self.backend]
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:  # of the package around it
            found = None
        return None if found else f"{package} is not installed: pip install {package}"

    def decoding(self, now: Decoding) -> Decoding:
        told: dict[str, Any] = {"backend": self.backend}
        if self.bits is not None:
            told["nbits"] = self.bits
        if self.residual_length is not None:
            told["residual_length"] = self.residual_length
        return replace(now, cache="quantized", cache_config=told, room=None, compile=None)
