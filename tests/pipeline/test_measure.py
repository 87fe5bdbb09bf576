"""`limbeck.evaluate`: models from runs, folders and addresses side by side, and recorded predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core.artifacts import load, read_manifest
from limbeck.core.errors import DataError, LimbeckError, ModelError, RecipeError
from limbeck.evaluation.predictions import read
from limbeck.pipeline.measure import _called, endpoint_at
from tests.evaluation.test_harness import task_file
from tests.pipeline.endpoint import serving
from tests.pipeline.recipes import QUICK, language, texts

PLAIN = {**QUICK, "robustness": None, "interpretability": None, "speed": {"batch_sizes": [1], "seconds": 0.01}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The recipe of a run whose students are trained: arithmetic."""
    folder = tmp_path_factory.mktemp("language")
    recipe = language(folder / "run", baseline=True, evaluate={**PLAIN, "max_new_tokens": 5, "max_samples": 6})
    limbeck.run(recipe, until="train")
    return recipe


def answers(recipe: dict[str, Any]) -> dict[str, str]:
    """What is right, by question."""
    from limbeck.core.recipe import load_recipe
    from limbeck.pipeline._job import RunJob

    samples = RunJob(load_recipe(recipe)).splits.test
    return {s.inputs["messages"][-1]["content"]: s.target for s in samples}


def test_a_run_a_folder_and_an_address_side_by_side(run: dict[str, Any], tmp_path: Path) -> None:
    known, made = answers(run), Path(run["output"])
    copy = tmp_path / "elsewhere"
    shutil.copytree(made / "baseline" / "student", copy)
    template = "{prompt}\nEnd with #### and the number."

    def reply(body: dict[str, Any]) -> str:
        assert body["temperature"] == 0
        assert body["max_tokens"] == 5
        return known[body["messages"][-1]["content"].removesuffix(template.removeprefix("{prompt}"))]

    with serving(reply) as endpoint:
        models = {"small": str(made), "copy": str(copy), "big": endpoint.section()}
        options: dict[str, Any] = {"models": models, "against": "big", "template": template}
        found = limbeck.evaluate(run, output=tmp_path / "matrix", **options)
        assert len(endpoint.bodies) == 6
        assert found.score("big", "answer_accuracy") == 1
        assert {row["model"] for row in found.scores} == {"small", "copy", "big"}
        assert found.score("small", "kept_of_teacher") == found.score("small", "answer_accuracy")
        assert found.score("small", "mcnemar_p_teacher") == pytest.approx(2 * 2 * 0.5**6), "0 against 6, twice"
        assert found.score("small", "parameters") == found.score("copy", "parameters")
        assert found.score("big", "price_per_1000") == pytest.approx(1000 * (10 * 1 + 5 * 2) / 1e6)
        again = limbeck.evaluate(run, output=tmp_path / "matrix", **options, force=True)
        assert len(endpoint.bodies) == 6, "answers that were paid for were asked again"
        assert again.score("big", "answer_accuracy") == 1
    artifact = load(tmp_path / "matrix")
    assert artifact.manifest["parents"] == {"small": load(made / "train").digest}
    assert {f"predictions-{name}.parquet" for name in models} < set(artifact.manifest["files"])
    assert "predictions-teacher.parquet" not in artifact.manifest["files"]
    assert any("big is behind an address" in note for note in artifact.manifest["notes"])
    assert set(json.loads(artifact.file("details/errors.json").read_text())) == {"small", "copy"}
    assert set(read(artifact.file("predictions-big.parquet"))["correct"]) == {True}
    # The same figures as the run's own step, for the same rows were answered by the same model.
    own = limbeck.run(run, until="evaluate")
    for name in ("answer_accuracy", "perplexity"):
        assert found.score("small", name) == pytest.approx(own.score("student", name), abs=1e-9)
        assert found.score("copy", name) == pytest.approx(own.score("baseline", name), abs=1e-9)


def test_several_answers_are_drawn_here_and_asked_for_there(run: dict[str, Any], tmp_path: Path) -> None:
    known, made = answers(run), Path(run["output"])

    def reply(body: dict[str, Any]) -> str:
        right = body["temperature"] == 0 or body["seed"] % 2
        return known[body["messages"][-1]["content"]] if right else "I cannot tell"

    with serving(reply) as endpoint:
        big = {**endpoint.section(), "known_as": "drawing"}
        models = {"small": str(made), "teacher_old": str(made / "baseline" / "student"), "big": big}
        changes = ["evaluate.samples=2", "evaluate.temperature=0.7", "evaluate.top_p=0.9"]
        found = limbeck.evaluate(run, changes, models=models, against="big", output=tmp_path / "matrix")
        assert [(b["temperature"], b["top_p"]) for b in endpoint.bodies].count((0.7, 0.9)) == 12
        assert len(endpoint.bodies) == 18
    figures = [found.score("big", name) for name in ("answer_accuracy", "pass_at_1", "pass_at_2", "majority_vote")]
    assert figures == [1, 0.5, 1, 1]
    assert {row["n"] for row in found.scores if row["name"].startswith("pass_at")} == {6}
    # Also where another model's name begins as the one of the role.
    for name in models:
        table, drawn = (read(tmp_path / "matrix" / f"predictions-{name}{end}.parquet") for end in ("", "-draws"))
        assert sorted(drawn["id"]) == sorted(table["id"] * 2)
        assert drawn["draw"] == [1] * 6 + [2] * 6
    assert not (tmp_path / "matrix" / "predictions-teacher.parquet").exists()


