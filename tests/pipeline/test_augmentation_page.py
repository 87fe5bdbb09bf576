"""docs/augmentation.md: its recipes run, and its examples are what the parts give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import limbeck
from limbeck.core.errors import RecipeError
from limbeck.core.parts import build, names
from limbeck.data.augmentation import DrawKey
from tests.pipeline.recipes import stage, texts

PAGE = (Path(__file__).parents[2] / "docs" / "augmentation.md").read_text(encoding="utf-8")
RECIPES = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["output"])
def test_two_steps(recipe: dict[str, object], tmp_path: Path) -> None:
    settings = [f"output={tmp_path}/run", "stages.distil.max_steps=2", "teacher.finetune.max_steps=2"]
    result = limbeck.run(recipe, [*settings, "data.max_samples=64"], until="train")
    lines = (result.output / "train" / "steps.jsonl").read_text().splitlines()
    terms = [term["type"] for term in recipe["stages"][0]["terms"]]  # type: ignore[index]
    assert len(lines) == 2
    assert set(terms) <= set(json.dumps(json.loads(lines[0])).replace('"', " ").split())


def test_texts_are_augmented_and_pictures_parts_refused(tmp_path: Path) -> None:
    words = [{"type": "typo"}, {"type": "token_deletion"}]
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", stages=[stage(augment=words)])
    assert limbeck.run(recipe, until="train").output.joinpath("train", "student").is_dir()
    with pytest.raises(RecipeError, match="'mixup' changes pixels"):
        limbeck.run(recipe, ["stages.distil.augment=[{type: mixup}]"], until="train")


def test_examples() -> None:
    english, chinese = re.findall(r"^\| part \| (.*) \|$", PAGE, re.MULTILINE)
    words, key = english.split(), lambda step: DrawKey(0, step).draws("train/0", 0)
    typo, swap, deletion = (
        build("augmentation", {"type": name, **more})
        for name, more in (("typo", {"rate": 0.1}), ("token_swap", {}), ("token_deletion", {"rate": 0.2}))
    )
    assert f"| {typo.text(english, key(1))} |" in PAGE  # type: ignore[attr-defined]
    for part, step in ((deletion, 0), (swap, 2)):
        kept = part.tokens(range(len(words)), key(step))  # type: ignore[attr-defined]
        assert f"| {' '.join(words[i] for i in kept)} |" in PAGE
    pytest.importorskip("pypinyin")
    homophone = build("augmentation", {"type": "homophone", "rate": 0.3})
    assert f"| {homophone.text(chinese, key(1))} |" in PAGE  # type: ignore[attr-defined]


def test_every_part_is_named() -> None:
    assert all(f"`{name}`" in PAGE for name in names("augmentation"))
