"""Drawing answers: the right distribution, the same text whoever else is in the batch, the same as transformers'."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import chisquare

from limbeck.core.errors import DataError
from limbeck.tasks import _decode
from limbeck.tasks._decode import Drawing, draw, generate, sample

V, PAD, TOKENS = 31, 0, 12
PROMPTS = [[3, 4, 5, 6, 7], [8], [9, 10, 11], [12, 13], [5, 4, 3, 2, 1, 2, 3, 4]]
ENDS = {1, 2, 3, 4}
SIZES: dict[str, Any] = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3": {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8},
    "gpt2": {"n_positions": 64, "bos_token_id": None, "eos_token_id": None},
    "gemma3_text": {
        "intermediate_size": 32,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def tiny(kind: str = "qwen3") -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **CONFIGS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():  # as sure of itself as a trained model
        model.get_output_embeddings().weight.normal_(0, 0.7)
    return model


def chances(rows: int, tokens: int = TOKENS, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, tokens))


@pytest.mark.parametrize("kind", CONFIGS)
def test_without_chance_it_is_what_transformers_generates(kind: str) -> None:
    model = tiny(kind)
    ours = sample(model, PROMPTS, PAD, ENDS, chances(len(PROMPTS)), Drawing(temperature=0))
    theirs = generate(model, PROMPTS, PAD, ENDS, TOKENS).tolist()
    for mine, row in zip(ours, theirs, strict=True):
        stop = next((i + 1 for i, token in enumerate(row) if token in ENDS), len(row))
        assert mine == row[:stop]
    assert len({len(row) for row in ours}) > 1  # rows left the batch one by one


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_answer_does_not_depend_on_who_else_is_asked(kind: str) -> None:
    model, drawn = tiny(kind), chances(len(PROMPTS))
    whole = sample(model, PROMPTS, PAD, ENDS, drawn, Drawing())
    alone = [sample(model, PROMPTS[i : i + 1], PAD, ENDS, drawn[i : i + 1], Drawing())[0] for i in range(len(PROMPTS))]
    order = [4, 2, 0]
    some = sample(model, [PROMPTS[i] for i in order], PAD, ENDS, drawn[order], Drawing())
    assert whole == alone
    assert some == [whole[i] for i in order]


def test_an_answer_ends_with_its_end_token_or_at_the_limit() -> None:
    answers = sample(tiny(), PROMPTS * 4, PAD, ENDS, chances(20), Drawing())
    ended = [ids[-1] in ENDS for ids in answers]
    assert any(ended)
    assert not all(ended)
    for ids, over in zip(answers, ended, strict=True):
        assert not ENDS & set(ids[:-1])
        assert over or len(ids) == TOKENS


def test_tokens_come_as_often_as_the_model_says() -> None:
    """First and second token of 4,000 answers to one prompt, against the softmax of the whole text's logits."""
    model, prompt, rows = tiny(), PROMPTS[0], 4000
    drawing = Drawing(temperature=1.3)
    answers = sample(model, [prompt] * rows, PAD, set(), chances(rows, 2), drawing)
    first = np.bincount([ids[0] for ids in answers], minlength=V)
    likeliest = int(first.argmax())
    second = np.bincount([ids[1] for ids in answers if ids[0] == likeliest], minlength=V)
    for seen, context in ((first, prompt), (second, [*prompt, likeliest])):
        with torch.no_grad():
            probs = (model(torch.tensor([context])).logits[0, -1].double() / 1.3).softmax(-1).numpy()
        usual = probs * seen.sum() >= 5
        expected = np.append(probs[usual], probs[~usual].sum())
        found = np.append(seen[usual], seen[~usual].sum())
        assert chisquare(found, expected * seen.sum()).pvalue > 0.01


@pytest.mark.parametrize("top_p", [0.3, 0.75, 0.999])
def test_top_p_keeps_what_transformers_keeps(top_p: float) -> None:
    torch.manual_seed(1)
    scores = 2 * torch.randn(1, V)
    kept = transformers.TopPLogitsWarper(top_p)(torch.zeros(1, 1, dtype=torch.long), scores.clone())
    probs = kept.softmax(-1)[0].double().numpy()
    drawn = draw(scores.expand(8000, V), torch.from_numpy(chances(8000, 1)[:, 0]), Drawing(top_p=top_p))
    seen = np.bincount(drawn.numpy(), minlength=V)
    assert set(seen.nonzero()[0]) <= set(probs.nonzero()[0])
    usual = probs * 8000 >= 5
    rest = probs[~usual].sum()
    expected, found = probs[usual], seen[usual]
    if rest:
        expected, found = np.append(expected, rest), np.append(found, seen[~usual].sum())
    if len(found) > 1:
        assert chisquare(found, expected / expected.sum() * found.sum()).pvalue > 0.01


@pytest.mark.parametrize("scale", [0.01, 2.0, 6.0])
def test_of_many_tokens_the_likeliest_alone_give_the_same_draws(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharp rows are looked at by a few tokens, even ones by all; ties stay in the order of their ids."""
    scores = scale * torch.randn(40, 3000, generator=torch.Generator().manual_seed(3))
    scores = (8 * scores).round() / 8  # many tokens have one probability
    drawn, plan = torch.from_numpy(chances(40, 1)[:, 0]), Drawing(top_p=0.9)
    tokens, looked = draw(scores, drawn, plan), _decode._likeliest(scores.softmax(-1), 0.9)[0].shape[1]
    assert looked == (3000 if scale < 6 else _decode.NUCLEUS)
    monkeypatch.setattr(_decode, "NUCLEUS", 3000)
    assert torch.equal(draw(scores, drawn, plan), tokens)


def test_nothing_without_a_probability_is_ever_drawn() -> None:
    scores = torch.full((3, V), float("-inf"))
    scores[:, 5], scores[:, 9] = 1.0, 1.0
    edges = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(scores, edges, Drawing()).tolist() == [5, 9, 9]
    forbidden = torch.arange(V) == 5
    assert set(draw(scores, edges, Drawing(forbidden=forbidden)).tolist()) == {9}
    assert set(draw(scores, edges, Drawing(temperature=0, forbidden=forbidden)).tolist()) == {9}


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(DataError, match="no tokens"):
        sample(tiny(), [[1], []], PAD, ENDS, chances(2), Drawing())
