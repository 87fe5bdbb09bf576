"""Language modelling: the shift, padding, end tokens, templates, truncation, and the final answer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Qwen3Config

from limbeck.core.errors import DataError, ModelError
from limbeck.core.types import IGNORE, WRITTEN, Batch, Needs, Sample
from limbeck.models.heads import signal
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from tests.tasks.conftest import CHATML, chat_tokenizer


def sample(prompt: str = "What is 2 + 3?", answer: str = "5", name: str = "a") -> Sample:
    return Sample(name, {"messages": [{"role": "user", "content": prompt}]}, answer)


def codec(tokenizer: Any, **fields: Any) -> CausalCodec:
    return CausalLM(**fields).codec(tokenizer, None)


def encoded(tokenizer: Any, *samples: Sample, **fields: Any) -> Batch:
    made = codec(tokenizer, **fields)
    return made.collate(made.encode(samples).features)


def learned(tokenizer: Any, batch: Batch, row: int = 0) -> str:
    return tokenizer.decode(batch.labels[row][batch.labels[row] != IGNORE])


def test_labels_answer_the_outputs(plain: Any) -> None:
    """Shifted once: the last token of the prompt gives the first of the answer; nothing follows the end token."""
    prompt, answer = plain("What is 2 + 3?\n")["input_ids"], plain("The answer is 5.")["input_ids"]
    batch = encoded(plain, sample(answer="The answer is 5."))
    whole = [*prompt, *answer, plain.eos_token_id]
    assert batch.inputs["input_ids"].tolist() == [whole[:-1]]
    assert batch.labels.tolist() == [[IGNORE] * (len(prompt) - 1) + whole[len(prompt) :]]
    assert batch.labels[0, len(prompt) - 1] == answer[0]
    assert batch.labels[0, -1] == plain.eos_token_id
    assert plain.eos_token_id not in batch.inputs["input_ids"]
    assert batch.inputs["attention_mask"].all()


def test_padding_that_equals_the_end_token_does_not_mask_it(plain: Any) -> None:
    plain.pad_token = plain.eos_token
    batch = encoded(plain, sample(), sample(answer="The answer is 5.", name="b"))
    ends = (batch.labels == plain.eos_token_id).sum(1)
    assert ends.tolist() == [1, 1]
    assert batch.ids == ("a", "b")
    short = int(batch.inputs["attention_mask"][0].sum())
    assert batch.labels[0, short - 1] == plain.eos_token_id
    assert (batch.labels[0, short:] == IGNORE).all()
    assert batch.inputs["attention_mask"][0, short:].sum() == 0


@pytest.fixture
def qwen(plain: Any) -> Any:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": None}
    model = AutoModelForCausalLM.from_config(Qwen3Config(vocab_size=len(plain), **sizes, **heads))
    for each in model.parameters():  # larger than at the start, so that positions matter
        each.data.mul_(5) if each.dim() > 1 else None
    return model


def test_left_and_right_padding_teach_the_same(plain: Any, qwen: Any) -> None:
    made = codec(plain)
    rows = [sample(), sample("hello world " * 4, "The answer is 5.", "b"), sample("x", "y", "c")]
    features, found = made.encode(rows).features, []
    for side in ("right", "left"):
        batch = made.collate(features, side)
        dist = signal(qwen, batch, Needs(dist=True)).dist
        assert dist is not None
        loss, _ = distribution_loss(dist, None, batch.labels, [CrossEntropy()], [1.0])
        found.append((loss, torch.autograd.grad(loss, list(qwen.parameters()))))
    alone = sum(qwen_loss(qwen, made.collate([f])) for f in features)
    torch.testing.assert_close(found[0][0], alone)
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)


def qwen_loss(model: Any, batch: Batch) -> torch.Tensor:
    """The library's own loss for the same tokens, summed."""
    ids = torch.cat([batch.inputs["input_ids"], batch.labels[:, -1:]], 1)
    labels = torch.cat([torch.full((1, 1), IGNORE), batch.labels], 1)
    loss = model(input_ids=ids, labels=labels).loss
    return loss * (batch.labels != IGNORE).sum()


def test_left_padding_counts_positions_from_the_first_token(plain: Any) -> None:
    made = codec(plain)
    batch = made.collate(made.encode([sample("x", "y"), sample()]).features, "left")
    mask, positions = batch.inputs["attention_mask"], batch.inputs["position_ids"]
    assert (mask[:, -1] == 1).all()
    assert mask[0, 0] == 0
    for row in range(2):
        assert positions[row][mask[row] == 1].tolist() == list(range(int(mask[row].sum())))


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_keeps_rows_apart(plain: Any, side: str) -> None:
    made = codec(plain)
    features = made.encode([sample("x", "y"), sample()]).features
    both = made.collate(features, side)
    for row, feature in enumerate(features):
        alone, seen = made.collate([feature]), both.inputs["attention_mask"][row] == 1
        assert both.inputs["input_ids"][row][seen].tolist() == alone.inputs["input_ids"][0].tolist()
        assert both.labels[row][seen].tolist() == alone.labels[0].tolist()
        assert (both.labels[row][~seen] == IGNORE).all()


