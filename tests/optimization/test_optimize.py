"""The step and its folder: what is kept, what is told and left, and that both are loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import limbeck
from limbeck.core.artifacts import load, read_manifest
from limbeck.core.errors import ArtifactError, ModelError, RecipeError
from limbeck.core.parts import build, part
from limbeck.core.recipe import load_recipe
from limbeck.models.fused import groups
from limbeck.optimization import Optimization
from limbeck.optimization._base import Subject
from limbeck.optimization._forms import Cost, Likeness
from limbeck.pipeline.optimize import Times, Tried, _passed, verdict
from limbeck.runtime.card import Card, read_card
from limbeck.runtime.student import load_student
from limbeck.runtime.writer import TorchWriter, load_writer
from tests.optimization.students import graph_student, made
from tests.pipeline.recipes import images
from tests.pipeline.recipes import language as language_recipe
from tests.runtime.students import LANGUAGE, TEXT, rows

CPU = torch.device("cpu")
FEW: dict[str, Any] = {"batch_size": 2, "runs": 2, "max_new_tokens": 4}
"""Requests that cost next to nothing."""


def tried(operators: int = 100, cache: int | None = None, same: float = 1.0, relative: float = 0.0) -> Tried:
    times = {1: Times(np.ones(3), np.ones(3))}
    return Tried(Likeness(relative, relative, same, 50), Cost(operators, None, 10, cache), times)


@pytest.mark.parametrize(
    ("found", "gain", "became"),
    [
        (tried(), 1.2, "kept"),
        (tried(operators=120), 1.2, "kept"),
        (tried(operators=90), 1.0, "kept"),
        (tried(), 1.0, "not kept: nothing gained"),
        (tried(operators=90), 0.9, "not kept: slower"),
        (tried(same=0.9), 2.0, "not kept: same answers 90.0%, largest difference 0.0%"),
        (tried(relative=0.01), 2.0, "not kept: same answers 100.0%, largest difference 1.0%"),
    ],
)
def test_only_what_gains_and_says_the_same_is_kept(found: Tried, gain: float, became: str) -> None:
    each: Any = build("optimization", "fuse_qkv")
    assert verdict(each, found, tried(), gain) == became
    asked: Any = build("optimization", {"type": "fuse_qkv", "keep": True})
    assert verdict(asked, found, tried(), gain) == became.replace("not kept", "kept, as asked")


def test_another_last_digit_may_become_another_integer() -> None:
    each: Any = build("optimization", "fuse_norms")
    assert verdict(each, tried(relative=0.01), tried(), 1.2, rounded=True) == "kept"
    assert verdict(each, tried(relative=0.03), tried(), 1.2, rounded=True).startswith("not kept: same answers 100.0%")
    assert verdict(each, tried(relative=0.01, same=0.98), tried(), 1.2, rounded=True).startswith("not kept: same")


def test_memory_is_a_gain_too() -> None:
    each: Any = build("optimization", "quantized_cache")
    assert verdict(each, tried(cache=300, relative=0.2), tried(cache=1000), 1.0) == "kept"
    assert verdict(each, tried(cache=990, relative=0.2), tried(cache=1000), 1.0) == "not kept: nothing gained"
    assert verdict(each, tried(cache=300, same=0.94), tried(cache=1000), 1.0).startswith("not kept: same answers 94.0%")


class Moody:
    """A bench on which each pass alone is a little faster, and what was kept together as told."""

    def __init__(self, together: float):
        self.subject, self.together = Subject(Path(), Card(task={}), None, False, CPU), together
        self.rows: list[Any] = []
        self.original = self.form(())

    def form(self, passes: Any) -> Any:
        return SimpleNamespace(passes=tuple(passes))

    def tried(self, form: Any, before: Any) -> tuple[Tried, float]:
        return tried(), self.together if len(form.passes) == 2 and before is self.original else 1.03


@pytest.mark.parametrize(("together", "keep", "kept"), [(1.05, False, 2), (0.97, False, 0), (0.97, True, 2)])
def test_what_is_slower_together_is_not_kept(together: float, keep: bool, kept: int) -> None:
    passes: list[Any] = [Wrong(), Broken(keep=keep)]
    lines, now, speedup, _ = _passed(Moody(together), passes)  # type: ignore[arg-type]
    assert [line["became"] for line in lines[1:3]] == ["kept", "kept"]
    assert len(now.passes) == kept
    assert lines[-1]["became"] == ("kept" if kept else "not kept: slower")
    assert speedup == (together if kept else 1)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with two passes that are to be kept, and one that is not for it."""
    place = tmp_path_factory.mktemp("language")
    made(place / "student", "language")
    lines = [{"prompt": f"add {i} to {3 * i}", "answer": str(4 * i)} for i in range(3)]
    (place / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    passes: list[Any] = [
        {"type": "fuse_qkv", "keep": True},
        {"type": "static_cache", "keep": True, "room": 48},
        "fuse_norms",
    ]
    found = limbeck.optimize(place / "student", passes, output=place, rows=place / "rows.jsonl", **FEW)
    assert found == place / "optimize"
    return place


def test_a_language_model_is_kept_with_how_it_is_run(language: Path) -> None:
    artifact = load(language / "optimize")
    told = artifact.manifest
    assert told["kept"] == ["fuse_qkv", "static_cache"]
    assert (told["engine"], told["rows"], told["notes"]) == ("torch", 3, [])
    first, merged, static, refused, together = told["passes"]
    assert (first["pass"], together["pass"]) == ("as it is", "together")
    assert merged["became"].startswith("kept")
    assert static["same_answers"] == 1
    assert refused == {
        "pass": "fuse_norms",
        "became": "does not apply: language models run in torch, not in ONNX Runtime",
    }
    assert set(first["milliseconds"]) == {"1", "2"}
    assert set(first["milliseconds"]["1"]) == {"p10", "p50", "p90", "cpu"}
    assert together["operators"] < first["operators"] or static["operators"] > merged["operators"]
    assert json.loads(artifact.file("passes.json").read_text()) == told["passes"]
    card = read_card(language / "optimize" / "student")
    assert card.facts["decoding"]["fused"] == ["qkv"]
    assert (card.format, card.facts["decoding"]["room"]) == ("pytorch", 48)


def test_its_folder_writes_as_before(language: Path) -> None:
    before, after = load_writer(language / "student"), load_writer(language / "optimize")
    assert isinstance(after, TorchWriter)
    assert isinstance(before, TorchWriter)
    assert next(groups(before.model, "qkv"), None) is not None
    assert next(groups(after.model, "qkv"), None) is None
    samples = rows(LANGUAGE, 3)
    assert after.write(samples, 8) == before.write(samples, 8)
    assert ["".join(after.stream(each, 8)) for each in samples] == ["".join(before.stream(each, 8)) for each in samples]
    features = load_student(language / "student").encode(samples)
    whole, merged = (load_student(language / name).logits(features) for name in ("student", "optimize"))
    np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-5)


