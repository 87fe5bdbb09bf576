"""Several runs on one page, and the gallery."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.core.artifacts import seal, write_json
from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.pipeline.compare import compare
from limbeck.pipeline.gallery import gallery
from limbeck.report.comparison import comparison_headline, differing, together
from tests.report.details import make_details
from tests.report.html_check import Page
from tests.report.made import NO_LOGS, RECIPE, changed, make_facts


def runs() -> dict[str, Any]:
    small = make_facts(**NO_LOGS)
    large = make_facts(scores=changed("accuracy", value=0.925), recipe={**RECIPE, "seed": 3}, **NO_LOGS)
    return {"small": small, "large": large}


def test_students_go_by_their_runs() -> None:
    facts = together(runs(), "two", "en", {})
    assert facts.models == ["teacher", "small", "large"]
    assert facts.find("large", "accuracy")["value"] == 0.925  # type: ignore[index]
    assert len([r for r in facts.scores if (r["model"], r["name"]) == ("teacher", "accuracy")]) == 1
    assert {row["model"] for row in facts.details["slices"]} == {"small", "large"}
    assert set(facts.details["reliability"]) == {"teacher", "small", "large"}
    assert comparison_headline(facts).startswith("Best of 2 students: large, Accuracy 92.5")


def test_teachers_that_differ_are_told_apart() -> None:
    other = replace(runs()["large"], scores=changed("accuracy", model="teacher", value=0.99))
    assert together({"a": runs()["small"], "b": other}, "", "en", {}).models == ["a: teacher", "a", "b: teacher", "b"]


def test_a_shared_teacher_is_told_once() -> None:
    facts = together(runs(), "two", "en", {})
    for name in ("classes", "robustness", "speed"):
        own = make_details()[name]
        alone = [row for row in own if row["model"] == "teacher"]
        assert [row for row in facts.details[name] if row["model"] == "teacher"] == alone
        assert len(facts.details[name]) == len(alone) * 3
    assert [row["model"] for row in facts.details["lens"]] == ["small", "large"]
    assert facts.has_teacher


def test_students_that_are_as_good_share_the_headline() -> None:
    same = {"a": make_facts(**NO_LOGS), "b": make_facts(**NO_LOGS)}
    assert comparison_headline(together(same, "", "en", {})) == "Best of 2 students: a and b, Accuracy 91.8\u00a0%."


def test_what_differs_in_the_recipes_is_shown() -> None:
    assert differing(runs()) == [{"key": "seed", "values": {"small": 0, "large": 3}}]


def table(folder: Path, right: list[bool]) -> None:
    rows = {"id": [f"r{i}" for i in range(len(right))], "correct": right, "target": ["a"] * len(right)}
    pq.write_table(pa.table({**rows, "prediction": ["a" if r else "b" for r in right]}), folder)


def a_run(folder: Path, accuracy: float, right: list[bool], **recipe: Any) -> Path:
    """The folder of a run that was evaluated, without its weights."""
    (folder / "train").mkdir(parents=True)
    (folder / "evaluate" / "details").mkdir(parents=True)
    (folder / "report").mkdir()
    for name in ("steps", "evals"):
        (folder / "train" / f"{name}.jsonl").write_text("")
    write_json(folder / "recipe.json", {**RECIPE, **recipe})
    write_json(folder / "evaluate" / "scores.json", changed("accuracy", value=accuracy))
    write_json(folder / "evaluate" / "details" / "errors.json", make_details()["errors"])
    table(folder / "evaluate" / "predictions-student.parquet", right)
    for name in ("train", "evaluate"):
        seal(folder / name, {"kind": name, "model": {"name": "student"}, "seconds": 1.0, "parents": {}, "versions": {}})
    return folder


def test_runs_are_compared_from_their_folders(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", 0.9, [True] * 90 + [False] * 10)
    other = a_run(tmp_path / "other", 0.7, [True] * 70 + [False] * 30, seed=2)
    made = compare([one, other], tmp_path / "both", language="zh")
    html, markdown, data = (path.read_text(encoding="utf-8") for path in made.files)
    page = Page(html)
    assert page.root.all("html")[0].attrs["lang"] == "zh"
    assert page.loads() == []
    assert "前者更好" in html
    assert "前者更好" in markdown
    found = json.loads(data)
    [pair] = found["details"]["paired"]
    assert pair["difference"] == pytest.approx(0.2)
    assert pair["n"] == 100
    assert pair["p"] == pytest.approx(2 * 0.5**20)
    assert found["details"]["recipes"] == [{"key": "seed", "values": {"one": 0, "other": 2}}]
    assert set(found["details"]["errors"]) == {"one", "other"}
    told = found["details"]["differing"]
    assert [each["id"] for each in told] == [f"r{i}" for i in (70, 72, 74, 76, 78, 81, 83, 85, 87, 89)]
    assert told[0]["answers"]["one"] == {"prediction": "a", "correct": True}
    assert told[0]["answers"]["other"] == {"prediction": "b", "correct": False}
    assert "有的学生答对、有的学生答错的行" in html


def test_only_rows_of_both_are_paired(tmp_path: Path) -> None:
    one = a_run(tmp_path / "one", 0.9, [True] * 50)
    other = a_run(tmp_path / "other", 0.9, [True] * 30)
    assert compare([one, other], tmp_path / "both").facts.details["paired"][0]["n"] == 30


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="several runs"):
        compare([tmp_path, tmp_path], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no finished run"):
        compare([tmp_path, tmp_path / "empty"], tmp_path / "out")


def test_the_gallery_links_its_reports(tmp_path: Path) -> None:
    made = [a_run(tmp_path / name, 0.9, [True]) for name in ("one", "an other")]
    index = gallery(tmp_path / "gallery", made)
    page = Page(index.read_text())
    links = [link.attrs["href"] for link in page.root.all("a")]
    assert links == ["one/index.html", "an%20other/index.html"]
    assert (tmp_path / "gallery" / "an other" / "index.html").is_file()
    assert not page.root.all("script")


def test_a_gallery_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="needs runs"):
        gallery(tmp_path / "gallery", [])
