"""`limbeck evaluate`: the recipe's step as before, any models, recorded predictions, and what does not go together."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from limbeck.pipeline.measure import Measured
from limbeck.pipeline.run import Result
from tests.cli.command import inside, refused

RECIPE = str(Path(__file__).parents[2] / "recipes" / "quickstart.yaml")


def test_a_recipe_alone_is_run_as_far_as_its_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def run_recipe(recipe: Any, *, until: str, force: bool) -> Result:
        seen.update(seed=recipe.seed, until=until, force=force)
        return Result(tmp_path, tmp_path / "train" / "student", None, [])

    monkeypatch.setattr("limbeck.pipeline.run.run_recipe", run_recipe)
    done = inside(monkeypatch, "evaluate", RECIPE, "seed=3", "--force")
    assert (done.returncode, seen) == (0, {"seed": 3, "until": "evaluate", "force": True})
    assert "evaluate is done" in done.stdout


def test_models_and_how_they_are_asked_reach_the_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def evaluate(recipe: Any, **options: Any) -> Measured:
        seen.update(options, seed=recipe.seed)
        return Measured(tmp_path, [])

    monkeypatch.setattr("limbeck.pipeline.api.evaluate", evaluate)
    words = ["--model", "small=runs/x", "--model", "big=https://host/v1#a=b", "--against", "big"]
    words += ["--api-key-env", "KEY", "--template", "{prompt}!", "--budget-tokens", "9", "-o", str(tmp_path)]
    assert inside(monkeypatch, "evaluate", RECIPE, "seed=3", *words).returncode == 0
    assert seen == {
        "seed": 3,
        "models": {"small": "runs/x", "big": "https://host/v1#a=b"},
        "predictions": None,
        "output": tmp_path,
        "against": "big",
        "api_key": "KEY",
        "template": "{prompt}!",
        "budget": {"tokens": 9},
        "columns": None,
        "classes": None,
        "force": False,
    }


def test_recorded_predictions_are_scored_and_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, wrong in (("a", 0), ("b", 4)):
        rows = [{"q": f"q{i}", "ok": i >= wrong} for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tables = [word for name in "ab" for word in ("--predictions", f"{name}={tmp_path / f'{name}.jsonl'}")]
    done = inside(monkeypatch, "evaluate", *tables, "--columns", "id=q,correct=ok", "-o", str(tmp_path / "matrix"))
    assert done.returncode == 0, done.stderr
    shown = done.stdout.replace("\N{NO-BREAK SPACE}", " ")
    assert [line.split()[0] for line in shown.splitlines() if line[:2] in ("a ", "b ")] == ["a", "b"]
    assert "50.0 %" in shown
    assert str(tmp_path / "matrix" / "scores.json") in shown.replace("\n", "")
    assert (tmp_path / "matrix" / "predictions-b.parquet").exists()


def test_other_forms_are_read_as_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = (Path(RECIPE).parents[1] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    by_model, by_row = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    wide = next(block for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "{model}" in block)
    columns = re.findall(r"with `--columns '(.*?)'`", page)[0]
    monkeypatch.chdir(tmp_path)

    table = "question_id,gold,large,small,category\n" + "".join(f"q{i},A,A,{'AB'[i % 2]},law\n" for i in range(8))
    Path("answers.csv.gz").write_bytes(gzip.compress(table.encode()))
    done = inside(monkeypatch, *shlex.split(wide.replace("\\\n", ""))[1:])
    assert done.returncode == 0, done.stderr
    assert scores("evaluation")["small", "accuracy"] == 0.5
    assert scores("evaluation")["small", "kept_of_teacher"] == 0.5

    traces = [{"model": m, "id": i, "correct": i > k} for k, m in enumerate(("a (new)", "b")) for i in range(4)]
    Path("traces.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in traces).encode()))
    exec(by_model, {})
    words = ["--predictions", "a_new=a_new.jsonl", "--predictions", "b=b.jsonl", "-o", "traces"]
    assert inside(monkeypatch, "evaluate", *words).returncode == 0
    assert scores("traces") == {("a_new", "accuracy"): 0.75, ("b", "accuracy"): 0.5}

    text = {"large_solution": "1 + 1 = 2\nA: 2", "small_solution": "1 + 1 = 3\nA: 3"}
    rows = [{**text, "large_is_correct": True, "small_is_correct": False}] * 3
    Path("solutions.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    exec(by_row, {})
    words = ["--predictions", "large=solutions.jsonl", "--predictions", "small=solutions.jsonl", "-o", "solutions"]
    assert inside(monkeypatch, "evaluate", *words, "--columns", columns).returncode == 0
    found = scores("solutions")
    assert (found["large", "answer_accuracy"], found["small", "answer_accuracy"]) == (1, 0)
    assert found["small", "step_equations_right"] == 0


def scores(folder: str) -> dict[tuple[str, str], float]:
    rows = json.loads(Path(folder, "scores.json").read_text())
    return {(row["model"], row["name"]): row["value"] for row in rows}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to evaluate"),
        ([RECIPE, "--against", "a"], "--against would have no effect"),
        ([RECIPE, "--model", "a=x", "--columns", "id=q"], "--columns would have no effect"),
        (["--predictions", "a=x", "--template", "{prompt}"], "--template would have no effect"),
        ([RECIPE, "--model", "a=x", "--predictions", "a=x"], "only one of"),
        ([RECIPE, "--model", "x"], "NAME=VALUE"),
        ([RECIPE, "--model", "a=x", "--model", "a=y"], "`a` twice"),
        (["--model", "a=x"], "a recipe's rows"),
    ],
)
def test_what_does_not_go_together_is_told(monkeypatch: pytest.MonkeyPatch, words: list[str], said: str) -> None:
    refused(inside(monkeypatch, "evaluate", *words), said)
