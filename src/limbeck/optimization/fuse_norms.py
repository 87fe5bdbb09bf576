"""ONNX Runtime's own fusions for transformers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.parts import part
from limbeck.core.quiet import quiet
from limbeck.exporters._graph import save
from limbeck.exporters._traced import hushed
from limbeck.optimization._base import OfGraphs, Optimization, Subject

if TYPE_CHECKING:
    import onnx


@part
class FuseNorms(OfGraphs, Optimization):
    """Residual sums merged with the norms behind them, biases with the GELUs behind them, by ONNX Runtime's tool.

    It is `onnxruntime.transformers.optimizer`; attention too where it knows the form.
    """

    def graph(self, model: onnx.ModelProto, subject: Subject) -> onnx.ModelProto:
        from onnxruntime.transformers.optimizer import optimize_model

        with tempfile.TemporaryDirectory() as scratch, hushed(), quiet("root", "onnxruntime", *_LOGGERS):
            path = Path(scratch) / "model.onnx"
            save(model, path)
            made: Any = optimize_model(str(path), model_type="bert", opt_level=0, use_gpu=subject.device.type == "cuda")
            found: onnx.ModelProto = made.model
            return found


_LOGGERS = ("fusion_base", "fusion_utils", "onnx_model", "onnx_model_bert", "onnxruntime.transformers.optimizer")
