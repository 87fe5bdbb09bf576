"""`limbeck cascade`, and a server with one: from a run to answers, and from disagreements to rows of the next round."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from limbeck.cli.cascade import distinct, thinned
from limbeck.core.recipe import Recipe
from limbeck.core.types import Sample
from limbeck.data.feedback import feedback_rows
from limbeck.pipeline.run import Result, run_recipe
from limbeck.runtime.student import load_student
from tests.cli.command import inside, refused
from tests.cli.test_serve import started
from tests.pipeline import recipes

httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cascade")
    recipe = recipes.texts(home / "run", home / "rows.csv")
    recipe["data"]["validation"] = 0.5
    run_recipe(Recipe.model_validate(recipe), until="evaluate")
    return home / "run"


def test_table_and_threshold_of_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "cascade", str(run), "cascade={promise: {teacher_share: 0.9}, level: 0.6}")

    assert done.returncode == 0, done.stderr
    assert "40 test rows" in done.stdout
    assert "promised: teacher_share of at most 0.9, with 60%, fitted on 16 validation rows" in done.stdout
    assert "always" in done.stdout
    assert "limbeck serve" in done.stdout


@pytest.mark.slow
def test_server_with_a_cascade_keeps_what_models_disagree_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "cascade={promise: {latency: 1000}, latency: 1, level: 0.6, to: [{model: teacher, latency: 1}]}"
    assert inside(monkeypatch, "cascade", str(run), given).returncode == 0
    plan = json.loads((run / "cascade" / "threshold.json").read_text())
    assert plan["threshold"] > 1  # nothing is dearer than what is allowed: the teacher is always asked

    with started(str(run), "--cascade", "--feedback") as (process, said):
        assert said["run"].startswith("student -> teacher")
        texts = [f"it is {i} today" for i in range(40)]
        reply = httpx.post(f"{said['http']}/predict", json={"inputs": texts}, timeout=60).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0

    assert {each["by"] for each in reply["predictions"]} == {"teacher"}
    files = list((run / "feedback").glob("*.jsonl"))
    kept = list(feedback_rows(run / "feedback")) if files else []
    student = load_student(run / "train" / "student").predict([Sample(text, {"text": text}) for text in texts])
    pairs = zip(texts, student, reply["predictions"], strict=True)
    apart = {text: after["label"] for text, before, after in pairs if before.label != after["label"]}
    assert {row["inputs"]["text"]: row["label"] for row in kept} == apart


def test_next_round_is_run_in_a_folder_of_its_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "feedback").mkdir(exist_ok=True)
    row = {"inputs": {"text": "something else"}, "label": "kind1"}
    (run / "feedback" / "feedback-000009.jsonl").write_text(json.dumps(row) + "\n")
    seen: list[Recipe] = []

    def run_recipe(recipe: Recipe, **_: Any) -> Result:
        seen.append(recipe)
        return Result(recipe.output, recipe.output / "train" / "student", None, [])

    monkeypatch.setattr("limbeck.pipeline.run.run_recipe", run_recipe)
    done = inside(monkeypatch, "run", str(run / "recipe.json"), "--from", "feedback")

    assert done.returncode == 0, done.stderr
    assert seen[0].output == run.with_name("run-round-2")
    assert seen[0].data.feedback == run.with_name("run-round-2") / "feedback.jsonl"
    assert "something else" in seen[0].data.feedback.read_text()


def test_words_that_do_not_go_together(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused(inside(monkeypatch, "serve", str(run), "--feedback"), "add --cascade")
    refused(inside(monkeypatch, "serve", str(run), str(run), "--cascade"), "--cascade is for one run")
    refused(inside(monkeypatch, "serve", str(tmp_path), "--cascade"), "has no cascade")
    refused(inside(monkeypatch, "run", str(run / "recipe.json"), "--from", "scratch"), "--from feedback")


def test_few_points_with_both_ends_and_the_chosen_one() -> None:
    points: list[dict[str, Any]] = [
        {"threshold": 1 - i / 100, "teacher_share": 1 - (i // 2) / 50, "asked": [1.0, 1 - (i // 2) / 50]}
        for i in range(101)
    ]

    found = thinned(distinct(points), 6, points[31]["threshold"])

    assert found[0]["teacher_share"] == 1.0
    assert found[-1]["teacher_share"] == 0.0
    assert 6 <= len(found) <= 7
    assert [p for p in found if p["threshold"] == points[31]["threshold"]] == [
        {**points[30], "threshold": points[31]["threshold"]}
    ]