def test_samples_are_for_language_models_whose_answers_are_graded(run: dict[str, Any], tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", evaluate={"samples": 2})
    ungraded = {**run, "task": {**run["task"], "answer_pattern": None}, "evaluate": {"samples": 2}}
    for each in (recipe, ungraded):
        with pytest.raises(RecipeError, match=r"evaluate\.samples is for language models whose answers are graded"):
            limbeck.run(each)


def test_the_model_to_compare_with_has_its_own_name_in_the_facts() -> None:
    facts = {"counts": {"rows": 1, "lost": {"teacher": {}, "b": {}}}, "notes": ["layers of teacher: no", "teachers"]}
    assert _called(facts, "a")["counts"]["lost"].keys() == {"a", "b"}
    assert _called(facts, "a")["notes"] == ["layers of a: no", "teachers"]
    assert _called(facts, None) == facts


def test_what_is_up_to_date_is_not_measured_again(run: dict[str, Any], tmp_path: Path) -> None:
    models = {"small": str(Path(run["output"]) / "train")}
    limbeck.evaluate(run, models=models, output=tmp_path / "matrix")
    before = read_manifest(tmp_path / "matrix")["created"], (tmp_path / "matrix").stat().st_ino
    limbeck.evaluate(run, models=models, output=tmp_path / "matrix")
    assert (read_manifest(tmp_path / "matrix")["created"], (tmp_path / "matrix").stat().st_ino) == before
    limbeck.evaluate(run, ["evaluate.confidence=0.9"], models=models, output=tmp_path / "matrix")
    assert (tmp_path / "matrix").stat().st_ino != before[1]


def test_a_budget_that_is_too_small_leaves_no_score(run: dict[str, Any], tmp_path: Path) -> None:
    with serving(lambda body: "#### 1") as endpoint:
        models = {"big": {**endpoint.section(), "known_as": "budgeted"}}
        with pytest.raises(ModelError, match=r"big left 6 of 6 rows unanswered(.|\n)*budget 6"):
            limbeck.evaluate(run, models=models, output=tmp_path / "matrix", budget={"tokens": 100})
        with pytest.raises(RecipeError, match=r"budget\.money: unknown key"):
            limbeck.evaluate(run, models=models, output=tmp_path / "matrix", budget={"money": 100})
        with pytest.raises(RecipeError, match="every question would be the same"):
            limbeck.evaluate(run, models=models, output=tmp_path / "matrix", template="How many?")
        assert not endpoint.bodies
        assert not (tmp_path / "matrix").exists()
        limbeck.evaluate(run, models=models, output=tmp_path / "matrix", budget={"tokens": 10_000})
        assert len(endpoint.bodies) == 6


def test_tasks_of_the_harness_stand_among_the_scores(run: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: limbeck[harness]")
    task = task_file(tmp_path, [{"question": f"{i} =", "answer": i % 4} for i in range(8)])
    options: dict[str, Any] = {"models": {"small": run["output"]}, "output": tmp_path / "matrix"}
    found = limbeck.evaluate(run, [f"evaluate.harness=['{task}']"], **options)
    (row,) = [row for row in found.scores if row["name"] == "signs/acc"]
    assert (row["model"], row["axis"], row["n"], row["split"]) == ("small", "accuracy", 8, "harness")
    assert row["low"] <= row["value"] <= row["high"]
    assert str(task) in load(tmp_path / "matrix").manifest["inputs"]["harness"]
    with pytest.raises(RecipeError, match="for language models"):
        limbeck.evaluate(texts(tmp_path / "run", tmp_path / "rows.csv", evaluate={"harness": [str(task)]}), **options)


def test_classes_in_another_order_are_the_same_classes(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", evaluate=PLAIN)
    trained = limbeck.run(recipe, until="evaluate")
    other = tmp_path / "other"
    shutil.copytree(trained.student, other)
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {str(i): f"kind{1 - int(name[-1])}" for i, name in config["id2label"].items()}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (other / "config.json").write_text(json.dumps(config))
    models = {"same": str(tmp_path / "run"), "turned": str(other)}
    found = limbeck.evaluate(recipe, models=models, output=tmp_path / "matrix")
    assert found.score("same", "accuracy") == trained.score("student", "accuracy")
    assert found.score("turned", "accuracy") == pytest.approx(1 - trained.score("student", "accuracy"))
    with pytest.raises(RecipeError, match="big is behind an address"):
        limbeck.evaluate(recipe, models={"big": "http://localhost:1/v1#big"}, output=tmp_path / "none")
    config["id2label"] = {"0": "kind0", "1": "kind7"}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"turned knows other classes than the data(.|\n)*kind7"):
        limbeck.evaluate(recipe, models=models, output=tmp_path / "none")


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, Path]:
    """Two models' answers to eight questions, one of them right throughout."""
    made = {}
    for name, wrong in (("a", 0), ("b", 4)):
        rows = [{"q": f"q{i}", "gold": "A", "said": "B" if i < wrong else "A"} for i in range(8)]
        made[name] = tmp_path / f"{name}.jsonl"
        made[name].write_text("\n".join(map(json.dumps, rows)))
    return made


COLUMNS = {"id": "q", "target": "gold", "prediction": "said"}


def test_recorded_predictions_need_no_recipe(recorded: dict[str, Path], tmp_path: Path) -> None:
    found = limbeck.evaluate(predictions=recorded, columns=COLUMNS, against="a", output=tmp_path / "matrix")
    assert (found.score("a", "accuracy"), found.score("b", "accuracy")) == (1.0, 0.5)
    assert found.score("b", "mcnemar_p_teacher") == pytest.approx(2 * 0.5**4)
    assert found.score("b", "new_errors") == 0.5
    # What it leaves can be read again, without a word on columns, and in another company.
    tables = {name: tmp_path / "matrix" / f"predictions-{name}.parquet" for name in recorded}
    again = limbeck.evaluate(predictions=tables, output=tmp_path / "again")
    assert again.score("b", "accuracy") == 0.5
    assert not [row for row in again.scores if row["axis"] == "comparison"]
    few = limbeck.evaluate(
        language(tmp_path / "run", evaluate={"metrics": ["accuracy"], "resamples": 100}),
        predictions=tables,
        output=tmp_path / "few",
    )
    assert {row["name"] for row in few.scores} == {"accuracy"}
    recorded["b"].write_text(recorded["b"].read_text().replace("q7", "q9"))
    with pytest.raises(DataError, match="different samples"):
        limbeck.evaluate(predictions=recorded, columns=COLUMNS, output=tmp_path / "matrix")


def test_one_file_may_hold_all_models(tmp_path: Path) -> None:
    rows = [("id", "gold", "a", "b"), *((f"q{i}", "A", "A", "AB"[i % 2]) for i in range(8))]
    (tmp_path / "wide.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    found = limbeck.evaluate(
        predictions=dict.fromkeys("ab", tmp_path / "wide.csv"),
        columns={"target": "gold", "prediction": "{model}"},
        output=tmp_path / "matrix",
    )
    assert (found.score("a", "accuracy"), found.score("b", "accuracy")) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give `models` or `predictions`"),
        ({"predictions": {}}, "give `models` or `predictions`"),
        ({"models": {"a": "x"}, "predictions": {"a": "x"}}, "give `models` or `predictions`"),
        ({"models": {"a": "x"}}, "no recipe"),
        ({"predictions": {"a/b": "x"}}, "a/b"),
        ({"predictions": {"a-draws": "x"}}, "a-draws"),
        ({"predictions": {"a": "x"}, "against": "c"}, "not among the models"),
        ({"predictions": {"teacher": "x", "b": "y"}, "against": "b"}, "give it another name"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        limbeck.evaluate(**options)


def test_addresses_and_folders_that_hold_no_model(run: dict[str, Any], tmp_path: Path) -> None:
    assert endpoint_at("https://host/v1#org/name", "MY_KEY").model == "org/name"
    with pytest.raises(RecipeError, match="which model"):
        endpoint_at("https://host/v1")
    with pytest.raises(RecipeError) as told:
        endpoint_at("https://host/v1#name", "sk-secret")
    assert "sk-secret" not in str(told.value)
    with pytest.raises(ModelError, match="there is no model in"):
        limbeck.evaluate(run, models={"a": str(tmp_path)}, output=tmp_path / "matrix")
    with pytest.raises(LimbeckError, match="MISSING_KEY is not set"):
        limbeck.evaluate(
            run, models={"a": "http://127.0.0.1:9/v1#a"}, api_key="MISSING_KEY", output=tmp_path / "matrix"
        )
