"""The step `compress`: the gate, what it leaves, what it refuses, and the compressed student beside the others."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limbeck
from limbeck.core.artifacts import load, seal
from limbeck.core.errors import ArtifactError, BudgetError, MissingExtra, ModelError, RecipeError
from limbeck.core.recipe import Recipe
from limbeck.core.recipe.compress import Tolerance
from limbeck.evaluation.predictions import read
from limbeck.exporters.onnx import graph_of
from limbeck.pipeline._gate import Verdict, judge, judge_likelihood, refuse_too_few
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.compress import compress
from limbeck.pipeline.run import run_recipe
from limbeck.runtime.card import Card
from limbeck.runtime.student import load_student
from limbeck.runtime.writer import load_writer
from tests.pipeline import recipes


def answers(wrong: int) -> np.ndarray:
    """Whether each of 200 answers is right."""
    return np.arange(200) >= wrong


def held(tolerance: Tolerance, before: int, after: int) -> Verdict:
    """So many wrong answers before, and so many after."""
    right, still = answers(before), answers(after)
    return judge(tolerance, right, still, right == still)


def test_gate_lets_the_same_answers_through() -> None:
    found = held(Tolerance(), 20, 20)

    assert (found.passed, found.drop, found.agreement) == (True, 0.0, 1.0)
    assert 0 < found.upper < 0.02


@pytest.mark.parametrize(
    ("tolerance", "reason"),
    [
        (Tolerance(drop=0.02), "accuracy falls by 0.0500, allowed 0.02"),
        (Tolerance(drop=None, bound=0.06), "the fall may be 0.08"),
        (Tolerance(drop=None, agreement=0.99), "the same on 0.9500 of the rows, asked for 0.99"),
    ],
)
def test_gate_says_what_is_crossed(tolerance: Tolerance, reason: str) -> None:
    found = held(tolerance, 20, 30)

    assert not found.passed
    assert len(found.crossed) == 1
    assert reason in found.crossed[0]


def test_gate_that_asks_for_nothing_lets_all_through() -> None:
    assert held(Tolerance(drop=None), 0, 200).passed


def texts(worse: float, tolerance: Tolerance, n: int = 50) -> Verdict:
    """Texts of ten tokens; each of which has become less likely by so many nats, in every other text."""
    before, tokens = np.full(n, 20.0), np.full(n, 10)
    return judge_likelihood(tolerance, before, before + 10 * worse * (np.arange(n) % 2), tokens, 0.98)


def test_gate_of_answers_that_are_not_graded_is_perplexity() -> None:
    found = texts(0.02, Tolerance(drop=0.02))

    assert (found.passed, found.score, found.agreement, found.n) == (True, "perplexity", 0.98, 50)
    assert found.drop == pytest.approx(np.exp(0.01) - 1)
    assert found.drop < found.upper < 0.02


@pytest.mark.parametrize(
    ("tolerance", "reason"),
    [
        (Tolerance(drop=0.01), "perplexity rises by 0.0305, allowed 0.01"),
        (Tolerance(drop=None, bound=0.03), "the rise may be 0.0379"),
        (Tolerance(drop=None, agreement=0.99), "the same on 0.9800 of the tokens, asked for 0.99"),
    ],
)
def test_gate_of_perplexity_says_what_is_crossed(tolerance: Tolerance, reason: str) -> None:
    found = texts(0.06, tolerance)

    assert not found.passed
    assert len(found.crossed) == 1
    assert reason in found.crossed[0]


def test_one_text_alone_keeps_no_bound() -> None:
    assert not texts(0.0, Tolerance(bound=1.0), n=1).passed


def test_a_bound_that_no_student_could_keep_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"200 validation rows are too few[\s\S]*the bound is 0\.0133"):
        refuse_too_few(Tolerance(bound=0.013), 200)

    refuse_too_few(Tolerance(bound=0.014), 200)
    refuse_too_few(Tolerance(), 1)


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """A student's graph is made once, wherever the student lies: it is what takes long."""
    made: dict[bytes, Any] = {}

    def quick(folder: Path, card: Card, opset: int) -> Any:
        weights = (folder / "model.safetensors").read_bytes()
        if weights not in made:
            made[weights] = graph_of(folder, card, opset)
        return deepcopy(made[weights])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.pipeline._bench.graph_of", quick)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe of a run from the teacher to the report."""
    part = {"type": "int8", "tolerance": {"drop": 1.0}, "sensitivity": True}
    recipe = recipes.images(tmp_path_factory.mktemp("compress") / "run", compress=part, export=["onnx"])
    run_recipe(Recipe.model_validate(recipe))
    return recipe


def figures(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["name"]): row for row in json.loads(file.read_text())}


