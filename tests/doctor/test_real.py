"""Real runs: one that is well, one whose learning rate is a thousand times too large, and a probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core.errors import TrainingError
from limbeck.core.recipe import Recipe
from limbeck.pipeline.doctor import examine_recipe, examine_run
from tests.doctor.made import ill
from tests.pipeline.recipes import QUICK, resnet, stage


def recipe(output: Path, teacher: dict[str, Any], learning_rate: float) -> dict[str, Any]:
    terms = [{"type": "cross_entropy", "weight": 0.3}, {"type": "kl", "weight": 0.7, "temperature": 2}]
    plan = stage(max_steps=300, terms=terms, learning_rate=learning_rate, warmup_ratio=0.1)
    return {
        "task": {"type": "image-classification", "image_size": 16},
        "output": str(output),
        "teacher": teacher,
        "student": {"config": resnet(8)},
        "data": {"train": "digits"},
        "training": {"gradient_cosine_steps": 50},
        "stages": [plan],
        "baseline": True,
        "evaluate": {**QUICK, "robustness": None, "interpretability": None, "latency_runs": 2},
    }


@pytest.mark.slow
def test_a_healthy_run_and_a_sick_one(tmp_path: Path) -> None:
    teacher = {"config": resnet(12), "finetune": {"max_steps": 300, "learning_rate": 1e-2}}
    well = tmp_path / "well"
    limbeck.run(recipe(well, teacher, 1e-2), until="evaluate")
    assert ill(well) == {}
    told = {each.check: each for each in examine_run(well)}
    assert told["fighting_terms"].severity == "ok"  # labels and teacher want the same here
    assert "over 6 steps" in told["fighting_terms"].evidence

    ready = {"model": str(well / "prepare" / "teacher")}
    weak = recipe(tmp_path / "weak", ready, 1e-2)
    weak["stages"][0]["terms"][1]["weight"] = 1e-6
    limbeck.run({**weak, "baseline": False}, until="evaluate")
    assert list(ill(tmp_path / "weak")) == ["negligible_term"]

    sick = tmp_path / "sick"
    try:
        limbeck.run(recipe(sick, ready, 10.0), until="evaluate")
    except TrainingError:  # on another processor the loss may leave the numbers before the end
        assert "gradients" in ill(sick)
        return
    found = ill(sick)
    assert {"gradients", "capability_loss"} <= found.keys()
    assert "learning_rate=1e+00" in str(found["gradients"].change)


@pytest.mark.slow
def test_a_probe_says_how_long_it_takes(tmp_path: Path) -> None:
    teacher = {"config": resnet(4), "finetune": {"max_steps": 40}}
    planned = recipe(tmp_path / "run", teacher, 1e-2)
    found = examine_recipe(Recipe.model_validate(planned), probe=True)
    told = next(each for each in found if each.check == "time_and_cost")
    assert "finetune" in told.evidence
    assert "a step x 300" in told.evidence
    assert "from 20 steps" in told.evidence
    assert not (tmp_path / "run").exists()


def test_gradients_of_terms_are_right_and_change_nothing(tmp_path: Path) -> None:
    terms = [
        {"type": "kl", "weight": 1.0},
        {"type": "kl", "name": "again", "weight": 0.5},
        {"type": "kl", "name": "against", "weight": -0.25},
    ]
    rows: dict[int | None, list[dict[str, Any]]] = {}
    for every in (None, 2):
        made = recipe(tmp_path / str(every), {"config": resnet(4), "finetune": {"max_steps": 1}}, 1e-3)
        made |= {"training": {"gradient_cosine_steps": every}, "stages": [stage(max_steps=3, terms=terms)]}
        made |= {"baseline": False, "data": {"train": "digits", "max_samples": 64}}
        limbeck.run(made, until="train")
        text = (tmp_path / str(every) / "train" / "steps.jsonl").read_text()
        rows[every] = [json.loads(line) for line in text.splitlines()]
    assert [row["terms"] for row in rows[None]] == [row["terms"] for row in rows[2]]
    assert [row["grad_norm"] for row in rows[None]] == [row["grad_norm"] for row in rows[2]]
    assert [("gradients" in row) for row in rows[2]] == [True, False, True]
    told = rows[2][0]["gradients"]
    assert told["norms"]["kl"] > 0
    shares = {name: norm / told["norms"]["kl"] for name, norm in told["norms"].items()}
    assert shares == pytest.approx({"kl": 1, "again": 0.5, "against": 0.25}, rel=1e-4)
    cosines = {(one, other): cosine for one, other, cosine in told["cosines"]}
    wanted = {("kl", "again"): 1, ("kl", "against"): -1, ("again", "against"): -1}
    assert cosines == pytest.approx(wanted, abs=1e-4)
    # Asked for after the training, they are measured too.
    again = made | {"output": str(tmp_path / "None"), "training": {"gradient_cosine_steps": 2}}
    limbeck.run(again, until="train")
    assert "gradients" in json.loads((tmp_path / "None" / "train" / "steps.jsonl").read_text().splitlines()[0])
