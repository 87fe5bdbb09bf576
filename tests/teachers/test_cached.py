"""A teacher that answers from a recording of a real model: features, gates, and shapes without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.cache.codecs import Codec, Drawn, Full, PlainTopK
from limbeck.cache.record import Source, record
from limbeck.cache.store import Cache, Facts, Format, describe
from limbeck.core import artifacts
from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Dense, Needs, Sampled, TopK
from limbeck.models.heads import signal
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.kl import KL
from limbeck.teachers.cached import CachedTeacher, skeleton
from limbeck.teachers.gated import GatedTeacher
from limbeck.teachers.local import LocalTeacher
from tests.models.conftest import new
from tests.teachers.test_remembering import NEEDS, batch

FACTS = Facts("weights", "words", "plain", 40)


def recording(folder: Path, model: Any, codec: Codec | None, needs: Needs, dtype: str = "float16") -> CachedTeacher:
    folder.mkdir()
    teacher, made = LocalTeacher(model), Format(codec, tuple(sorted(needs.features)), dtype)

    def together(which: Any) -> Batch:
        given = batch(list(which), 9)
        if model.get_output_embeddings() is not None:
            return replace(
                given, labels=given.inputs["input_ids"].masked_fill(given.inputs["attention_mask"] == 0, -100)
            )
        return given

    source = Source([5, 9, 7, 3], together, lambda given: teacher.signal(given, needs), 2)
    made.save(folder)
    record(folder, source, made)
    artifacts.seal(folder, {"kind": "cache", "cache": describe(folder, FACTS, 1)})
    return CachedTeacher(Cache(folder, FACTS))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("name", list(NEEDS))
def test_layers_of_any_batch(tmp_path: Path, name: str, dtype: str) -> None:
    """Hidden states and attention maps, padded on either side."""
    model = new(name)
    model.set_attn_implementation("eager")
    needs = Needs(features=NEEDS[name].features)
    told = recording(tmp_path / "cache", model, None, needs, dtype)
    for side in ("right", "left"):
        asked = batch([2, 0, 3, 1], 11, side)
        labels = asked.labels
        if name == "qwen3":
            labels = asked.inputs["input_ids"].masked_fill(asked.inputs["attention_mask"] == 0, -100)
            places = (asked.inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
            asked = replace(asked, inputs={**asked.inputs, "position_ids": places})
        elif side == "left":  # absolute positions: another text to this model
            continue
        asked = replace(asked, labels=labels)
        found, wanted = told.signal(asked, needs).features, LocalTeacher(model).signal(asked, needs).features
        real = asked.inputs["attention_mask"].bool()
        for path in needs.features:
            mine, theirs = found[path], wanted[path]
            where = real if mine.ndim == 3 else (real[:, :, None] & real[:, None, :])[:, None].expand_as(mine)
            error = 0.02 if dtype == "int8" else 2e-3
            torch.testing.assert_close(mine[where], theirs[where], atol=error * float(theirs.abs().max()), rtol=0)
            assert (mine[~where] == 0).all()


def test_logits_of_a_classifier(tmp_path: Path) -> None:
    model, needs = new("bert"), Needs(dist=True)
    classes = model.config.num_labels
    told = recording(tmp_path / "cache", model, Full(classes, "float32"), needs)
    asked = batch([3, 1, 0], 10)
    found: Any = told.signal(asked, needs).dist
    wanted: Any = LocalTeacher(model).signal(asked, needs).dist
    assert isinstance(found, Dense)
    torch.testing.assert_close(found.logits, wanted.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [TopK, Sampled])
def test_behind_a_gate(tmp_path: Path, kind: type) -> None:
    """Samples that were not asked about weigh nothing, and leave no nan."""
    model = new("qwen3")
    classes = len(model.get_output_embeddings().weight)
    codec: Codec = PlainTopK(4) if kind is TopK else Drawn(order=np.arange(classes, dtype=np.int32), count=20)
    told = recording(tmp_path / "cache", model, codec, Needs(dist=True))
    asked = batch([2, 0, 3, 1], 9)
    asked = replace(asked, labels=asked.inputs["input_ids"].masked_fill(asked.inputs["attention_mask"] == 0, -100))
    said = GatedTeacher(told, model, share=0.5).signal(asked, Needs(dist=True))  # type: ignore[arg-type]
    assert isinstance(said.dist, kind)
    hard = said.weights.nonzero().squeeze(1)  # type: ignore[union-attr]
    mine = torch.randn(4, 9, classes).requires_grad_()
    loss, _ = distribution_loss(Dense(mine), said.dist, asked.labels, [KL()], [1.0], teacher_weights=said.weights)
    few = asked.rows(hard)
    alone: Any = told.signal(few, Needs(dist=True)).dist
    wanted, _ = distribution_loss(Dense(mine[hard]), alone, few.labels, [KL()], [1.0])
    torch.testing.assert_close(loss, wanted)
    (slope,) = torch.autograd.grad(loss, mine)
    assert torch.isfinite(slope).all()


def test_what_was_not_recorded_is_refused(tmp_path: Path) -> None:
    told = recording(tmp_path / "cache", new("bert"), None, Needs(features=frozenset({"bert.encoder.layer.1"})))
    with pytest.raises(RecipeError, match="not recorded"):
        told.signal(batch([0], 5), Needs(dist=True))


@pytest.mark.parametrize("name", ["bert", "qwen3", "resnet"])
def test_a_skeleton_has_the_shapes_of_the_model(name: str) -> None:
    model = new(name)
    with torch.device("meta"):
        bare = skeleton(type(model)(model.config).eval())
    if name == "resnet":
        pixels = torch.randn(2, model.config.num_channels, 16, 16)
        given, paths = Batch(("a", "b"), {"pixel_values": pixels}, torch.zeros(2)), ["resnet.encoder.stages.0"]
    else:
        given = batch([0, 1], 9)
        paths = [path for path in NEEDS[name].features if ":" not in path]
    needs = Needs(features=frozenset(paths))
    wanted = signal(model, given, needs).features
    found = signal(bare, given, needs).features
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
    assert all(v.device.type == "meta" for v in found.values())