def test_what_is_left(run: dict[str, Any]) -> None:
    made = load(Path(run["output"]) / "compress")

    verdict, scores = json.loads(made.file("gate.json").read_text()), figures(made.file("scores.json"))
    small, hurt = load_student(made.path), json.loads(made.file("details/sensitivity.json").read_text())
    assert (verdict["passed"], verdict["limits"]["drop"]) == (True, 1.0)
    assert verdict["n"] == made.manifest["counts"]["rows"] == scores["compressed", "accuracy"]["n"]
    assert (small.card.format, small.card.precision, small.runner.engine) == ("onnx", "int8", "onnxruntime")
    assert scores["compressed", "accuracy_drop"]["value"] == pytest.approx(
        scores["student", "accuracy"]["value"] - scores["compressed", "accuracy"]["value"]
    )
    assert scores["compressed", "accuracy"]["split"] == "validation"
    assert made.manifest["mode"] == "static"
    assert {each["layer"] for each in hurt} >= {"classifier.1", "resnet.embedder.embedder.convolution"}
    assert not [name for name in made.manifest["files"] if "scratch" in name]


def test_compressed_student_is_evaluated_beside_the_others(run: dict[str, Any]) -> None:
    made = load(Path(run["output"]) / "evaluate")

    scores, small = figures(made.file("scores.json")), load_student(Path(run["output"]) / "compress")
    table = read(made.file("predictions-compressed.parquet"))
    rows = {sample.id: sample for sample in RunJob(Recipe.model_validate(run)).splits.test}
    assert table["prediction"] == [answer.label for answer in small.predict([rows[i] for i in table["id"]])]
    right = scores["compressed", "accuracy"]
    assert right["split"] == "test"
    assert right["low"] < right["value"] < right["high"]
    named = {name for model, name in scores if model == "compressed"}
    assert named >= {"agreement_with_teacher", "student_minus_teacher", "mcnemar_p_teacher", "ece", "speedup"}
    assert named >= {"latency_p50", "latency_p95", "latency_p99", "throughput", "peak_memory"}
    assert not named & {"parameters", "flops_per_row", "size_ratio"}
    weights = Path(run["output"]) / "compress" / "student" / "model.onnx"
    assert scores["compressed", "bytes_on_disk"]["value"] == weights.stat().st_size
    assert "parameters and operations of compressed: onnxruntime does not tell them" in made.manifest["notes"]
    assert made.manifest["parents"]["compress"] == load(Path(run["output"]) / "compress").digest


def test_report_tells_of_the_gate_and_the_exports(run: dict[str, Any]) -> None:
    text = (Path(run["output"]) / "report" / "report.md").read_text()
    page = (Path(run["output"]) / "report" / "index.html").read_text()

    said = json.loads((Path(run["output"]) / "compress" / "gate.json").read_text())
    assert "Compressed student" in text
    assert f"On {said['n']} validation rows the compressed student's accuracy is" in text
    assert "Held to: a fall of at most 100.0" in text
    assert f"{100 * said['agreement']:.1f}" in text
    assert "Exports beside the student that they were made from" in page
    exported = load(Path(run["output"]) / "export" / "onnx").manifest
    line = next(line for line in text.splitlines() if line.startswith("| onnx"))
    assert "int8" in line
    assert f"| {exported['opset']} |" in line


def test_nothing_is_done_again(run: dict[str, Any]) -> None:
    steps = [Path(run["output"]) / name / "manifest.json" for name in ("compress", "evaluate", "export/onnx", "report")]
    before = [path.read_text() for path in steps]

    run_recipe(Recipe.model_validate(run))

    assert [path.read_text() for path in steps] == before


