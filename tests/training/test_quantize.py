"""Stages that round weights while they learn: gradients, resumption, and what a quantizer makes of the student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnxruntime.capi._pybind_state import quantize_matmul_4bits
from torch import Tensor, nn

from limbeck.compression.int8 import Int8 as Int8Compressor
from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.recipe import Quantize, Training
from limbeck.core.types import Needs
from limbeck.exporters._graph import save
from limbeck.exporters.onnx import graph_of
from limbeck.models.heads import signal
from limbeck.models.quantize import Byte, Int4, Int8, prepare, quantizable, settle
from limbeck.objectives.distribution.kl import KL
from limbeck.runtime.card import Card
from limbeck.teachers.local import LocalTeacher
from limbeck.training.job import Job, StageJob
from limbeck.training.loop import train
from tests.runtime.students import BERT, LABELS, PICTURE, RESNET, TEXT, student
from tests.training.feature_job import bert, feature_job
from tests.training.ragged import make_job

HIDDEN = {"type": "hidden", "match": {"bert.encoder.layer.{0,1}": "bert.encoder.layer.{1,3}"}}
KL2: dict[str, Any] = {"type": "kl", "temperature": 2}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[name]) for name, x in one.items())


@pytest.mark.parametrize(("grid", "step"), [(Int8("channel"), 1 / 127), (Int4(8), 1 / 8), (Byte("tensor"), 2 / 255)])
def test_rounding_is_near_passes_gradients_and_gives_itself_back(grid: Any, step: float) -> None:
    weight = (torch.randn(6, 16, generator=torch.Generator().manual_seed(0))).requires_grad_()

    rounded = grid(weight)
    rounded.sum().backward()

    scale = weight.abs().max() * step
    assert 0 < (rounded - weight).abs().max() <= scale * (1.001 if isinstance(grid, Int4) else 0.501)
    assert weight.grad is not None
    assert torch.isclose(weight.grad, torch.ones(())).float().mean() > 0.9  # clamped ones have none
    assert (grid(rounded.detach()) - rounded).abs().max() < scale * 1e-5
    assert torch.isfinite(grid(torch.zeros(4, 16))).all()


def test_int4_groups_are_those_of_onnx_runtime() -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    rounded = Int4(32)(weight)

    packed, scales = np.zeros((5, 2, 16), dtype=np.uint8), np.zeros(10, dtype=np.float32)
    quantize_matmul_4bits(packed, rounded.T.contiguous().numpy(), scales, np.zeros(5, dtype=np.uint8), 32, 5, 64, True)
    digits = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 2, 32).astype(np.float32) - 8

    np.testing.assert_allclose((digits * scales.reshape(5, 2, 1)).reshape(5, 64), rounded.numpy(), rtol=1e-6)


def test_a_prepared_model_has_the_same_parameters_and_settles_to_a_plain_one() -> None:
    model = feature_job([{"terms": [KL2]}]).student
    before, classes = dict(model.named_parameters()), [type(m) for m in model.modules()]

    prepare(model, Quantize(activations="int8"))
    during = dict(model.named_parameters())
    settled = settle(model)

    assert before.keys() == during.keys()
    assert all(before[name] is x for name, x in during.items())
    assert [type(m) for m in model.modules()] == classes
    assert "bert.encoder.layer.0.attention.self.query" in settled
    assert "bert.embeddings.word_embeddings" in settled


def test_convolutions_are_rounded_too() -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=1, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetForImageClassification(config).eval()
    pixels, classes = torch.randn(2, 1, 16, 16), [type(m) for m in model.modules()]
    plain = model(pixels).logits

    prepare(model, Quantize())
    rounded = model(pixels).logits
    settle(model)

    assert not torch.equal(plain, rounded)
    assert torch.allclose(model(pixels).logits, rounded, atol=1e-5)
    assert [type(m) for m in model.modules()] == classes


def float_and_integer_weights(graph: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every weight that `compress: int8` rounds, what it was and what its integers say."""
    pixels = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    small = graph.with_name("int8.onnx")
    Int8Compressor().compress(graph, small, [{"pixel_values": pixels}])
    before, after = (
        {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer} for path in (graph, small)
    )
    found = []
    for name in (name.removesuffix("_quantized") for name in after if name.endswith("_quantized")):
        integers = after[f"{name}_quantized"].astype(np.int32)
        if integers.ndim > 1:  # a bias is none
            scale = after[f"{name}_scale"]
            centred = integers - after[f"{name}_zero_point"].astype(np.int32).flat[0]
            axes = [axis for axis, size in enumerate(integers.shape) if scale.size in (1, size)]
            said = [np.moveaxis(np.moveaxis(centred, axis, -1) * scale, -1, axis).astype(np.float32) for axis in axes]
            # Which axis the channels are is not said, and a Gemm's weight is turned: what is nearest.
            fitting = [x for each in said for x in (each, each.T) if x.shape == before[name].shape]
            found.append((before[name], min(fitting, key=lambda x: float(np.abs(x - before[name]).max()))))
    return found


