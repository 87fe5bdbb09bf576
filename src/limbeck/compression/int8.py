"""8-bit integers, by ONNX Runtime.

    w ~ s_c * q,  q in [-127, 127], a scale s_c for each output channel c;   x ~ s_x * (p - z),  p in [0, 255]

A product of rows is then one of integers with sums in 32 bits. `dynamic` finds s_x and z anew for each batch from its
own range, `static` knows them from calibration rows, as convolutions need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from limbeck.compression._base import Compressor
from limbeck.compression._blocks import blockwise
from limbeck.compression._graph import floats_of, has_convolutions, layers_of, read, writes
from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.parts import part
from limbeck.core.patterns import named
from limbeck.core.quiet import quiet
from limbeck.runtime import Arrays


@part
class Int8(Compressor):
    """Weights and activations as 8-bit integers, after training.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2017, arXiv:1712.05877.
    """

    mode: Literal["dynamic", "static", "weight_only"] | None = None
    """How the ranges of activations are known; with `weight_only` each block of 32 has its own, found within the
    product, as weights do. Left out: static for models with convolutions, `weight_only` for language models, else
    dynamic."""
    method: Literal["minmax", "entropy", "percentile"] = "minmax"
    """How a static range is chosen: all values, the least divergence, or without outliers."""
    per_channel: bool = True
    """A scale for each output channel of a weight, rather than one for all."""

    precision: ClassVar[str] = "int8"

    def compress(
        self, source: Path, target: Path, rows: Sequence[Arrays], *, only: str | None = None
    ) -> Mapping[str, Any]:
        try:
            from onnxruntime import quantization
        except ImportError as error:
            raise MissingExtra("8-bit integers", "onnx") from error
        model = read(source)
        usual = "static" if has_convolutions(model) else "weight_only" if writes(model) else "dynamic"
        mode = self.mode or usual
        if mode == "weight_only":
            return {"mode": mode, **blockwise(source, target, 8, _BLOCK, self.keep, only)}
        layers = layers_of(model)
        left = named(self.keep, list(layers), "compress.keep")
        chosen = [only] if only is not None else [name for name in layers if name not in left]
        nodes = [node for name in chosen for node in layers[name].nodes]
        nodes += [f"{node}_MatMul" for node in nodes]  # what the quantizer calls the product within a Gemm
        if not nodes:
            raise ModelError("no layer of the student is left to compress", got=", ".join(left) or "no weights")
        with quiet("root", "onnxruntime.quantization"):
            if mode == "dynamic":
                quantization.quantize_dynamic(
                    model,
                    target,
                    per_channel=self.per_channel,
                    weight_type=quantization.QuantType.QInt8,
                    nodes_to_quantize=nodes,
                    extra_options={"DefaultTensorType": _FLOAT},
                )
            else:
                quantization.quantize_static(
                    model,
                    target,
                    _Rows(rows),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=self.per_channel,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod[_METHODS[self.method]],
                    nodes_to_quantize=nodes,
                )
        still = floats_of(read(target))
        unchanged = [name for name in chosen if layers[name].weights & still]
        if unchanged == chosen and only is None:
            raise ModelError("ONNX Runtime quantizes none of the layers", got=", ".join(chosen[:8]))
        return {"mode": mode, "layers": len(chosen), "kept": sorted(left), "unchanged": unchanged}


_BLOCK = 32
"""Weights that share a scale with `weight_only`."""
_FLOAT = 1
"""ONNX's number of float32: what comes out of operators whose types ONNX does not know, those of language models."""
_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


class _Rows:
    """Batches one after the other, as the quantizer asks for them."""

    def __init__(self, rows: Sequence[Arrays]):
        self.left: Iterator[Arrays] = iter(rows)

    def get_next(self) -> Arrays | None:
        """The next batch, None after the last."""
        return next(self.left, None)
