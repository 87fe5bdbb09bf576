"""Packed rows: loss and gradients of one sample a row, to the last digits, and what cannot be packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.recipe import Gate, Stage
from limbeck.core.types import IGNORE, Batch, Needs, Signal
from limbeck.evaluation.predict import likelihood
from limbeck.models.heads import check_head, signal
from limbeck.models.packed import check_packed
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.distribution.kl import KL
from limbeck.objectives.features.hidden import Hidden
from limbeck.tasks._paired import PairedCodec
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from limbeck.tasks.structured_reasoning import StructuredReasoning
from limbeck.teachers.local import LocalTeacher
from limbeck.teachers.remembering import RememberingTeacher
from limbeck.training.loop import train
from limbeck.training.step import count_units
from tests.training.ragged import losses, make_job, samples

ACCELERATOR = SimpleNamespace(reduce=lambda value, how: value)


@pytest.fixture(scope="module")
def plain() -> Any:
    return make_job(4, torch.float64).codec.processor


def pair(tokenizer: Any, capacity: int = 100) -> tuple[CausalCodec, CausalCodec]:
    """The same task, one sample a row and packed."""
    one = CausalLM(answer_pattern=None, max_length=capacity).codec(tokenizer, None)
    return one, CausalLM(answer_pattern=None, max_length=capacity, packing=True).codec(tokenizer, None)


def lm(vocabulary: int, width: int = 16, seed: int = 1, layers: int = 2, **fields: Any) -> Any:
    torch.manual_seed(seed)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": True}
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": layers}
    config = transformers.Qwen3Config(vocab_size=vocabulary, **sizes, **heads, **fields)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    for each in model.parameters():  # larger than at the start, so that what is seen matters
        each.data.mul_(5) if each.dim() > 1 else None
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_loss_and_gradients_are_those_of_one_sample_a_row(plain: Any, attention: str) -> None:
    one, other = pair(plain)
    features = one.encode(samples(12)).features
    student, teacher = lm(len(plain)), LocalTeacher(lm(len(plain), 24, 2))
    student.set_attn_implementation(attention)
    terms = [CrossEntropy(weight=0.3), KL(weight=0.5), Hidden(weight=0.2, match={"model.layers.1": "model.layers.0"})]
    stage = Stage(name="s", epochs=1, terms=terms)
    found = []
    for codec in (one, other):
        batch = codec.collate(features)
        distiller = distiller_of(student, stage, teacher, one.collate(features[:2]))
        total, sums = distiller(batch, teacher.signal(batch, distiller.asks_teacher), [0.3, 0.5, 0.2])
        units = count_units(ACCELERATOR, [batch])  # type: ignore[arg-type]
        found.append((total, torch.autograd.grad(total, list(student.parameters())), sums, units))
    batch = other.collate(features)
    assert batch.packed is not None
    assert len(batch.labels) < len(features)
    assert found[0][3] == found[1][3]
    rounding = 1e-10 if attention == "sdpa" else 1e-5  # transformers' eager attention takes its softmax in float32
    torch.testing.assert_close(found[0][:3], found[1][:3], rtol=rounding, atol=rounding)


def distiller_of(student: Any, stage: Stage, teacher: LocalTeacher, few: Batch) -> Any:
    job = make_job(4, torch.float64)
    stages = [replace(job.stages[0], stage=stage)]
    return replace(job, student=student, teacher=teacher, stages=stages).distiller(stage, few).double()


def test_samples_lie_where_it_is_said(plain: Any) -> None:
    one, other = pair(plain)
    features = one.encode(samples(12)).features
    batch, apart = other.collate(features), one.collate(features)
    assert batch.packed is not None
    assert batch.ids == apart.ids
    assert batch.real is not None
    assert int(batch.real.sum()) == sum(f.length for f in features)
    for i, (row, start, end) in enumerate(batch.packed):
        size = features[i].length
        assert batch.inputs["input_ids"][row, start:end].equal(apart.inputs["input_ids"][i, :size])
        assert batch.labels[row, start:end].equal(apart.labels[i, :size])
        assert batch.inputs["position_ids"][row, start:end].tolist() == list(range(size))
        assert batch.real[row, start:end].all()
    assert (batch.labels != IGNORE).sum() == (apart.labels != IGNORE).sum()
    assert batch.labels.shape[1] <= 100


def test_no_sample_sees_another(plain: Any) -> None:
    """Changing the tokens of one sample changes nothing of the others, and something of its own."""
    _, other = pair(plain)
    batch, model = other.collate(other.encode(samples(6)).features), lm(len(plain))
    assert batch.packed is not None
    row, start, end = batch.packed[0]
    changed = batch.inputs["input_ids"].clone()
    changed[row, start:end] = (changed[row, start:end] + 7) % len(plain)
    moved = replace(batch, inputs={**batch.inputs, "input_ids": changed})
    was, now = (signal(model, each, Needs(dist=True)).dist.hidden for each in (batch, moved))  # type: ignore
    for i, (at, first, last) in enumerate(batch.packed):
        same = torch.equal(was[at, first:last], now[at, first:last])
        assert same == (i > 0)


def test_a_training_makes_the_same_steps(tmp_path: Path) -> None:
    found = []
    for packing in (False, True):
        job = make_job(8, torch.float64)
        _, codec = pair(job.codec.processor, 1024)
        job = replace(job, codec=codec) if packing else job
        folder = tmp_path / str(packing)
        folder.mkdir()
        train(job, folder)
        found.append(losses(folder))
    assert len(found[0]) == 5
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-10)


def test_likelihoods_are_by_sample(plain: Any) -> None:
    one, other = pair(plain)
    features, model = one.encode(samples(7)).features, lm(len(plain))
    apart, together = (likelihood(model, codec, features, 4) for codec in (one, other))
    assert together["id"] == apart["id"]
    assert together["tokens"] == apart["tokens"]
    assert together["nll"] == pytest.approx(apart["nll"], rel=1e-10)


def sliding(model: Any) -> Any:
    model.config.layer_types = ["sliding_attention", "full_attention"]
    return model


def heedless(model: Any) -> Any:
    """Drops the mask on its way."""
    body = model.get_decoder()
    told = body.forward

    def forward(input_ids: Any, attention_mask: Any, position_ids: Any, **given: Any) -> Any:
        return told(input_ids=input_ids, position_ids=torch.arange(input_ids.shape[1])[None], **given)

    body.forward = forward
    return model


@pytest.mark.parametrize(("spoil", "message"), [(sliding, "sliding_attention"), (heedless, "does not keep packed")])
def test_models_that_cannot_are_refused(plain: Any, spoil: Callable[[Any], Any], message: str) -> None:
    _, other = pair(plain)
    batch, model = other.collate(other.encode(samples(2)).features), spoil(lm(len(plain)))
    with pytest.raises(ModelError, match=message):
        check_head(model, batch, "the student")


@pytest.mark.parametrize("window", [4096, None])
def test_a_window_in_every_layer_is_found(window: int | None) -> None:
    """Mistral's settings name no kinds of layers; a window of 4096 shows in no short text."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 20}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = transformers.MistralConfig(**sizes, **heads, sliding_window=window)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    if window is None:
        return check_packed(model, "the student")
    with pytest.raises(ModelError, match="sliding_attention"):
        check_packed(model, "the student")