def moved(graph: Path) -> list[float]:
    """How far each weight moves, as a share of the layer's largest."""
    pairs = float_and_integer_weights(graph)
    return [float(np.abs(before - after).max() / np.abs(before).max()) for before, after in pairs]


def disturb(graph: Path) -> None:
    """Move all weights a little."""
    model, draw = onnx.load(graph), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            x = onnx.numpy_helper.to_array(tensor)
            other = (x * draw.uniform(0.95, 1.05, x.shape)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(other, tensor.name))
    save(model, graph)


ONE_LAYER = {**BERT, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("task", "config", "layers"), [(TEXT, ONE_LAYER, 11), (PICTURE, RESNET, 7)], ids=["bert", "resnet"]
)
def test_compressing_what_was_settled_changes_no_weight(
    tmp_path: Path, task: dict[str, Any], config: dict[str, Any], layers: int
) -> None:
    """And it does change all of one that was not. Norms after convolutions become parts of their weights meanwhile."""
    student(tmp_path, task, config)
    kind = (
        transformers.AutoModelForImageClassification
        if task is PICTURE
        else transformers.AutoModelForSequenceClassification
    )
    model = kind.from_pretrained(tmp_path)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.2, 2.0)
        nn.init.uniform_(norm.weight, -2.0, 2.0)
    prepare(model, Quantize(activations="int8"))
    assert len(settle(model)) == layers
    model.save_pretrained(tmp_path)
    graph = tmp_path / "model.onnx"
    save(graph_of(tmp_path, Card(task=task, labels=LABELS), 21), graph)

    far = moved(graph)

    assert len(far) == layers
    assert max(far) < 1e-6
    disturb(graph)
    assert min(moved(graph)) > 1e-4


def quantized_job(**plan: Any) -> Job:
    stage = {"terms": [KL2, HIDDEN], "quantize": {"activations": "int8", **plan}, "max_steps": 4, "eval_steps": 2}
    return feature_job([{"terms": [KL2], "max_steps": 1}, stage], save_steps=2)


def test_the_teacher_teaches_the_rounded_student(tmp_path: Path) -> None:
    """The hidden states that terms compare, and those that validation sees, are those of rounded weights."""
    job = quantized_job(weights="int8")
    batch = job.codec.collate(job.stages[0].train.features[:4])
    needs = Needs(dist=True, features=frozenset(["bert.encoder.layer.1"]))
    job.student.eval()
    plain = signal(job.student, batch, needs)
    prepare(job.student, Quantize(activations="int8"))
    rounded = signal(job.student, batch, needs)
    settle(job.student)
    settled = signal(job.student, batch, needs)

    name = "bert.encoder.layer.1"
    assert (plain.features[name] - rounded.features[name]).abs().max() > 1e-4
    assert not torch.equal(rounded.features[name], settled.features[name])  # activations are rounded no more

    done = train(job, tmp_path)

    assert [each["stage"] for each in done] == ["s0", "s1"]
    on_grid = state(job.student)
    prepare(job.student, Quantize())
    settle(job.student)
    for each, weight in job.student.state_dict().items():
        torch.testing.assert_close(weight, on_grid[each], rtol=1e-5, atol=1e-7)


def test_features_of_integers_become_those_of_a_half_precision_teacher(tmp_path: Path) -> None:
    """The teacher is what the student was, in fp16; the student's weights are off by some noise, and in 8 bits."""
    layers = [f"bert.encoder.layer.{i}" for i in (0, 1)]
    needs = Needs(features=frozenset(layers))
    hidden = {"type": "hidden", "distance": "mse", "match": {name: name for name in layers}}
    stage = {"terms": [hidden], "quantize": {}, "max_steps": 10, "learning_rate": 1e-2, "eval_steps": 10}
    job = feature_job([stage])
    job.student = bert(8, 2, 2, job.student.config.vocab_size, 2, hidden_dropout_prob=0.0)
    job.teacher = LocalTeacher(copy.deepcopy(job.student).half())
    with torch.no_grad():
        torch.manual_seed(0)
        for weight in job.student.parameters():
            weight += 0.05 * torch.randn_like(weight)
    batch = job.codec.collate(job.stages[0].train.features)
    wanted = job.teacher.signal(batch, needs).features

    def far(model: transformers.PreTrainedModel) -> float:
        with torch.no_grad():
            found = signal(model.eval(), batch, needs).features
        real = batch.inputs["attention_mask"].bool()
        return sum(float((found[name] - wanted[name].float())[real].square().mean()) for name in layers)

    rounded = copy.deepcopy(job.student)
    prepare(rounded, Quantize())
    settle(rounded)
    train(job, tmp_path)

    assert wanted["bert.encoder.layer.0"].dtype == torch.float16
    assert far(job.student) < far(rounded) / 3
    on_grid = state(job.student)
    prepare(job.student, Quantize())
    settle(job.student)
    for each, weight in job.student.state_dict().items():
        torch.testing.assert_close(weight, on_grid[each], rtol=1e-5, atol=1e-7)


