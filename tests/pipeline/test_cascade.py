"""The step `cascade`: what it leaves, what it promises, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from limbeck.core.artifacts import Artifact, load
from limbeck.core.errors import BudgetError, ModelError, RecipeError
from limbeck.core.recipe import Recipe
from limbeck.core.recipe.cascade import Cascade, Rung
from limbeck.evaluation.predictions import read
from limbeck.models.load import Origin
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._members import Said, check_cascade, members
from limbeck.pipeline.cascade import _costs, _temperature, cascade, rows_of
from limbeck.pipeline.run import run_recipe
from limbeck.runtime.card import Card
from limbeck.runtime.cascade import Member, load_member, read_plan
from tests.pipeline import recipes
from tests.pipeline.endpoint import serving

SHARE = {"promise": {"teacher_share": 0.9}, "level": 0.6}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two kinds; the teacher is trained well enough to tell them apart."""
    output = tmp_path_factory.mktemp("cascade") / "run"
    rows = output.parent / "rows.csv"
    run_recipe(Recipe.model_validate(recipe(output, rows)), until="evaluate")
    return output


def recipe(output: Path, rows: Path, **fields: Any) -> dict[str, Any]:
    found = recipes.texts(output, rows, **fields)
    found["data"]["validation"] = 0.5
    return found


def fitted(output: Path, said: Any) -> Artifact:
    job = RunJob(Recipe.model_validate(recipe(output, output.parent / "rows.csv", cascade=said)))
    made = {name: load(output / name) for name in ("prepare", "train", "evaluate")}
    found = cascade(job, made)
    assert found is not None
    return found


