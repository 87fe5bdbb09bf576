"""New inputs: lists are read however they are written, and nothing is taken twice."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from limbeck.core.errors import DataError
from limbeck.core.recipe import Synthesize
from limbeck.generation.synthesize import Seed, Similar, Synthesizer, parse_list
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling

CARDS = [("blue", "Rome", "lost"), ("old", "Oslo", "lost"), ("new", "Bern", "stolen"), ("red", "Graz", "stolen")]
SEEDS = [Seed(f"my {card} card is lost in {city}", label) for card, city, label in CARDS]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ('["a b", "c"]', ["a b", "c"]),
        ('Here you are:\n```json\n["a b", "c"]\n```\nEnjoy [1]!', ["a b", "c"]),
        ('[{"text": "a b"}, {"question": "c"}]', ["a b", "c"]),
        ('["a b", "c", "cut of', ["a b", "c"]),
        ('"a b",\n"c"', ["a b", "c"]),
        ('{"prompt": "a b"}\n{"prompt": "c"}', ["a b", "c"]),
        ("Sure!\n\n1. a b\n2. c\n\nI hope this helps.", ["a b", "c"]),
        ('- "a b"\n- c', ["a b", "c"]),
        ("1) a\n   b\n2) c", ["a\n   b", "c"]),
        ('["say \\"a\\"", ""]', ['say "a"']),
        ("1、甲\n2、乙", ["甲", "乙"]),
        ("I cannot do this.", []),
        ("", []),
        ("[1, 2]", []),
        ('["broken \\q escape"', []),
    ],
)
def test_lists(text: str, items: list[str]) -> None:
    assert parse_list(text) == items


def test_texts_are_alike_by_their_words() -> None:
    known = Similar(0.6)
    assert known.add("My card was lost in the old town of Rome") is None
    assert known.add("my card, was LOST in the old town of Rome!") == 0
    assert known.add("my card was lost in the old town of Bern") == 0
    assert known.add("the old town of Rome was where I lost it") is None
    assert known.add("yes") is None
    assert known.add("Yes.") == 2
    assert known.add("我的卡在罗马丢了") is None
    assert known.add("我的卡在罗马丢了。") == 3


def plan(**fields: Any) -> Synthesize:
    return Synthesize.model_validate({"by": "class", "count": 6, "per_request": 4, "rounds": 3, **fields})


def synthesizer(section: Synthesize, seeds: Sequence[Seed] = SEEDS, **fields: Any) -> Synthesizer:
    labels = ["lost", "stolen"] if section.by == "class" else None
    return Synthesizer(section, seeds, labels, model="tiny", sampling=Sampling(), **fields)


def said(reply: Callable[[Request], str | Failure], asked: list[Request]) -> Callable[..., Mapping[str, Outcome]]:
    def ask(requests: Sequence[Request]) -> Mapping[str, Outcome]:
        asked.extend(requests)
        found: dict[str, Outcome] = {}
        for request in requests:
            said = reply(request)
            found[request.key] = said if isinstance(said, Failure) else Completion(said, None, "stop", 1, 1, "tiny")
        return found

    return ask


def test_classes_get_their_share_and_repeats_are_asked_for_again() -> None:
    asked: list[Request] = []

    def reply(request: Request) -> str:
        label = request.id.split("/")[1]
        if len(asked) <= 2:  # the first round: one given, one good, one said twice, one that says nothing
            good = f"{label} {label} was the word that I heard"
            return json.dumps([SEEDS[0].text.upper(), good, good + "!", "?!"])
        return json.dumps([f"{label} number {i} {w} and {w} again" for i, w in enumerate(("ant", "bee", "cat", "doe"))])

    made = synthesizer(plan(), system="Be kind.").run(said(reply, asked))
    assert [each.label for each in made.new].count("lost") == 3
    assert [each.label for each in made.new].count("stolen") == 3
    assert all(each.text.startswith(str(each.label)) for each in made.new)
    reasons = [each.reason for each in made.dropped]
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "repeats_given": 2, "repeats_new": 2, "empty": 2, "surplus": 4,
    }  # fmt: skip
    assert made.missing == {}
    assert len({each.id for each in [*made.new, *made.dropped]}) == len(made.new) + len(made.dropped)
    assert len(asked) == 4
    first = asked[0].messages
    assert first[0] == {"role": "system", "content": "Be kind."}
    assert 'new texts of the class "lost"' in first[1]["content"]
    assert all(json.dumps(seed.text) in first[1]["content"] for seed in SEEDS[:2])
    assert SEEDS[2].text not in first[1]["content"]
    assert 'The other classes are: "stolen".' in first[1]["content"]


def test_what_is_missing_in_the_end_is_told() -> None:
    asked: list[Request] = []
    replies = iter([Failure("timeout"), "no list", '["the one and only text"]', "no list", "no list", "no list"])
    made = synthesizer(plan(count=4)).run(said(lambda request: next(replies), asked))
    assert made.failed == {"timeout": 1, "unparsed": 4}
    assert made.missing == {"lost": 1, "stolen": 2}
    assert len({request.key for request in asked}) == len(asked)


def test_a_run_that_is_done_again_asks_for_the_same() -> None:
    one, other = ([r for _, r in synthesizer(plan()).requests({"lost": 5, "stolen": 1}, 1)] for _ in range(2))
    assert [r.key for r in one] == [r.key for r in other]
    assert len(one) == 3
    moved = synthesizer(plan(shots=1), seed=1).requests({"lost": 5}, 1)
    assert {r.key for _, r in moved}.isdisjoint({r.key for r in one})


def test_prompts_are_written_after_prompts() -> None:
    asked: list[Request] = []
    section = plan(by="self_instruct", count=2, shots=3, instruction="Letters to a bank.")
    made = synthesizer(section).run(said(lambda request: '["a {odd} one {", "another task altogether"]', asked))
    assert [(each.text, each.label) for each in made.new] == [
        ("a {odd} one {", None),
        ("another task altogether", None),
    ]
    assert asked[0].messages[0]["content"].startswith("Letters to a bank.\n\nHere are tasks of one kind:\n\n- ")
    assert asked[0].messages[0]["content"].count("\n- ") == 3


def test_a_class_without_examples_is_asked_for_by_its_name() -> None:
    asked: list[Request] = []
    synthesizer(plan(rounds=1), SEEDS[:2]).run(said(lambda request: "[]", asked))
    assert "examples" in asked[0].messages[0]["content"]
    assert 'texts of the class "stolen"' in asked[1].messages[0]["content"]
    assert "examples" not in asked[1].messages[0]["content"]


def test_prompts_need_prompts() -> None:
    with pytest.raises(DataError, match="no prompts"):
        synthesizer(plan(by="self_instruct"), [])


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '["' + '\\"' * 20_000])
def test_hostile_lists_hold_nothing(text: str) -> None:
    began = time.process_time()
    assert parse_list(text) == []
    assert time.process_time() - began < 2
