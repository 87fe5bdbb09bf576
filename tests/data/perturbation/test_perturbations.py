"""Changes that keep the answer, and what holds for every perturbation."""

# ruff: noqa: RUF001 - Chinese punctuation is meant
from __future__ import annotations

import re
from difflib import SequenceMatcher

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build, names
from limbeck.core.types import Sample
from limbeck.data.perturbation import (
    AskedPerturbation,
    Perturbation,
    Perturbed,
    Refused,
    asking,
    perturb_all,
    question_of,
)
from limbeck.data.perturbation.paraphrase import Paraphrase

ENGLISH = (
    "Mr. Brown bought 12 apples for $3.50 each, but three of them were not ripe. He gave the others to his twenty "
    "neighbours. Option A) costs <b>more</b>. How much did he pay?"
)
CHINESE = "小明有三个苹果，妈妈又给了他5个苹果，老师没有给他东西。请问他现在一共有多少个苹果？"
QUIET = ["distractor", "homophones", "swaps", "typos"]


def sample(text: str, name: str = "q") -> Sample:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return Sample(name, {"messages": turns}, "the answer", {"topic": "fruit"})


def made(kind: str, text: str, seed: int = 0, **fields: object) -> Perturbed | Refused:
    part = build("perturbation", {"type": kind, **fields})
    assert isinstance(part, Perturbation)
    return part.perturb(sample(text), seed)


def numbers(text: str) -> list[str]:
    return re.findall(r"\$?\d+(?:\.\d+)?|[三一两]", text)


@pytest.mark.parametrize("kind", QUIET)
@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_the_answer_stays_and_the_change_is_tagged(kind: str, text: str) -> None:
    for seed in range(10):
        found = made(kind, text, seed, severity=5)
        if (kind, text) in (("typos", CHINESE), ("homophones", ENGLISH)):
            assert found == Refused("no_chinese" if kind == "homophones" else "nothing_changed")
            continue
        assert isinstance(found, Perturbed)
        assert found.keeps_answer
        assert found.tag == kind
        new, old = found.sample, sample(text)
        assert new.target == old.target
        assert new.meta == {"topic": "fruit", "perturbation": kind, "perturbed_from": "q"}
        assert new.id == f"q~{kind}"
        assert new.inputs["messages"][0] == old.inputs["messages"][0]
        assert question_of(new) != text
        if kind != "distractor":
            assert numbers(question_of(new) or "") == numbers(text)
            for held in ("12", "$3.50", "three", "not", "twenty", "A)", "<b>", "more", "三", "没", "多少"):
                assert (held in text) == (held in (question_of(new) or ""))
        assert made(kind, text, seed, severity=5) == found


@pytest.mark.parametrize("kind", QUIET)
def test_severity_is_how_much_is_changed(kind: str) -> None:
    text = CHINESE if kind == "homophones" else ENGLISH
    alike = []
    for severity in range(1, 6):
        changed = [made(kind, text, seed, severity=severity) for seed in range(25)]
        texts = [question_of(each.sample) or "" if isinstance(each, Perturbed) else text for each in changed]
        alike.append(sum(SequenceMatcher(None, text, each, autojunk=False).ratio() for each in texts))
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > alike[-1]


@pytest.mark.parametrize("severity", [1, 3])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_distractors_stand_before_what_is_asked(text: str, severity: int) -> None:
    for seed in range(20):
        found = made("distractor", text, seed, severity=severity)
        assert isinstance(found, Perturbed)
        new, asked = (
            question_of(found.sample) or "",
            "How much did he pay?" if text is ENGLISH else text.split("。")[-1],
        )
        assert new.endswith(asked)
        assert new.startswith(text[: -len(asked)])
        inserted = new[len(text) - len(asked) : -len(asked)]
        assert len(re.findall(r"\d+", inserted)) == severity
        assert (text is CHINESE) == bool(re.search(r"[\u4e00-\u9fff]", inserted))
    alone = question_of(found.sample) or ""
    assert "Mr. Brown" in alone or text is CHINESE


def test_a_decimal_does_not_end_a_sentence() -> None:
    found = made("distractor", "At $3.50 each for Mr. Ode, how much?", severity=1)
    assert isinstance(found, Perturbed)
    assert (question_of(found.sample) or "").endswith(" At $3.50 each for Mr. Ode, how much?")


def test_what_has_no_question_or_no_text_is_refused() -> None:
    assert made("distractor", "Add them up.") == Refused("no_question")
    part = build("perturbation", {"type": "typos"})
    assert isinstance(part, Perturbation)
    assert part.perturb(Sample("i", {"image": b""}), 0) == Refused("no_text")


def test_texts_of_classifiers_and_prompts_are_changed_too() -> None:
    for inputs in ({"text": ENGLISH}, {"prompt": ENGLISH}):
        part = build("perturbation", {"type": "typos", "severity": 5})
        assert isinstance(part, Perturbation)
        found = part.perturb(Sample("i", inputs, "label"), 0)
        assert isinstance(found, Perturbed)
        assert found.sample.inputs.keys() == inputs.keys()