def test_without_the_section_there_is_nothing(evaluated: Path) -> None:
    job = RunJob(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv")))

    assert cascade(job, {}) is None


def test_what_is_left(evaluated: Path) -> None:
    made = fitted(evaluated, SHARE)

    plan = read_plan(evaluated)
    curve = json.loads(made.file("curve.json").read_text())
    assert [member.name for member in plan.members] == ["student", "teacher"]
    assert plan.n + plan.temperature_rows == 20
    assert plan.temperature_rows == 4
    assert json.loads(made.file("threshold.json").read_text())["temperatures"].keys() == {"student", "teacher"}
    assert curve["chosen"]["teacher_share"] <= 0.9
    scores = {(row["model"], row["name"]): row for row in json.loads(made.file("scores.json").read_text())}
    recorded = read(evaluated / "evaluate" / "predictions-teacher.parquet")
    assert scores["teacher", "accuracy"]["value"] == pytest.approx(recorded.correct.mean())
    ends = {point["threshold"]: point for point in curve["test"]["points"]}
    assert ends[max(ends)]["accuracy"] == pytest.approx(recorded.correct.mean())
    assert ends[max(ends)]["teacher_share"] == 1.0
    assert scores["cascade", "teacher_share"]["value"] == curve["test"]["chosen"]["teacher_share"]


def test_served_models_are_as_sure_as_the_fitted_ones(evaluated: Path) -> None:
    fitted(evaluated, SHARE)
    plan = read_plan(evaluated)
    job = RunJob(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv")))
    table = read(evaluated / "evaluate" / "predictions-student.parquet")

    student = load_member(evaluated, plan, plan.members[0])
    answers = student.predict(job.splits.test)

    said = Said(table.correct.astype(bool), np.log(table.probabilities))
    rows = rows_of(plan.members, [said, said])
    assert rows.confidence[0] == pytest.approx([answer.confidence for answer in answers], abs=1e-5)


def test_promise_that_cannot_be_kept_leaves_nothing(evaluated: Path) -> None:
    if (evaluated / "cascade").exists():
        (evaluated / "cascade").rename(evaluated.parent / "earlier")
    with pytest.raises(BudgetError, match=r"no threshold promises accuracy 0\.99 with 95% on 16 rows"):
        fitted(evaluated, {"promise": {"accuracy": 0.99}})

    assert not (evaluated / "cascade").exists()


def test_latency_is_taken_from_the_evaluation_or_the_recipe(evaluated: Path) -> None:
    made = fitted(evaluated, {"promise": {"latency": 1000.0}, "latency": 1.0, "level": 0.6})

    curve = json.loads(made.file("curve.json").read_text())
    took = np.array(json.loads((evaluated / "evaluate/details/latencies.json").read_text())["teacher"])
    assert curve["costs"][0] == 1.0
    # The teacher's mean is below it but for one time in five: half of 1 - level.
    high = took.mean() + t.isf(0.2, len(took) - 1) * took.std(ddof=1) / len(took) ** 0.5
    assert curve["costs"][1] == pytest.approx(high)
    assert curve["chosen"]["teacher_share"] == 1.0  # dearer than all rows cannot be


def test_what_nobody_knows_is_not_promised(evaluated: Path) -> None:
    free = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    for said, reason in (
        ({"promise": {"cost": 1.0}}, "the cost of `teacher` is not known"),
        ({"promise": {"cost": 1.0}, "to": {"endpoint": free}}, "the cost of `m` is not known"),
        ({"promise": {"latency": 1.0}, "to": {"endpoint": free}}, "the latency of `m` is not known"),
    ):
        with pytest.raises(RecipeError, match=reason):
            check_cascade(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv", cascade=said)))
    told = {"promise": {"cost": 1.0}, "to": {"endpoint": free, "cost": 0.0}}
    check_cascade(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv", cascade=told)))


def test_costs_are_those_of_each_row() -> None:
    section = Cascade.model_validate({"to": [{"model": "a", "cost": 3.0}, {"model": "b"}], "promise": {"cost": 1.0}})
    right = np.array([True, False])
    student, fixed = Said(right), Said(right)
    priced = Said(right, cost=np.array([1.0, 2.0]), most=5.0)

    costs, beside = _costs(section, [], [student, fixed, priced], Artifact(Path(), {}))

    assert costs is not None
    assert (costs.first, costs.later.tolist(), costs.most.tolist()) == (0.0, [[3.0, 3.0], [1.0, 2.0]], [3.0, 5.0])
    assert beside == 0.0


def test_a_model_with_its_classes_in_another_order_is_refused(evaluated: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(evaluated / "prepare" / "teacher", other, ignore=shutil.ignore_patterns("limbeck.json"))
    config = json.loads((other / "config.json").read_text())
    for names, said in ((["kind1", "kind0"], "another order"), (["LABEL_0", "LABEL_1"], "does not name its classes")):
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: i for i, name in enumerate(names)}
        (other / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=said):
            fitted(evaluated, {**SHARE, "to": [str(other)]})


def test_a_rung_is_planned_as_the_recipe_names_it(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Origin("org/name", "c0ffee", "unknown", "c0ffee")
    monkeypatch.setattr("limbeck.pipeline._members.origin", lambda spec: found)
    monkeypatch.setattr("limbeck.pipeline._members.member_card", lambda *_: Card(task={}))
    rung = {"model": "org/name", "revision": "v1", "dtype": "bfloat16", "trust_remote_code": True}
    job = RunJob(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv", cascade={"to": [rung]})))

    member = members(job, job.recipe.cascade, {})[1]  # type: ignore[arg-type]

    assert (member.folder, member.revision, member.weights) == ("org/name", "c0ffee", None)
    assert (member.dtype, member.trust_remote_code) == ("bfloat16", True)
    for given, said in (({"revision": "v1"}, "no revisions"), ({"dtype": "float16"}, "keep their type")):
        to = {"model": str(evaluated / "prepare/teacher"), **given}
        job = RunJob(Recipe.model_validate(recipe(evaluated, evaluated.parent / "rows.csv", cascade={"to": [to]})))
        monkeypatch.setattr("limbeck.pipeline._members.member_card", lambda *_: Card(task={}, format="onnx"))
        with pytest.raises(RecipeError, match=said):
            members(job, job.recipe.cascade, {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`dtype`: an `endpoint` has no weights"):
        Rung.model_validate({"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}, "dtype": "float32"})
    with pytest.raises(ValueError, match=r"`revision`: the recipe's `teacher` says so itself"):
        Rung.model_validate({"model": "teacher", "revision": "v1"})


def test_endpoint_stands_behind_the_student(evaluated: Path) -> None:
    def reply(body: dict[str, Any]) -> str:
        said = str(body["messages"][-1]["content"])
        return "no idea" if "it is 3" in said else f" {'KIND1' if 'it is 1' in said else 'kind0'}.\n"

    with serving(reply) as endpoint:
        said = {"to": {"endpoint": endpoint.section()}, "promise": {"cost": 1.0}, "level": 0.6}
        made = fitted(evaluated, said)
        asked = len(endpoint.bodies)
        fitted(evaluated, {**said, "level": 0.7})

    curve = json.loads(made.file("curve.json").read_text())
    recorded = read(evaluated / "evaluate" / "predictions-student.parquet")
    odd = [i for i, text in enumerate(recorded["input"]) if "it is 3" in text]
    expected = np.ones(len(recorded))
    expected[odd] = recorded.correct[odd]  # what it does not answer, the student does
    assert curve["test"]["points"][0]["accuracy"] == pytest.approx(expected.mean())
    assert curve["costs"] == [0.0, pytest.approx((10 * 1 + 5 * 2) / 1e6)]
    assert made.manifest["counts"]["unanswered"]["tiny"]["no_class"] > 0
    assert asked == 4 == len(endpoint.bodies)  # each different text once, and never again
    assert "kind0\nkind1" in endpoint.question(0)


def test_models_that_cannot_stand_there(evaluated: Path, tmp_path: Path) -> None:
    job = RunJob(Recipe.model_validate(recipes.language(tmp_path / "run", cascade={})))

    with pytest.raises(RecipeError, match="for classifiers"):
        cascade(job, {})
    rows = tmp_path / "rows.csv"
    for teacher, reason in (
        ({"model": "moving-average"}, "no weights of its own"),
        ({"also": [{"model": "another"}]}, "several teach here"),
        ({"finetune": None, "config": None, "model": "x", "tokenizer": "y"}, "cannot be served"),
    ):
        given = recipe(tmp_path / "run", rows, cascade={})
        given["student"] = {"config": given["teacher"]["config"], "tokenizer": given["teacher"]["tokenizer"]}
        given["teacher"] = teacher if "model" in teacher and "finetune" not in teacher else given["teacher"] | teacher
        with pytest.raises(RecipeError, match=reason):
            run_recipe(Recipe.model_validate(given))
    assert not (tmp_path / "run" / "train").exists()
    with pytest.raises(ValueError, match="called teacher"):
        fitted(evaluated, {"to": ["teacher", "teacher"]})
    with pytest.raises(ValueError, match="exactly one of accuracy"):
        fitted(evaluated, {"promise": {"accuracy": 0.9, "cost": 1.0}})
    with pytest.raises(ValueError, match="places for"):
        fitted(evaluated, {"to": [{"model": "teacher", "prompt": "what?"}]})


def test_temperature_needs_a_wrong_answer() -> None:
    logs = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]))
    targets, places = np.array([0, 0, 0]), np.arange(3)

    assert _temperature(Said(np.array([True, True, True]), logs[[0, 1, 0]]), targets, places) == 1.0
    assert _temperature(Said(np.array([True, True, False]), logs), targets, places) != 1.0


def test_unanswered_rows_stay_with_the_model_before() -> None:
    logs = np.log([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    student = Said(np.array([True, True, False]), logs)
    middle = Said(np.array([False, False, True]), None, np.array([False, True, False]))
    last = Said(np.array([True, False, True]), None, np.array([False, True, True]))

    rows = rows_of([Member(name=name) for name in "abc"], [student, middle, last])

    assert rows.right.tolist() == [[True, True, False], [False, True, True], [True, True, True]]
    assert rows.confidence[0] == pytest.approx([0.9, 0.6, 0.6])
    assert rows.confidence[1].tolist() == [1.0, 0.0, 1.0]
