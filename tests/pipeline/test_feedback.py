"""The loop is closed: what a server keeps is learned from in the next round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.core.errors import DataError
from limbeck.core.recipe import Recipe, load_recipe
from limbeck.pipeline.feedback import next_round
from limbeck.pipeline.run import run_recipe
from tests.pipeline import recipes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("feedback")
    run_recipe(Recipe.model_validate(recipes.texts(home / "run", home / "rows.csv")), until="train")
    return home / "run"


def keep(run: Path, number: int, *texts: str) -> None:
    folder = run / "feedback"
    folder.mkdir(exist_ok=True)
    rows = [{"inputs": {"text": text}, "label": "kind1", "by": "teacher"} for text in texts]
    (folder / f"feedback-{number:06d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_next_round_learns_from_what_was_kept(trained: Path) -> None:
    recipe = load_recipe(json.loads((trained / "recipe.json").read_text()), [])
    with pytest.raises(DataError, match="no feedback"):
        next_round(recipe)
    keep(trained, 1, "quite another text", "it is 1 today")
    following = next_round(recipe)

    result = run_recipe(following, until="train")

    assert result.output == trained.with_name("run-round-2")
    manifest = json.loads((result.output / "train" / "manifest.json").read_text())
    assert manifest["counts"]["feedback"]["added"] == 1  # the other is a training row already
    assert not (result.output / "prepare" / "teacher").exists()  # the teacher is that of the first round
    assert following.teacher is not None
    assert following.teacher.model == str((trained / "prepare" / "teacher").resolve())


def test_a_round_stays_as_it_began_until_it_is_forced(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(json.loads((trained / "recipe.json").read_text()), [])
    keep(trained, 1, "one")
    rows = trained.with_name("run-round-2") / "feedback.jsonl"

    next_round(recipe, force=True)
    keep(trained, 2, "two")
    assert "--force" not in capsys.readouterr().err
    next_round(recipe)
    assert "--force takes those of now" in " ".join(capsys.readouterr().err.split())
    held = rows.read_text().count("\n")
    next_round(recipe, force=True)

    assert (held, rows.read_text().count("\n")) == (1, 2)


def test_third_round_learns_from_both(trained: Path) -> None:
    recipe = load_recipe(json.loads((trained / "recipe.json").read_text()), [])
    keep(trained, 1, "one")
    keep(trained, 2, "two")
    second = next_round(recipe, force=True)
    keep(second.output, 1, "two", "three")

    third = next_round(second, force=True)

    assert third.output == trained.with_name("run-round-3")
    texts = [json.loads(line)["inputs"]["text"] for line in (third.output / "feedback.jsonl").read_text().splitlines()]
    assert texts == ["one", "two", "three"]