def test_transformers_itself_finds_the_cache(language: Path) -> None:
    from transformers import GenerationConfig

    told = GenerationConfig.from_pretrained(language / "optimize" / "student")
    assert (told.cache_implementation, told.max_cache_len) == ("static", 48)


def test_it_is_not_done_twice(language: Path) -> None:
    passes: list[Any] = [
        {"type": "fuse_qkv", "keep": True},
        {"type": "static_cache", "keep": True, "room": 48},
        "fuse_norms",
    ]
    before = read_manifest(language / "optimize")["digest"]
    limbeck.optimize(language / "student", passes, output=language, rows=language / "rows.jsonl", **FEW)
    assert read_manifest(language / "optimize")["digest"] == before


def test_a_graph_is_kept_as_a_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    graph_student(tmp_path / "student")
    passes: list[Any] = [{"type": "fuse_norms", "keep": True}, "fuse_qkv"]
    told = read_manifest(limbeck.optimize(tmp_path / "student", passes, output=tmp_path, **FEW))
    assert told["kept"] == ["fuse_norms"]
    assert told["notes"] == ["compared on made-up rows: give real ones with --rows"]
    assert "is a graph already" in told["passes"][2]["became"]
    before, after = load_student(tmp_path / "student"), load_student(tmp_path / "optimize")
    samples = rows(TEXT, 4)
    assert [each.label for each in after.predict(samples)] == [each.label for each in before.predict(samples)]
    assert after.card.facts == {"opset": 20}


