"""A student that learns from the recording: as from the teacher itself, and without the teacher."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from limbeck.core import artifacts
from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline import _job
from limbeck.pipeline.run import run_recipe
from tests.pipeline.recipes import images, language, stage, texts

HINT = {"type": "hidden", "match": {"model.layers.0": "model.layers.0"}}
TERMS = [{"type": "cross_entropy"}, {"type": "kl", "temperature": 2}]


def losses(output: Path, term: str | None = None) -> list[float]:
    lines = (output / "train" / "steps.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return [each["loss"] if term is None else each["terms"][term] for each in told]


def run(recipe: dict[str, Any], until: str = "train") -> Path:
    return run_recipe(load_recipe(recipe), until=until).output


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A language model that has learned a little."""
    return str(run(language(tmp_path_factory.mktemp("teacher")), "prepare") / "prepare" / "teacher")


@pytest.mark.parametrize("cache", [{"k": 400, "dtype": "float32"}, {"type": "full", "dtype": "float32"}])
def test_all_classes_recorded_teach_what_the_teacher_teaches(
    tmp_path: Path, teacher: str, cache: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"teacher": {"model": teacher}, "stages": [stage(terms=TERMS, max_steps=8)]}
    live = run(language(tmp_path / "live", **plan))
    recipe = language(tmp_path / "cached", **plan, cache=cache)
    run(recipe, "cache")
    monkeypatch.setattr(_job.RunJob, "teacher", lambda *given: pytest.fail("the teacher was loaded"))
    cached = run(recipe)
    assert losses(cached) == pytest.approx(losses(live), rel=1e-5)
    one, two = (load_file(each / "train/student/model.safetensors") for each in (live, cached))
    for name, value in one.items():
        assert_close(two[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cache", [{"bytes_per_token": 100}, {"type": "sampled", "bytes_per_token": 60}])
def test_few_bytes_teach_nearly_the_same(tmp_path: Path, teacher: str, cache: dict[str, Any]) -> None:
    terms = [{"type": "cross_entropy"}, {"type": "kl"}, HINT]
    plan = {"teacher": {"model": teacher}, "stages": [stage(terms=terms, max_steps=8)]}
    live = run(language(tmp_path / "live", **plan))
    cached = run(language(tmp_path / "cached", **plan, cache={**cache, "features": "int8"}))
    for term in ("cross_entropy", "hidden"):  # the value of KL to drawn classes is another one, its gradient is not
        assert losses(cached, term) == pytest.approx(losses(live, term), rel=0.02)
    told = artifacts.load(cached / "cache").manifest
    assert told["cache"]["format"]["features"] == ["model.layers.0"]
    assert told["counts"]["samples"] == 48
    assert 0 < told["measured"]["total_variation"] < (0.7 if "type" not in cache else 1)
    assert artifacts.load(cached / "train").manifest["parents"]["cache"] == told["digest"]


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_classifiers(tmp_path: Path, kind: str) -> None:
    found = []
    for more in ({}, {"cache": {"dtype": "float32"}}):  # the teacher is made once
        if kind == "images":
            recipe = images(tmp_path / "run", **more, stages=[stage(max_steps=4)])
        else:
            recipe = texts(tmp_path / "run", tmp_path / "rows.csv", **more)
            recipe["training"] = {"global_batch_size": 8}
        found.append(losses(run(recipe)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    codec = artifacts.load(tmp_path / "run" / "cache").manifest["cache"]["format"]["codec"]
    assert codec["type"] == "full"


def test_up_to_date_until_something_changes(tmp_path: Path, teacher: str) -> None:
    recipe = language(tmp_path / "run", teacher={"model": teacher}, cache={})
    digest = lambda: artifacts.load(run(recipe, "cache") / "cache").digest  # noqa: E731
    first = digest()
    assert digest() == first
    recipe["stages"] = [stage(max_steps=3)]
    recipe["seed"] = 0
    assert digest() == first
    recipe["task"] = {"type": "causal-lm", "max_length": 128, "separator": " = "}
    assert digest() != first


def test_packed_rows_read_a_recording_of_single_ones(tmp_path: Path, teacher: str) -> None:
    plan = {"teacher": {"model": teacher}, "stages": [stage(terms=TERMS, max_steps=4)]}
    recipe = language(tmp_path / "run", **plan, cache={"type": "full", "dtype": "float32"})
    single = run(recipe)
    first, found = artifacts.load(single / "cache").digest, losses(single)
    recipe["task"] = {**recipe["task"], "packing": True}
    assert losses(run(recipe)) == pytest.approx(found, rel=1e-5)
    assert artifacts.load(single / "cache").digest == first
    assert artifacts.load(single / "train").manifest["parents"]["cache"] == first


def test_a_recording_of_another_teacher_is_refused(tmp_path: Path, teacher: str) -> None:
    """As when folders were mixed up by hand: the field is named."""
    from limbeck.pipeline._job import RunJob
    from limbeck.pipeline.cache import cached_teacher, teacher_shape
    from limbeck.pipeline.prepare import prepare

    output = run(language(tmp_path / "run", teacher={"model": teacher}, cache={}), "cache")
    recorded = artifacts.load(output / "cache")
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    for folder, task, field in ((other, {}, "teacher"), (Path(teacher), {"separator": " "}, "template")):
        name = f"second-{field}"
        recipe = language(tmp_path / name, teacher={"model": str(folder)}, cache={})
        recipe["task"] = {**recipe["task"], **task}
        job = RunJob(load_recipe(recipe))
        prepared = prepare(job)
        assert prepared is not None
        processor = teacher_shape(job, prepared)[1].processor
        with pytest.raises(ArtifactError, match=f"another {field}"):
            cached_teacher(job, prepared, recorded, processor)


def test_all_that_changes_the_teacher_changes_its_identity(tmp_path: Path) -> None:
    """Not its weights alone; what changes nothing of what it says does not count."""
    from limbeck.pipeline.cache import _teacher_digest

    job = _job.RunJob(load_recipe(language(tmp_path / "run", cache={})))
    found = artifacts.load(run(language(tmp_path / "run", cache={}), "prepare") / "prepare")
    moved = artifacts.Artifact(tmp_path / "moved", found.manifest)
    shutil.copytree(found.path, moved.path)
    first, path = _teacher_digest(job, found), moved.path / "teacher" / "config.json"
    whole = json.loads(path.read_text())
    assert _teacher_digest(job, moved) == first
    path.write_text(json.dumps({**whole, "transformers_version": "0.0", "_name_or_path": "elsewhere"}))
    assert _teacher_digest(job, moved) == first
    for name, value in (("rope_parameters", {"rope_theta": 5.0}), ("rms_norm_eps", 1e-2), ("num_labels", 3)):
        path.write_text(json.dumps({**whole, name: value}))
        assert _teacher_digest(job, moved) != first, name
    for name in ("model.safetensors", "adapter_config.json", "modeling_own.py"):
        files = {**found.manifest["files"], f"teacher/{name}": {"bytes": 1, "sha256": "other"}}
        assert _teacher_digest(job, artifacts.Artifact(found.path, {**found.manifest, "files": files})) != first, name
    spec = {**language(tmp_path / "run", cache={})["teacher"], "dtype": "bfloat16"}
    other = _job.RunJob(load_recipe(language(tmp_path / "run", cache={}, teacher=spec)))
    assert _teacher_digest(other, found) != first


def test_a_classifier_keeps_the_budget_too(tmp_path: Path) -> None:
    recipe = images(tmp_path / "run", cache={"bytes_per_token": 62})  # all ten logits, and the index, are more
    told = artifacts.load(run(recipe, "cache") / "cache").manifest["cache"]
    assert told["format"]["codec"]["type"] == "packed_top_k"
    assert told["bytes_per_token"] < 62 * 1.01
    recipe["cache"] = {"bytes_per_token": 20}
    with pytest.raises(RecipeError, match="so few bytes"):
        run(recipe, "cache")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"teacher": {"model": "moving-average"}}, "own past"),
        ({"teacher": {"model": "t", "remember": True}}, "remember"),
        ({"teacher": {"model": "t", "also": [{"model": "u"}]}}, "several teachers"),
        ({"stages": [stage(terms=[{"type": "cross_entropy"}])]}, "no term that asks"),
        ({"student": {"model": "from-teacher", "vocabulary": "trim"}}, "trimmed"),
        ({"stages": [stage(terms=[{"type": "reverse_kl"}], on_policy={"share": 1.0})]}, "own texts"),
    ],
)
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    recipe = language(tmp_path / "run", cache={}, **changed)
    with pytest.raises(RecipeError, match=said):
        run(recipe)