def test_answers_are_cut_and_prompts_never(plain: Any) -> None:
    """The limit holds for prompt, answer and end token together; the input is one shorter."""
    prompt, answer = plain("x\n")["input_ids"], plain("hello world 123")["input_ids"]
    full = len(prompt) + len(answer) + 1
    fits = codec(plain, max_length=full).encode([sample("x", "hello world 123")])
    assert fits.counts == {}
    assert fits.features[0].length == full - 1
    assert fits.features[0].values["labels"][-1] == plain.eos_token_id
    cut = codec(plain, max_length=full - 1).encode([sample("x", "hello world 123")])
    assert cut.counts == {"truncated_answers": 1}
    assert cut.features[0].values["input_ids"][: len(prompt)] == prompt
    assert [i for i in cut.features[0].values["labels"] if i != IGNORE] == answer  # the end token is what is lost
    least = codec(plain, max_length=len(prompt) + 1).encode([sample("x", "hello world 123")])
    assert [i for i in least.features[0].values["labels"] if i != IGNORE] == answer[:1]


def test_prompts_that_fill_the_limit_are_dropped(plain: Any) -> None:
    rows = [sample("hello world " * 9, "5", "long"), sample("x", "5", "short")]
    limit = len(plain("hello world " * 9 + "\n")["input_ids"])
    found = codec(plain, max_length=limit).encode(rows)
    assert [f.id for f in found.features] == ["short"]
    assert found.counts == {"dropped_prompt_too_long": 1}


def test_chat_template(chat: Any) -> None:
    """The turn's own end token is learned, once, and the newline that the template puts behind it is not."""
    batch = encoded(chat, sample())
    assert learned(chat, batch) == "5<|im_end|>"
    told = chat.decode(batch.inputs["input_ids"][0])
    assert told == "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n5"
    assert codec(chat).chat
    assert not codec(chat, template="plain").chat
    assert learned(chat, encoded(chat, sample(), template="plain")) == "5<|im_end|>"


def test_conversations_teach_the_last_turn(chat: Any, plain: Any) -> None:
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "5"},
    ]
    inputs, target, _ = CausalLM().read({"messages": turns}, "row 0")
    batch = encoded(chat, Sample("a", inputs, target))
    assert learned(chat, batch) == "5<|im_end|>"
    assert chat.decode(batch.inputs["input_ids"][0]).count("<|im_start|>") == 5
    assert learned(plain, encoded(plain, Sample("a", inputs, target))) == "5<eos>"


STRIPPING = CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}")
THINKING = CHATML.replace(
    "{{ m.content }}",
    "{% if m.role == 'assistant' and '<think>' not in m.content %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}",
)


def test_a_template_that_strips_the_reasoning_is_written_around() -> None:
    reasoned = sample(answer="<think>\nwell\n</think>5")
    for each in (chat_tokenizer(STRIPPING), chat_tokenizer()):
        assert learned(each, encoded(each, reasoned)) == "<think>\nwell\n</think>\n\n5<|im_end|>"
    added = chat_tokenizer(THINKING)
    assert learned(added, encoded(added, sample())) == "<think>\n\n</think>\n\n5<|im_end|>"


def test_a_template_whose_prompt_is_no_prefix_is_refused() -> None:
    other = CHATML.replace(
        "{% if add_generation_prompt %}<|im_start|>assistant\n", "{% if add_generation_prompt %}<|im_start|>helper\n"
    )
    with pytest.raises(DataError, match="changes or hides"):
        codec(chat_tokenizer(other)).encode([sample()])


def test_chat_without_a_template_is_refused(plain: Any) -> None:
    assert not codec(plain).chat
    with pytest.raises(ModelError, match="has no chat template"):
        codec(plain, template="chat")
    plain.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        codec(plain)


def test_an_opening_token_stands_once(opening: Any, chat: Any) -> None:
    ids = encoded(opening, sample()).inputs["input_ids"][0].tolist()
    assert ids[0] == opening.bos_token_id
    assert ids.count(opening.bos_token_id) == 1
    opening.chat_template = "<s>" + CHATML
    ids = encoded(opening, sample()).inputs["input_ids"][0].tolist()
    assert ids.count(opening.bos_token_id) == 1
    assert codec(chat, template="plain").prompt_ids(sample())[0] != chat.bos_token_id  # has one, but does not set it


@pytest.mark.parametrize("name", ["plain", "chat", "opening"])
def test_generation_starts_where_training_did(name: str, request: pytest.FixtureRequest) -> None:
    made = codec(request.getfixturevalue(name))
    feature = made.encode([sample()]).features[0]
    prompt = made.prompt_ids(sample())
    assert feature.values["input_ids"][: len(prompt)] == prompt
    assert feature.values["labels"][len(prompt) - 1] != IGNORE
    assert feature.values["labels"][: len(prompt) - 1] == [IGNORE] * (len(prompt) - 1)


