"""The page about compact models: its recipe is one, and its model can be made."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from limbeck.core.recipe import load_recipe
from limbeck.models.compact import CompactForCausalLM
from limbeck.models.load import load_model

PAGE = Path(__file__).parents[3] / "docs" / "compact.md"


def test_the_recipe_of_the_page_is_one() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    recipe = load_recipe(yaml.safe_load(text))
    assert recipe.student.config is not None
    small = {"hidden_size": 12, "embedding_size": 4, "intermediate_size": 16, "num_hidden_layers": 1}
    spec = recipe.student.model_copy(update={"config": {**recipe.student.config, **small}})
    model = load_model(spec, "AutoModelForCausalLM", settings={"vocab_size": 40})
    assert type(model) is CompactForCausalLM
    assert (model.config.segment_length, model.config.summary_tokens) == (512, 8)