def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantized_job()
    train(whole, tmp_path / "whole")
    killed = quantized_job()
    from limbeck.training import loop

    step, seen = loop.optimizer_step, []

    def dying(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == 4:  # the third of the second stage's, one after a checkpoint
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(killed, tmp_path / "killed")
    monkeypatch.undo()
    again = quantized_job()
    train(again, tmp_path / "killed")

    assert same(state(again.student), state(whole.student))


@pytest.mark.parametrize("plan", [{"weights": "int4", "group_size": 16}, {"weights": "int8", "activations": "int8"}])
def test_a_language_model_with_a_tied_head(tmp_path: Path, plan: dict[str, Any]) -> None:
    job = make_job(8, torch.float32, steps=3)
    stage = job.stages[0].stage.model_copy(update={"quantize": Quantize(**plan), "terms": [KL(temperature=2)]})
    job.stages = [StageJob(stage, job.stages[0].train, job.stages[0].validation)]
    before = state(job.student)
    batch = job.codec.collate(job.stages[0].train.features[:2])
    prepare(job.student, Quantize(**plan))
    head = signal(job.student, batch, Needs(dist=True)).dist.weight  # type: ignore[union-attr]
    assert not torch.equal(head, before["lm_head.weight"]), "the head is multiplied as it will be rounded"
    settle(job.student)

    train(job, tmp_path)

    after = job.student.state_dict()
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    assert job.student.lm_head.weight is job.student.model.embed_tokens.weight
    rows = after["model.layers.0.mlp.up_proj.weight"].reshape(-1, 16)
    if plan["weights"] == "int4":
        assert max(len(row.unique()) for row in rows) <= 16


def test_layers_that_are_kept_stay_as_they_are() -> None:
    model = feature_job([{"terms": [KL2]}]).student

    found = quantizable(model, Quantize(keep=["classifier", "*.attention.*"]))

    assert "classifier" not in found
    assert not any(".attention." in name for name in found)
    with pytest.raises(RecipeError, match="classifer") as error:
        quantizable(model, Quantize(keep=["classifer"]))
    assert "did you mean 'classifier'" in str(error.value)


class Gated(nn.Linear):
    """A product with something of its own behind it, as some architectures have."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def gpt2() -> transformers.PreTrainedModel:
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=32, n_layer=1, n_head=2)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_layers_that_are_not_known_are_named_and_not_left_out_silently(weights: Any) -> None:
    """GPT-2 has its products in a class of its own; a class derived from a linear layer may compute anything."""
    with pytest.raises(ModelError, match=r"transformer\.h\.0\.attn\.c_attn \(Conv1D\)[\s\S]*keep=\['transformer"):
        quantizable(gpt2(), Quantize(weights=weights))
    with pytest.raises(ModelError, match=r"1 \(Gated\)"):
        quantizable(nn.Sequential(nn.Linear(32, 32), Gated(32, 32)), Quantize(weights=weights))

    assert "lm_head" in quantizable(gpt2(), Quantize(weights=weights, keep=["transformer.h"]))


def test_four_bits_leave_tables_and_convolutions_as_they_are() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(4, 8), "conv": nn.Conv2d(1, 2, 3), "product": nn.Linear(32, 2)})

    assert list(quantizable(model, Quantize(weights="int4"))) == ["product"]


def test_one_scale_for_a_convolution_is_lost_in_the_norm_behind_it() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))

    with pytest.raises(RecipeError, match="per_channel=false, 0, 1"):
        quantizable(model, Quantize(per_channel=False))

    assert list(quantizable(nn.Sequential(nn.Conv2d(2, 4, 3)), Quantize(per_channel=False))) == ["0"]
    assert list(quantizable(model, Quantize())) == ["0"]


def test_groups_have_to_divide_rows(tmp_path: Path) -> None:
    job = feature_job([{"terms": [KL2], "quantize": {"weights": "int4"}}])

    with pytest.raises(RecipeError, match="group_size does not divide"):
        train(job, tmp_path)


def test_rounding_and_less_precision_go_together(tmp_path: Path) -> None:
    job = quantized_job()
    job.training = Training(precision="bf16")

    train(job, tmp_path)

    assert all(torch.isfinite(x).all() for x in job.student.state_dict().values())