def test_a_model_at_its_start_is_checked_too(plain: Any) -> None:
    """Its small weights hide little: what is seen moves the hidden values by far more than rounding does."""
    model = make_job(4, torch.float32).student
    check_packed(model, "the student")
    with pytest.raises(ModelError, match="does not keep packed"):
        check_packed(heedless(model), "the student")


def test_what_needs_one_sample_a_row_is_refused(tmp_path: Path) -> None:
    job = make_job(4, torch.float64)
    _, codec = pair(job.codec.processor)
    stage = job.stages[0]
    gate = stage.stage.model_copy(update={"gate": Gate(share=0.5)})
    with pytest.raises(RecipeError, match=r"gate needs one sample a row(.|\n)*task.packing=false"):
        train(replace(job, codec=codec, stages=[replace(stage, stage=gate)]), tmp_path)
    batch = codec.collate(stage.train.features[:3])
    with pytest.raises(RecipeError, match="one sample a row"):
        batch.rows(torch.tensor([0]))
    with pytest.raises(RecipeError, match="a teacher that remembers"):
        RememberingTeacher(job.student).signal(batch, Needs(dist=True))
    assert isinstance(LocalTeacher(job.student).signal(batch, Needs(dist=True)), Signal)


def test_tasks_that_cannot_be_packed_are_refused(plain: Any) -> None:
    with pytest.raises(RecipeError, match="answers without marks"):
        StructuredReasoning(packing=True).codec(plain, None)
    with pytest.raises(RecipeError, match="one tokenizer"):
        PairedCodec(plain, pair(plain)[1])