def test_without_compression_the_evaluation_is_taken_anew(run: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(run["output"], tmp_path / "run")
    recipe = {**run, "output": str(tmp_path / "run"), "compress": None, "export": []}

    result = run_recipe(Recipe.model_validate(recipe), until="evaluate")

    assert ("compressed", "accuracy") not in {(row["model"], row["name"]) for row in result.scores}


def test_a_student_that_was_compressed_before_another_training_is_not_exported(
    run: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(run["output"], tmp_path / "run")
    train = tmp_path / "run" / "train"
    facts = {name: fact for name, fact in load(train).manifest.items() if name != "digest"}
    (train / "manifest.json").unlink()
    seal(train, {**facts, "seconds": 1.0})

    with pytest.raises(ArtifactError, match=r"made from another student[\s\S]*limbeck compress"):
        limbeck.export(tmp_path / "run", "onnx")


def test_folders_are_measured_side_by_side(run: dict[str, Any], tmp_path: Path) -> None:
    output = Path(run["output"])
    models = {"int8": str(output / "compress"), "onnx": str(output / "export" / "onnx"), "torch": str(output)}

    found = limbeck.evaluate(run, models=models, output=tmp_path / "matrix", against="torch")

    own = figures(output / "evaluate" / "scores.json")
    assert found.score("int8", "accuracy") == own["compressed", "accuracy"]["value"]
    assert found.score("onnx", "accuracy") == own["compressed", "accuracy"]["value"]
    assert found.score("onnx", "bytes_on_disk") == (output / "export" / "onnx" / "model.onnx").stat().st_size
    assert found.score("torch", "bytes_on_disk") == (output / "train" / "student" / "model.safetensors").stat().st_size
    assert found.score("int8", "agreement_with_teacher") > 0.8
    parents = load(tmp_path / "matrix").manifest["parents"]
    assert parents["int8"] == load(output / "compress").digest
    assert parents["onnx"] == load(output / "export" / "onnx").digest


def test_a_folder_for_another_task_is_not_measured(run: dict[str, Any], tmp_path: Path) -> None:
    recipe = recipes.texts(tmp_path / "run", tmp_path / "rows.csv")

    with pytest.raises(ModelError, match="is for another task"):
        limbeck.evaluate(recipe, models={"a": str(Path(run["output"]) / "compress")}, output=tmp_path / "matrix")


@pytest.fixture
def fresh(run: dict[str, Any], tmp_path: Path) -> Path:
    """The same run, not compressed yet."""
    shutil.copytree(Path(run["output"]) / "train", tmp_path / "run" / "train")
    return tmp_path / "run"


def test_refused_student_leaves_nothing_and_names_layers(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(tolerance: Tolerance, right: np.ndarray, still: np.ndarray, same: np.ndarray) -> Verdict:
        return judge(tolerance, right | True, still & False, same)

    monkeypatch.setattr("limbeck.pipeline._bench.judge", worse)
    job = RunJob(Recipe.model_validate(recipes.images(fresh, compress="int8")))

    with pytest.raises(BudgetError, match=r"falls by 1\.0[\s\S]*suffer most: \S+ \(KL [\s\S]*compress.keep=\["):
        compress(job, {"train": load(fresh / "train")})

    assert not (fresh / "compress").exists()


def test_what_a_language_model_lacks_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "genai" in name else find(name))
    with pytest.raises(MissingExtra, match=r"limbeck\[genai\]"):
        run_recipe(Recipe.model_validate(recipes.language(tmp_path / "run", compress="int4")))
    static = {"type": "int8", "mode": "static"}
    with pytest.raises(RecipeError, match="ranges are not known before"):
        run_recipe(Recipe.model_validate(recipes.language(tmp_path / "run", compress=static)))

    assert not (tmp_path / "run").exists()


WIDE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64}


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe of a language model's run up to its evaluation, compressed to four bits."""
    pytest.importorskip("onnxruntime_genai")
    part = {"type": "int4", "keep": ["*.down_proj"], "tolerance": {"drop": 1.0}, "sensitivity": True}
    recipe = recipes.language(tmp_path_factory.mktemp("language") / "run", compress=part)
    recipe["student"] = {"config": {**recipe["student"]["config"], **WIDE}}
    run_recipe(Recipe.model_validate(recipe), until="evaluate")
    return recipe


@pytest.mark.slow  # onnxruntime-genai's builder takes seconds to start
def test_a_language_model_is_compressed_and_writes(language: dict[str, Any]) -> None:
    made = load(Path(language["output"]) / "compress")

    verdict, scores = json.loads(made.file("gate.json").read_text()), figures(made.file("scores.json"))
    writer, hurt = load_writer(made.path), json.loads(made.file("details/sensitivity.json").read_text())
    assert (verdict["score"], verdict["n"], verdict["passed"]) == ("accuracy", 8, True)
    assert (writer.engine, writer.card.precision) == ("onnxruntime-genai", "int4")
    assert made.manifest["kept"] == ["model.layers.0.mlp.down_proj"]
    assert {each["layer"] for each in hurt} == {
        "lm_head",
        "model.layers.0.mlp.gate_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.0.self_attn.qkv_proj",
    }
    assert all(each["kl"] > 0 for each in hurt)
    before, after = (scores[model, "perplexity"]["value"] for model in ("student", "compressed"))
    assert before != after
    assert after == pytest.approx(before, rel=0.2)
    assert scores["student", "answer_accuracy"]["n"] == 8
    sizes = [scores[model, "bytes_on_disk"]["value"] for model in ("student", "compressed")]
    assert sizes[1] == (made.path / "student" / "model.onnx").stat().st_size < 0.6 * sizes[0]
    samples = RunJob(Recipe.model_validate(language)).splits.validation
    assert all(written.tokens <= 8 for written in writer.write(samples, 8))
    assert not [name for name in made.manifest["files"] if "scratch" in name]
    evaluated = load(Path(language["output"]) / "evaluate")
    assert any("compress/scores.json" in note for note in evaluated.manifest["notes"])


@pytest.mark.slow
def test_a_language_model_beyond_the_gate_is_refused(language: dict[str, Any], tmp_path: Path) -> None:
    """Answers are not graded: the gate is perplexity, and nothing that is rounded keeps it to the last digit."""
    shutil.copytree(Path(language["output"]) / "train", tmp_path / "run" / "train")
    ungraded = {**language["task"], "answer_pattern": None}
    tolerance = {"drop": None, "agreement": 1.0, "bound": 1e-9}
    changed = {"task": ungraded, "output": str(tmp_path / "run"), "compress": {"type": "int4", "tolerance": tolerance}}
    job = RunJob(Recipe.model_validate({**language, **changed}))

    with pytest.raises(BudgetError, match=r"the rise may be[\s\S]*suffer most: \S+ \(KL [\s\S]*compress.keep=\["):
        compress(job, {"train": load(tmp_path / "run" / "train")})

    assert not (tmp_path / "run" / "compress").exists()
