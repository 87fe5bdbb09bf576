"""Reasoning traces: every template's own way, thoughts in the labels, what is too long, lengths."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import DataError
from limbeck.core.types import IGNORE, Sample
from limbeck.tasks._templates import probe
from limbeck.tasks._text import train_bpe
from limbeck.tasks._traces import length_rows
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from tests.tasks.conftest import CHATML, chat_tokenizer

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
TRACES = DATA / "r1_traces_pcmb" / "traces.jsonl.gz"

R1 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<|im_start|>{{ m.content }}"
    "{% else %}<|said|>{{ m.content.split('</think>') | last }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|said|><think>\n{% endif %}"
)
"""The prompt opens the thought; of an assistant's turn only what follows `</think>` is written."""

QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% set said = m.content %}{% set thought = m.reasoning_content or '' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}{{ said }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The thought is a field, or within the text; turns before the last question lose theirs."""

HEADED = CHATML.replace("{{ m.content }}", "{{ m.content | upper if m.role == 'user' else m.content }}")
TEMPLATES = {"r1": R1, "qwen3": QWEN3, "chatml": CHATML}
TARGET = "<think>\nwell, 2 + 3\n</think>\n\nThe answer is 5."


def reasoned(name: str = "a", target: str = TARGET) -> Sample:
    return Sample(name, {"messages": [{"role": "user", "content": "What is 2 + 3?"}]}, target)


def codec(template: str, **fields: Any) -> CausalCodec:
    return CausalLM(**fields).codec(chat_tokenizer(TEMPLATES.get(template, template)), None)


def learned(made: CausalCodec, labels: list[int]) -> str:
    text: str = made.processor.decode([i for i in labels if i != IGNORE])
    return text


def test_what_templates_do_is_found_out() -> None:
    found = {name: probe(chat_tokenizer(template)) for name, template in TEMPLATES.items()}
    assert {name: each.way for name, each in found.items()} == {"r1": "around", "qwen3": "field", "chatml": "inline"}
    assert [name for name, each in found.items() if each.opens] == ["r1"]
    assert [name for name, each in found.items() if each.keeps_earlier] == ["chatml"]
    assert [found[name].end for name in TEMPLATES] == ["<|im_end|>", "<|im_end|>\n", "<|im_end|>\n"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_thought_is_learned_behind_the_prompt_of_generation(name: str) -> None:
    made = codec(name)
    (feature,) = made.encode([reasoned()]).features
    opened = TARGET.removeprefix("<think>\n") if name == "r1" else TARGET
    assert learned(made, feature.values["labels"]) == opened + "<|im_end|>"
    prompt = made.prompt_ids(reasoned())
    assert feature.values["input_ids"][: len(prompt)] == prompt
    assert feature.values["labels"][: len(prompt) - 1] == [IGNORE] * (len(prompt) - 1)
    assert made.processor.decode(prompt).endswith("<think>\n") == (name == "r1")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_thought_can_be_left_out(name: str) -> None:
    told = {"r1": "</think>\n\n", "qwen3": "<think>\n\n</think>\n\n", "chatml": ""}[name]
    for made, row in ((codec(name, reasoning="drop"), reasoned()), (codec(name), reasoned(target="The answer is 5."))):
        (feature,) = made.encode([row]).features
        assert learned(made, feature.values["labels"]).lstrip("\n") == told + "The answer is 5.<|im_end|>"
        assert learned(made, feature.values["input_ids"]).count("<think>") == (name != "chatml")


@pytest.mark.parametrize("turn", ["reasoning_content", "reasoning", "inline", "both"])
def test_thoughts_are_read_in_every_form(turn: str) -> None:
    last = {"role": "assistant", "content": "The answer is 5."}
    if turn in ("inline", "both"):
        last["content"] = "<think>well, 2 + 3</think>The answer is 5."
    if turn != "inline":
        last["reasoning_content" if turn == "both" else turn] = "well, 2 + 3\n"
    earlier = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"}
    ask = {"role": "user", "content": "hello"}
    turns = [{"role": "system", "content": "Be short."}, ask, earlier, ask, last]
    inputs, target, _ = CausalLM().read({"messages": turns}, "row 0")
    assert target == TARGET
    assert [t["content"] for t in inputs["messages"]] == ["Be short.", "hello", "hello", "hello"]
    _, answer, _ = CausalLM().read({"prompt": "x", "answer": "<think>well, 2 + 3</think> The answer is 5."}, "row 0")
    assert answer == TARGET


def test_two_different_thoughts_are_refused() -> None:
    last = {"role": "assistant", "content": "5", "reasoning_content": "one", "reasoning": "two"}
    with pytest.raises(DataError, match="two different thoughts"):
        CausalLM().read({"messages": [{"role": "user", "content": "x"}, last]}, "row 0")


def test_a_tokenizer_that_loses_the_thought_is_refused() -> None:
    from tokenizers import normalizers

    made = codec("chatml")
    made.processor.backend_tokenizer.normalizer = normalizers.Replace("2 + 3", "")
    with pytest.raises(DataError, match=r"sample a: the tokenizer .* loses part of the reasoning"):
        made.encode([reasoned()])


def test_a_template_that_refuses_a_system_turn_is_named() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    turns = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
    with pytest.raises(DataError, match=r"sample a: the chat template of .* refuses a conversation(.|\n)*no system"):
        codec(refusing).encode([Sample("a", {"messages": turns}, "5")])


def test_a_thought_without_an_end_is_dropped_and_counted() -> None:
    found = codec("chatml").encode([reasoned(target="<think>\nwell, 2"), reasoned("b")])
    assert [f.id for f in found.features] == ["b"]
    assert found.counts == {"dropped_thought_without_end": 1}


@pytest.mark.parametrize(
    ("too_long", "counts"),
    [
        ("auto", {"dropped_reasoning_too_long": 1, "truncated_answers": 1}),
        ("cut", {"truncated_reasoning": 1, "truncated_answers": 1}),
        ("drop", {"dropped_reasoning_too_long": 1, "dropped_answer_too_long": 1}),
    ],
)
def test_what_is_too_long(too_long: str, counts: dict[str, int]) -> None:
    rows = [reasoned("thought", TARGET.replace("well", "well " * 40)), reasoned("said", "hello world " * 40)]
    made = codec("chatml", too_long=too_long, max_length=60)
    found = made.encode(rows)
    assert found.counts == counts
    prompt = made.prompt_ids(rows[0])
    for feature in found.features:
        assert feature.length == 59
        assert feature.values["input_ids"][: len(prompt)] == prompt


def test_lengths_are_told_before_and_after() -> None:
    made = codec("chatml", max_length=60)
    long = reasoned("long", TARGET.replace("well", "well " * 40))
    facts = made.encode([reasoned(), long, reasoned("c", "hello world " * 40)]).facts["lengths"]
    before, after = facts["before"], facts["after"]
    assert (before["rows"], before["rows_with_reasoning"]) == (3, 2)
    assert (after["rows"], after["rows_with_reasoning"]) == (2, 1)
    thought = made.processor(TARGET.partition("</think>")[0] + "</think>")["input_ids"]
    assert after["reasoning"]["max"] == len(thought)
    assert before["reasoning"]["max"] > 60 >= after["answer"]["max"] + after["prompt"]["max"]
    assert [(row["tokens of"], row[""]) for row in length_rows(facts)][2] == ("reasoning", "before")


@pytest.mark.skipif(not TRACES.exists(), reason="no r1_traces_pcmb in LIMBECK_DATA")
@pytest.mark.parametrize("name", TEMPLATES)
def test_real_traces_are_in_the_labels(name: str) -> None:
    with gzip.open(TRACES, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][::4]
    special = {"pad_token": "<pad>", "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    tokenizer = train_bpe((row["reasoning"] for row in rows[:30]), 600, special)
    tokenizer.chat_template = TEMPLATES[name]
    made, samples = CausalLM(max_length=100_000).codec(tokenizer, None), []
    for row in rows:
        answer = {"role": "assistant", "content": row["answer_text"], "reasoning_content": row["reasoning"]}
        inputs, target, _ = made.task.read({"messages": [{"role": "user", "content": row["question"]}, answer]}, "row")
        samples.append(Sample(row["id"], inputs, target))
    encoded = made.encode(samples)
    assert len(encoded) == len(rows)
    assert encoded.counts == {}
    for row, feature in zip(rows, encoded.features, strict=True):
        told = learned(made, feature.values["labels"])
        assert told.endswith(f"{row['reasoning'].strip()}\n</think>\n\n{row['answer_text'].strip()}<|im_end|>")
    facts = encoded.facts["lengths"]["before"]
    assert facts["rows_with_reasoning"] == len(rows)
    assert facts["reasoning"]["p50"] > facts["answer"]["p50"]
