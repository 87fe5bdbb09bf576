"""ONNX Runtime behind the runner's face: checked inputs, checked files, the same figures as numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import ModelError
from limbeck.runtime._base import Tensors

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from limbeck.runtime.onnx_runner import OnnxRunner, check_weights_inside  # noqa: E402

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


def external(location: str) -> Any:
    """A weight that lies in a file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", str(WEIGHT.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def product(path: Path, weight: Any = None) -> Path:
    """`logits = x @ w` with rows of any number."""
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    weight = numpy_helper.from_array(WEIGHT, "w") if weight is None else weight
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["logits"])], "g", [rows], [out], [weight])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )
    return path


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype=np.float32)


def test_it_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    runner = OnnxRunner(product(tmp_path / "model.onnx"), threads=1, device="cpu")
    assert runner.inputs == {"x": Tensors("float32", (None, 3))}
    assert runner.outputs == {"logits": Tensors("float32", (None, 2))}
    for rows in (1, 4):
        given = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
        found = runner.run({"x": given, "left aside": given})["logits"]
        np.testing.assert_allclose(found, given @ WEIGHT, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": ones(1, 3)}, "`x` is missing"),
        ({"x": ones(1, 3).astype(np.float64)}, "float64 (1, 3)"),
        ({"x": ones(1, 4)}, "float32 of shape (any, 3)"),
        ({"x": ones(3)}, "float32 (3,)"),
        ({"x": ones(0, 3)}, "float32 (0, 3)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    runner = OnnxRunner(product(tmp_path / "model.onnx"), threads=1)
    with pytest.raises(ModelError) as refused:
        runner.run(given)
    assert said in str(refused.value)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "link.bin", ""])
def test_weights_from_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "a").mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside of its folder"):
        OnnxRunner(product(inside / "model.onnx", external(location)), threads=1)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    runner = OnnxRunner(product(tmp_path / "model.onnx", external("w.bin")), threads=1)
    np.testing.assert_allclose(runner.run({"x": ones(2, 3)})["logits"], ones(2, 3) @ WEIGHT)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match="not there"):
        check_weights_inside(tmp_path / "model.onnx")


def test_weights_in_a_graph_within_a_graph_are_seen(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external("../secret.bin"))
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [3, 2])])
    node = helper.make_node("If", ["flag"], ["logits"], then_branch=branch, else_branch=branch)
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [3, 2])
    model = helper.make_model(helper.make_graph([node], "g", [flag], [out]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"outside of its folder"):
        check_weights_inside(tmp_path / "model.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="no ONNX file"):
        OnnxRunner(path)
    whole = product(path).read_bytes()
    path.write_bytes(whole[: len(whole) - 9])
    with pytest.raises(ModelError):
        OnnxRunner(path)


def test_cuda_where_there_is_none_is_refused(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime knows CUDA")
    with pytest.raises(ModelError, match="knows no CUDA"):
        OnnxRunner(product(tmp_path / "model.onnx"), device="cuda")