def test_changes_on_changes_bear_both_tags() -> None:
    one = made("typos", ENGLISH, severity=5)
    assert isinstance(one, Perturbed)
    part = build("perturbation", {"type": "distractor"})
    assert isinstance(part, Perturbation)
    two = part.perturb(one.sample, 0)
    assert isinstance(two, Perturbed)
    assert two.sample.meta["perturbation"] == "typos+distractor"
    assert two.sample.meta["perturbed_from"] == "q"


def test_all_are_made_and_what_is_refused_is_counted() -> None:
    parts = [build("perturbation", {"type": kind}) for kind in ("distractor", "change_numbers")]
    rows = [sample(ENGLISH, "a"), sample("Add.", "b")]
    found, counts = perturb_all(rows, parts, seed=0, variants=3)  # type: ignore[arg-type]
    assert [each.sample.id for each in found] == ["a~distractor", "a~distractor-1", "a~distractor-2"]
    assert counts == {
        "distractor: no_question": 3,
        "change_numbers: no_final_answer": 6,
    }
    again, _ = perturb_all(rows[::-1], parts, seed=0, variants=3)  # type: ignore[arg-type]
    assert again == found


def test_a_paraphrase_is_asked_for_and_read() -> None:
    part, old = Paraphrase(), sample("He has 3 pens and buys 1,000 more. How many?")
    (turn,) = part.messages(old)
    assert turn["role"] == "user"
    assert turn["content"].endswith("He has 3 pens and buys 1,000 more. How many?")
    good = "Sure.\n<question>\nAfter 1000 pens were bought beside his 3, how many are there?\n</question>"
    found = part.perturbed(old, good)
    assert isinstance(found, Perturbed)
    assert question_of(found.sample) == "After 1000 pens were bought beside his 3, how many are there?"
    assert found.sample.target == old.target
    assert found.sample.meta["perturbation"] == "paraphrase"
    for text, reason in (
        ("After 1000 pens beside 3, how many?", "no_paraphrase"),
        ("<question>He had 4 pens and got 1000. How many?</question>", "numbers_differ"),
        (f"<question>3 1000 {'so ' * 99}</question>", "too_long"),
        ("<question>He has 3 pens and buys 1,000 more. How many?</question>", "nothing_changed"),
    ):
        assert part.perturbed(old, text) == Refused(reason)
    with pytest.raises(RecipeError, match="needs a model that writes"):
        part.perturb(old, 0)


@pytest.mark.parametrize("kind", names("perturbation"))
def test_every_perturbation_says_what_it_does(kind: str) -> None:
    part = build("perturbation", {"type": kind})
    assert isinstance(part, Perturbation)
    assert part.asks_teacher == isinstance(part, AskedPerturbation)
    assert part.keeps_answer == (kind != "change_numbers")


def test_asking_leaves_the_sample_as_it_was() -> None:
    old = sample(ENGLISH)
    new = asking(old, "Why?")
    assert question_of(new) == "Why?"
    assert question_of(old) == ENGLISH


GIVING = "the tall boy gave the small girl all his apples, but Tom also saw the girl give the boy a pear back"


def test_swaps_do_not_say_of_prompts_that_another_one_gave() -> None:
    """Whose the apples are is the answer: all but small words keep their order, and names their places."""
    said = re.compile(r"\b(?!(?:the|also)\b)\w+")
    changes = [made("swaps", GIVING, seed, severity=severity) for seed in range(20) for severity in (1, 5)]
    texts = {question_of(each.sample) or "" for each in changes if isinstance(each, Perturbed)}
    assert len(texts) > 5
    for text in texts:
        assert said.findall(text) == said.findall(GIVING)
        assert sorted(re.findall(r"\w+", text)) == sorted(re.findall(r"\w+", GIVING))
        assert text.index("Tom") == GIVING.index("Tom")
    assert made("swaps", "Ann gave Bob her pen.", severity=5) == Refused("nothing_changed")


@pytest.mark.parametrize("kind", ["swaps", "typos"])
def test_negations_stay_where_they_are(kind: str) -> None:
    words = ["nor", "cannot", "neither", "nobody", "nothing", "nowhere", "without", "never"]
    text = " ".join(f"{word} pleasant acting moves people" for word in words)
    for seed in range(10):
        found = build("perturbation", {"type": kind, "severity": 5}).perturb(Sample("t", {"text": text}, "x"), seed)  # type: ignore[attr-defined]
        said = found.sample.inputs["text"].split()
        assert said[::5] == words


def test_swaps_move_any_word_of_a_text_that_is_put_into_a_class() -> None:
    part = build("perturbation", {"type": "swaps", "severity": 5})
    assert isinstance(part, Perturbation)
    orders = set()
    for seed in range(10):
        found = part.perturb(Sample("i", {"text": GIVING}, "label"), seed)
        assert isinstance(found, Perturbed)
        text = str(found.sample.inputs["text"])
        assert sorted(text.replace(",", "").split()) == sorted(GIVING.replace(",", "").split())
        assert text.split(", ")[1].split()[1] == "Tom"
        orders.add(tuple(word for word in text.split() if word in ("boy", "girl", "gave")))
    assert len(orders) > 1
