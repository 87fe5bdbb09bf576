"""The sections `evaluate` and `budget`."""

from __future__ import annotations

from limbeck.core.recipe import dump_recipe, load_recipe
from tests.core.recipes import recipe, refusal


def test_it_survives_being_written_down() -> None:
    evaluate = {
        "metrics": ["accuracy"],
        "slices": ["country"],
        "robustness": {"perturbations": ["typos", {"type": "distractor"}], "severities": [2, 4]},
        "interpretability": None,
        "speed": {"price_per_hour": 0.5},
    }
    loaded = load_recipe(recipe(evaluate=evaluate, budget={"bytes": 1_000_000, "latency_p95": 20}))
    assert load_recipe(dump_recipe(loaded)) == loaded
    assert loaded.evaluate.interpretability is None
    assert loaded.budget is not None
    assert (loaded.budget.bytes, loaded.budget.memory) == (1_000_000, None)


def test_a_perturbation_that_a_model_writes_is_refused() -> None:
    said = refusal(recipe(evaluate={"robustness": {"perturbations": ["paraphrase"]}}))
    assert "written by a model" in said
    assert "generate" in said