@part
class Wrong(Optimization):
    """A pass that changes what the graph says."""

    def graph(self, model: Any, subject: Any) -> Any:
        import onnx

        head = next(each for each in model.graph.initializer if each.name == "head")
        head.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(head), "head"))
        return model


@part
class Broken(Optimization):
    """A pass that fails."""

    def graph(self, model: Any, subject: Any) -> Any:
        raise RuntimeError("no kernel for that\nand more")


def test_other_answers_and_failures_are_told_and_not_kept(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from limbeck.pipeline.optimize import optimize_at

    graph_student(tmp_path / "student")
    folder = optimize_at(tmp_path / "student", [Wrong(), Broken()], output=tmp_path, **FEW).path
    first, wrong, broken = read_manifest(folder)["passes"]
    assert wrong["became"].startswith("not kept: same answers ")
    assert wrong["same_answers"] < 0.99
    assert broken["became"] == "cannot be done: no kernel for that"
    assert read_manifest(folder)["kept"] == []
    assert first["same_answers"] == 1
    samples = rows(TEXT, 4)
    said = [[each.label for each in load_student(place).predict(samples)] for place in (folder, tmp_path / "student")]
    assert said[0] == said[1]
    with pytest.raises(ModelError, match="is to be kept"):
        optimize_at(tmp_path / "student", [Broken(keep=True)], output=tmp_path / "other")
    assert not (tmp_path / "other" / "optimize").exists()


def test_what_cannot_be_optimised_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "student", "language")
    with pytest.raises(RecipeError, match="did you mean 'fuse_qkv'"):
        limbeck.optimize(tmp_path / "student", "fuse_qvk")
    with pytest.raises(RecipeError, match=r"batch_sise: unknown key; did you mean 'batch_size'"):
        limbeck.optimize(tmp_path / "student", batch_sise=3)
    with pytest.raises(RecipeError, match="is empty"):
        limbeck.optimize(tmp_path / "student", [], output=tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(images(tmp_path / "run")))
    with pytest.raises(RecipeError, match="a run knows its task"):
        limbeck.optimize(tmp_path / "run", rows=tmp_path / "rows.csv")
    with pytest.raises(ArtifactError, match="no student yet"):
        limbeck.optimize(tmp_path / "run")


def test_a_recipe_may_name_passes_or_leave_them_to_us(tmp_path: Path) -> None:
    plan = load_recipe(images(tmp_path, optimize=True)).optimize
    assert plan is not None
    assert plan.passes is None
    listed = load_recipe(images(tmp_path, optimize=["fuse_norms", {"type": "fuse_qkv", "keep": True}])).optimize
    assert listed is not None
    assert [each.type() for each in listed.passes or []] == ["fuse_norms", "fuse_qkv"]
    assert load_recipe(images(tmp_path)).optimize is None
    with pytest.raises(RecipeError, match=r"optimize\.passes"):
        load_recipe(images(tmp_path, optimize=["fuse_everything"]))


def test_what_cannot_be_optimised_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.pipeline._ahead import check_recipe

    monkeypatch.setattr("limbeck.pipeline._ahead.OnnxruntimeGenai.check", lambda *_: None)
    with pytest.raises(RecipeError, match="an engine of its own"):
        check_recipe(load_recipe(language_recipe(tmp_path, optimize=True, compress="int8")))
    check_recipe(load_recipe(language_recipe(tmp_path, optimize=True)))


@pytest.mark.slow
def test_a_recipe_runs_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    recipe = images(tmp_path / "run", optimize={"runs": 2, "max_samples": 4, "batch_size": 2}, export=["hugging_face"])
    done = limbeck.run(recipe)
    told = read_manifest(tmp_path / "run" / "optimize")
    assert [line["pass"] for line in told["passes"]][:2] == ["as it is", "fuse_norms"]
    assert done.report is not None
    assert "fuse_norms" in done.report.read_text(encoding="utf-8")
    assert (tmp_path / "run" / "export" / "hugging_face").is_dir()
    before = told["digest"]
    limbeck.run(recipe)
    assert read_manifest(tmp_path / "run" / "optimize")["digest"] == before
