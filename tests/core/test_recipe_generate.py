"""The section `generate`, and a teacher that is an endpoint."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import dump_recipe, load_recipe
from tests.core.recipes import recipe, refusal

ENDPOINT = {"base_url": "https://host/v1/", "model": "big", "api_key": "BIG_KEY", "price": {"input": 0.3, "output": 1}}


def asking(**fields: Any) -> dict[str, Any]:
    """A recipe whose teacher is an endpoint."""
    own: dict[str, Any] = {
        "task": "causal-lm",
        "teacher": {"endpoint": ENDPOINT},
        "data": {"train": "arithmetic"},
        "stages": [{"name": "sft", "terms": ["cross_entropy"]}],
        "generate": {"samples": 4},
    }
    return recipe(**{**own, **fields})


def test_one_data_stage_or_several() -> None:
    one = load_recipe(asking(generate={"samples": 4, "keep": {"most": 2, "prefer": "diverse"}}))
    assert [(each.name, each.samples) for each in one.generate] == [("basic", 4)]
    several = load_recipe(
        asking(generate=[{"name": "basic"}, {"name": "hard", "samples": 8}]), ["generate.hard.seed=3"]
    )
    assert [(each.name, each.seed) for each in several.generate] == [("basic", 0), ("hard", 3)]
    assert load_recipe(asking(generate=None, teacher=None)).generate == []


def test_it_survives_being_written_down() -> None:
    stage = {
        "prompts": "rows.jsonl",
        "perturb": ["typos"],
        "synthesize": {"by": "self_instruct", "count": 5},
        "verify": {"type": "math_answer"},
        "filters": ["truncated"],
        "samples": 3,
        "vote": 0.6,
        "writer": "some/model",
    }
    loaded = load_recipe(asking(generate=stage))
    assert load_recipe(dump_recipe(loaded)) == loaded
    assert loaded.generate[0].writer is not None
    assert loaded.generate[0].writer.model == "some/model"
    assert loaded.teacher is not None
    assert loaded.teacher.endpoint is not None
    assert loaded.teacher.endpoint.base_url == "https://host/v1"


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({"endpoint": {**ENDPOINT, "base_url": "host/v1"}}, "an address such as"),
        ({"endpoint": {**ENDPOINT, "base_url": "https://me:secret@host/v1"}}, "the address holds a secret"),
        ({"endpoint": {**ENDPOINT, "api_key": "sk-secret"}}, "name of an environment variable"),
        ({"endpoint": ENDPOINT, "model": "x"}, "give exactly one of `model`, `config`, `recipe` and `endpoint`"),
        ({"endpoint": ENDPOINT, "remember": True}, "gives text alone: no `finetune`, `also` or `remember`"),
        ({"endpoint": ENDPOINT, "dtype": "bfloat16"}, "`dtype`: an `endpoint` has no weights here"),
        ({"model": "x", "also": [{"endpoint": ENDPOINT}]}, "a teacher of `also` cannot be"),
        ({"model": "moving-average"}, "nobody can write for `generate` (basic)"),
        (None, "nobody can write for `generate` (basic)"),
    ],
)
def test_teachers_that_cannot_be(teacher: Any, said: str) -> None:
    told = refusal({**asking(), "teacher": teacher})
    assert said in told
    assert "secret@" not in told
    assert "sk-secret" not in told


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stages": [{"name": "s", "terms": ["cross_entropy", "kl"]}]}, "for distributions or layers: kl (stage s)"),
        ({"student": {"model": "from-teacher", "layers": [0]}}, "has no weights here to cut it from"),
        ({"generate": None}, "nothing is asked of it; add `generate`"),
        ({"generate": [{}, {"name": "basic"}]}, "given twice: basic"),
        ({"generate": {"name": "a/b"}}, "generate.0.name"),
        ({"generate": {"template": "no place"}}, "has no `{prompt}`"),
        ({"generate": {"originals": False}}, "leaves no prompts"),
        ({"generate": {"keep": {"most": 2}}}, "only 1 answers to a prompt"),
        ({"generate": {"vote": True, "verify": "math_answer"}}, "at least 3 `samples`"),
        ({"generate": {"vote": True, "samples": 3}}, "a vote needs `verify`"),
        ({"generate": {"verify": "maths"}}, "this names no verifier"),
        ({"generate": {"filters": ["kl"]}}, "this names no filter"),
        ({"generate": {"sampling": {"top_k": 5}}}, "generate.0.sampling.top_k: unknown key"),
        ({"generate": {"synthesize": {"by": "class", "count": 3}, "samples": 2}}, "`samples`: texts of a class"),
        ({"generate": {"samples": 2, "sampling": {"temperature": 0}}}, "all 2 `samples` of a prompt"),
        ({"generate": {"samples": 2, "sampling": {"extra": {"top_k": 1}}}}, "the sampling is greedy"),
        ({"generate": {"samples": 2, "sampling": {"extra": {"temperature": 0}}}}, "raise `sampling.temperature`"),
        ({"generate": {"sampling": {"extra": {"n": 4}}}}, "cannot be set as extra ones: n"),
        ({"generate": {"sampling": {"extra": {"max_completion_tokens": "many"}}}}, "no number of tokens: 'many'"),
        ({"teacher": {"endpoint": {**ENDPOINT, "extra": {"stream": True}}}}, "cannot be set as extra ones: stream"),
        ({"generate": {"max_failed": 1.5}}, "generate.0.max_failed"),
        ({"generate": {"writer": {"config": {"model_type": "qwen3"}}}}, "a new model can write nothing"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(fields: dict[str, Any], said: str) -> None:
    assert said in refusal({**asking(), **fields})


@pytest.mark.parametrize(
    "stage",
    [
        {"sampling": {"temperature": 0}},
        {"samples": 2, "sampling": {"temperature": 0, "extra": {"temperature": None}}},
        {"samples": 2, "sampling": {"temperature": 0, "extra": {"temperature": 0.5}}},
    ],
)
def test_one_greedy_answer_and_many_drawn_ones_are_fine(stage: dict[str, Any]) -> None:
    assert load_recipe(asking(generate=stage)).generate[0].samples in (1, 2)


def test_a_key_in_a_recipe_is_in_no_traceback() -> None:
    endpoint = {**ENDPOINT, "api_key": "sk-very-secret"}
    with pytest.raises(RecipeError) as told:
        load_recipe(asking(generate={"verify": {"type": "judge", "model": {"endpoint": endpoint}}}))
    assert "not the key itself" in str(told.value)
    assert "sk-very-secret" not in "".join(traceback.format_exception(told.value))