def test_an_empty_prompt_teaches_from_the_second_token(plain: Any) -> None:
    made = codec(plain, separator="")
    empty = Sample("a", {"messages": [{"role": "user", "content": ""}]}, "hello world")
    feature = made.encode([empty]).features[0]
    ids = [*plain("hello world")["input_ids"], plain.eos_token_id]
    assert feature.values == {"input_ids": ids[:-1], "labels": ids[1:]}


def test_config_fields_come_from_the_tokenizer(chat: Any) -> None:
    told = codec(chat).settings()
    assert told["vocab_size"] == len(chat)
    assert (told["pad_token_id"], told["eos_token_id"]) == (chat.pad_token_id, chat.eos_token_id)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither `messages` nor `prompt` and `answer`"),
        ({"prompt": "x"}, "neither `messages` nor"),
        ({"prompt": " ", "answer": "y"}, "row 7: the prompt is empty or not text"),
        ({"prompt": "x", "answer": 5}, "row 7: the answer is empty or not text"),
        ({"messages": [{"role": "user", "content": "x"}]}, "at least two turns"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "y"}]}, "a turn is not"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, "the last turn is not the assistant's"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "y"}]}, "content of a turn"),
    ],
)
def test_rows_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CausalLM().read(fields, "row 7")


def test_prompt_and_answer_are_a_conversation() -> None:
    inputs, target, _ = CausalLM().read({"prompt": "x", "answer": "y"}, "row 0")
    assert (inputs, target) == ({"messages": [{"role": "user", "content": "x"}]}, "y")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so #### 1,000", "1000"),
        ("#### 1000.0", "1000"),
        ("#### 12 no, #### 13", "13"),
        ("#### -0.50", "-0.5"),
        ("#### .5", "0.5"),
        ("#### -0", "0"),
        ("#### 007", "7"),
        ("#### 100000000000000000000000000000000001", "100000000000000000000000000000000001"),
        ("no answer", None),
        ("#### none", None),
    ],
)
def test_final_answers(plain: Any, text: str, answer: str | None) -> None:
    assert codec(plain).extract(text) == answer


@pytest.mark.parametrize("text", [" Paris ", "1e999999999", "NaN", "--", "1.2.3"])
def test_answers_that_are_no_numbers_stay_as_they_are(plain: Any, text: str) -> None:
    assert codec(plain, answer_pattern=r"\[(.*)\]").extract(f"[{text}]") == text.strip()


@pytest.mark.parametrize(("pattern", "text"), [(r"answer:\s*(\d+)?", "answer: none"), (r"\[(.*)\]", "[ ]")])
def test_an_empty_answer_is_none(plain: Any, pattern: str, text: str) -> None:
    assert codec(plain, answer_pattern=pattern).extract(text) is None


@settings(deadline=None, max_examples=200)
@given(st.integers(-(10**40), 10**40), st.integers(0, 5))
def test_equal_numbers_have_one_form(number: int, zeros: int) -> None:
    made = object.__new__(CausalCodec)
    made.task = CausalLM()
    forms = [f"{number}", f"{number:,}", f"{number}.{'0' * (zeros + 1)}"]
    assert {made.extract(f"#### {form}") for form in forms} == {str(number)}
    assert made.extract(f"#### {number + 1}") != str(number)


@pytest.mark.parametrize("pattern", ["####", "(a)(b)", "("])
def test_answer_patterns_need_one_group(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"exactly one group|not a regular expression"):
        CausalLM(answer_pattern=pattern)


def test_new_tokenizers_are_trained_on_prompts_and_answers() -> None:
    from limbeck.core.recipe import Model

    make: Callable[..., Any] = CausalLM().new_processor
    spec = Model(config={"model_type": "qwen3"}, tokenizer={"vocab_size": 300})
    made = make(spec, [replace(sample(), target="zyzyzyzyzyzy " * 20)])
    assert 258 < len(made) <= 300
    assert len(made("zyzyzyzyzyzy")["input_ids"]) < 4
    with pytest.raises(ModelError, match="needs a tokenizer"):
        make(Model(config={"model_type": "qwen3"}), [])


def test_a_written_text_commands_no_tokenizer(plain: Any) -> None:
    """A row that a model wrote is dropped where its text would be read as a special token; a person's row is not."""
    poisoned = [sample(answer=f"yes {plain.eos_token} go on", name="a"), sample(prompt=f"{plain.eos_token}?", name="b")]
    rows = [*poisoned, sample(name="c")]
    made = codec(plain).encode([replace(row, meta={WRITTEN: True}) for row in rows])
    assert [feature.id for feature in made.features] == ["c"]
    assert made.counts == {"dropped_special_token_in_text": 2}
    assert len(codec(plain).encode(rows)) == 3


def test_think_tags_that_are_special_tokens_are_no_commands(plain: Any) -> None:
    own = copy.deepcopy(plain)
    own.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    row = replace(sample(answer="<think>\nso\n</think>\n\nyes"), meta={WRITTEN: True})
    assert len(codec(own).encode([row])) == 1
