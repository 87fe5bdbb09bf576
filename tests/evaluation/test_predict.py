"""Predictions against what the models say when they are asked plainly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.core.errors import DataError
from limbeck.core.recipe import Evaluate
from limbeck.core.types import Sample
from limbeck.evaluation.predict import answer, draws, likelihood
from limbeck.evaluation.predictions import Columns, Predictions
from limbeck.tasks._decode import generate
from limbeck.tasks._text import train_bpe
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from tests.training.ragged import samples, tiny_lm


@pytest.fixture(scope="module")
def codec() -> CausalCodec:
    texts = [s.target for s in samples()]
    tokenizer = train_bpe(texts, 270, {"pad_token": "<pad>", "eos_token": "<eos>"})
    return CausalLM(answer_pattern=r"(\w)").codec(tokenizer, None)


def test_likelihood_is_that_of_the_full_logits(codec: CausalCodec) -> None:
    model = tiny_lm(len(codec.processor), 16, 0, torch.float32).eval()
    features = codec.encode(samples(7)).features
    found = likelihood(model, codec, features, 3)
    assert found["id"] == [f.id for f in features]
    for feature, nll, tokens in zip(features, found["nll"], found["tokens"], strict=True):
        batch = codec.collate([feature])
        logits = model(**batch.inputs).logits[0]
        expected = torch.nn.functional.cross_entropy(logits, batch.labels[0], ignore_index=-100, reduction="sum")
        assert nll == pytest.approx(expected.item(), rel=1e-4)
        assert tokens == int((batch.labels != -100).sum())


def test_generation_in_a_padded_batch_is_that_of_one_alone(codec: CausalCodec) -> None:
    model = tiny_lm(len(codec.processor), 16, 3, torch.float32).eval()
    prompts = [codec.prompt_ids(s) for s in samples(5)]
    together = generate(model, prompts, codec.processor.pad_token_id, {10**6}, 6)
    for prompt, row in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(6):  # the plain loop, no cache, no padding
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert row.tolist() == ids[len(prompt) :]


def test_answers_are_graded_and_unfinished_ones_told(codec: CausalCodec) -> None:
    model = tiny_lm(len(codec.processor), 16, 0, torch.float32).eval()
    found = answer(model, codec, samples(6), batch_size=4, max_new_tokens=3, title="answers")
    assert found["id"] == [s.id for s in samples(6)]
    assert found["finished"] == [False] * 6
    for prediction, target, correct, parsed in zip(
        found["prediction"], found["target"], found["correct"], found["parsed"], strict=True
    ):
        assert correct == (prediction == target)
        assert parsed == (prediction is not None)


def test_drawn_answers_hang_on_row_and_number_alone(codec: CausalCodec) -> None:
    model, rows = tiny_lm(len(codec.processor), 16, 3, torch.float32).eval(), samples(4)

    def drawn(rows: list[Sample] = rows, size: int = 3, seed: int = 0, **fields: Any) -> Columns:
        plan = Evaluate(samples=3, max_new_tokens=8, **fields)
        return draws(model, codec, rows, plan, batch_size=size, seed=seed, title=None)

    greedy = answer(model, codec, rows, batch_size=4, max_new_tokens=8, title=None)
    cold, warm = drawn(temperature=1e-6), drawn()
    assert cold["text"] == greedy["text"] * 3
    assert warm["id"] == greedy["id"] * 3
    assert warm["draw"] == [1] * 4 + [2] * 4 + [3] * 4
    assert len(set(warm["text"])) == 12
    assert drawn(rows[2:3], size=1)["text"] == warm["text"][2::4]
    assert drawn(seed=1)["text"] != warm["text"]
    assert Predictions(warm).first["draw"] == [1] * 4


def test_a_target_that_cannot_be_graded_is_an_error(codec: CausalCodec) -> None:
    model = tiny_lm(len(codec.processor), 16, 0, torch.float32).eval()
    odd = Sample("odd", {"messages": [{"role": "user", "content": "a"}]}, "...")
    with pytest.raises(DataError, match="odd"):
        answer(model, codec, [odd], batch_size=1, max_new_tokens=1, title="answers")


def test_a_models_own_generation_settings_do_not_count(codec: CausalCodec) -> None:
    model = tiny_lm(len(codec.processor), 16, 3, torch.float32).eval()
    prompts = [codec.prompt_ids(s) for s in samples(5)]
    plain = generate(model, prompts, codec.processor.pad_token_id, {10**6}, 12)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    assert torch.equal(generate(model, prompts, codec.processor.pad_token_id, {10**6}, 12), plain)
    assert model.generation_config.repetition_penalty == 5.0
