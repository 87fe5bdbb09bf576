"""Other numbers in word problems, and answers worked out anew."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from limbeck.core.types import Sample
from limbeck.data.perturbation import Perturbed, Refused, question_of
from limbeck.data.perturbation._worked import NotCertain
from limbeck.data.perturbation.change_numbers import ChangeNumbers, recomputed
from limbeck.data.word_problems import canonical, problems, split_of

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3].parent / "shared/data"))
CLIPS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did she sell altogether?",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
)
COINS = (
    "A box holds 1,200 coins of $0.50 and 15% are lost. How much is lost?",
    "1200*15/100=180. 180*0.50=90. #### 90",
)


def sample(question: str, answer: str, name: str = "q") -> Sample:
    return Sample(name, {"messages": [{"role": "user", "content": question}]}, answer)


def changed(question: str, answer: str, seed: int = 0, **fields: object) -> Perturbed:
    found = ChangeNumbers(**fields).perturb(sample(question, answer), seed)  # type: ignore[arg-type]
    assert isinstance(found, Perturbed), found
    return found


def test_the_answer_is_worked_out_anew() -> None:
    results = set()
    for seed in range(20):
        found = changed(*CLIPS, seed)
        first, question = re.search(r"\d+", question_of(found.sample) or ""), question_of(found.sample)
        assert first is not None
        n = int(first[0])
        assert n != 48
        assert n % 2 == 0  # half of it is a whole number, as before
        assert question == CLIPS[0].replace("48", str(n))
        half, both = n // 2, n + n // 2
        assert found.sample.target == (
            f"Natalia sold {n}/2 = <<{n}/2={half}>>{half} clips in May.\n"
            f"Natalia sold {n}+{half} = <<{n}+{half}={both}>>{both} clips.\n#### {both}"
        )
        assert not found.keeps_answer
        results.add(both)
    assert len(results) > 5


def test_numbers_are_written_as_they_were() -> None:
    written = set()
    for seed in range(30):
        found = changed(*COINS, seed)
        text, target = question_of(found.sample) or "", str(found.sample.target)
        count, price, share = re.match(r"A box holds ([\d,]+) coins of \$([\d.]+) and (\d+)% are", text).groups()  # type: ignore[union-attr]
        lost = Fraction(count.replace(",", "")) * Fraction(share) / 100
        assert lost.denominator == 1
        total = lost * Fraction(price)
        assert Fraction(target.split("#### ")[1]) == total
        assert target.startswith(f"{count.replace(',', '')}*{share}/100={lost}. {lost}*{price}=")
        assert len(price.split(".")[1]) == 2
        written.add(count)
    assert any("," in count for count in written)


def test_a_change_hangs_on_seed_and_id_alone() -> None:
    one, two = changed(*CLIPS, 3), changed(*CLIPS, 3)
    assert one == two
    other = ChangeNumbers().perturb(sample(*CLIPS, name="r"), 3)
    assert isinstance(other, Perturbed)
    assert {one.sample.target, changed(*CLIPS, 4).sample.target, other.sample.target} != {one.sample.target}
    assert one.sample.id == "q~change_numbers"
    assert one.sample.meta == {"perturbation": "change_numbers", "perturbed_from": "q"}


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        # 7 is a week and a number of the question: which of them is meant is not said
        ("He eats 7 eggs a day. How many in a week?", "7*7=49. #### 49", "no_number_is_certain"),
        # 12 is given and found
        ("She has 12 pens, 6 red and 6 blue, and buys 5. How many?", "6+6=12. 12+5=17. #### 17", "changes 5 alone"),
        ("She has 12 pens and gets 4 boxes of 3. How many?", "4*3=12. 12+12=24. #### 24", "no_number_is_certain"),
        ("He has 10 pens. How many more than Ann?", "10-4=6. #### 6", "number_without_source"),
        ("He has 10 pens and 3 cups. How many each?", "10/3=3.33. #### 3.33", "equation_not_exact"),
        ("He has 10 pens and 4 cups. How many?", "10+4=15. #### 15", "equation_not_exact"),
        ("He has 10 pens and 4 cups. How many?", "10+4=14. #### 15", "final_answer_is_not_the_last_result"),
        ("He has 10 pens and 4 cups. How many?", "10+4=14.", "no_final_answer"),
        ("He has 10 pens and 4 cups. How many?", "Fourteen. #### 14", "no_equation"),
        ("He has 10 pens. How many is half?", "2*x=10, so x=5. #### 5", "algebra"),
        ("In 1990 he was 4th of May 3. How many?", "1990-3=1987. #### 1987", "no_number_is_certain"),
        ("He has " + "9" * 5000 + " pens and 4 cups. How many?", "10+4=14. #### 14", "number_too_long"),
        ("He has 2 pens and 4 cups. How many?", "2" + "+2" * 2000 + "=4002. #### 4002", "equation_not_read"),
    ],
)
def test_what_is_not_certain_is_refused(question: str, answer: str, reason: str) -> None:
    found = ChangeNumbers().perturb(sample(question, answer), 0)
    if reason == "changes 5 alone":
        assert isinstance(found, Perturbed)
        assert "12 pens, 6 red and 6 blue" in (question_of(found.sample) or "")
    else:
        assert found == Refused(reason)


def test_the_order_of_numbers_stays() -> None:
    question = "She is paid extra above 8 hours. She works 10 hours a day for 6 days. How many extra hours?"
    for seed in range(20):
        found = changed(question, "10-8=2. 2*6=12. #### 12", seed)
        least, most, days = map(int, re.findall(r"\d+", question_of(found.sample) or ""))
        assert days < least < most
        assert str(found.sample.target).endswith(f"#### {(most - least) * days}")


def test_at_most_so_many_numbers_change() -> None:
    question = "A bus has 40 people. 13 leave and 25 enter. How many people are there?"
    for seed in range(10):
        found = changed(question, "40-13=27. 27+25=52. #### 52", seed, most=1)
        new = re.findall(r"\d+", question_of(found.sample) or "")
        assert sum(a != b for a, b in zip(new, ("40", "13", "25"), strict=True)) == 1


def test_own_problems_stay_in_their_split() -> None:
    kinds = Counter()
    for split in ("train", "test"):
        rows = problems(split, 150, seed=0, min_steps=1, max_steps=3, maximum=99)
        for i, row in enumerate(rows):
            old = Sample(str(i), {"prompt": row["prompt"]}, row["answer"], {"result": row["result"]})
            found = ChangeNumbers().perturb(old, 0)
            assert isinstance(found, Perturbed), found
            numbers = [int(n) for n in re.findall(r"\d+", found.sample.inputs["prompt"])]
            lines = re.findall(r"(\d+)([-+*])(\d+)=(\d+)\.", str(found.sample.target))
            calculation = canonical(
                numbers[0], [(sign, n) for (_, sign, _, _), n in zip(lines, numbers[1:], strict=True)]
            )
            assert split_of(calculation) == split
            value = numbers[0]
            for before, sign, operand, after in lines:
                assert int(before) == value
                value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[sign]
                assert 0 <= value == int(after) <= 99
            assert found.sample.meta["result"] == value
            assert str(found.sample.target).endswith(f"#### {value}")
            assert re.sub(r"\d+", "", row["prompt"]) == re.sub(r"\d+", "", found.sample.inputs["prompt"])
            kinds["same"] += found.sample.target == row["answer"]
    assert not kinds["same"]


def test_own_problems_keep_below_the_source_s_maximum() -> None:
    rows = problems("train", 60, seed=0, min_steps=2, max_steps=3, maximum=15)
    for i, row in enumerate(rows):
        old = Sample(str(i), {"prompt": row["prompt"]}, row["answer"])
        found = ChangeNumbers(maximum=15).perturb(old, 0)
        assert isinstance(found, Perturbed), found
        told = f"{found.sample.inputs['prompt']} {found.sample.target}"
        assert max(map(int, re.findall(r"\d+", told))) <= 15


@pytest.mark.parametrize("part", ["test", pytest.param("train", marks=pytest.mark.slow)])
def test_gsm8k_is_worked_out_as_recorded(part: str) -> None:
    path = DATA / f"gsm8k/{part}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no GSM8K at {path}; set LIMBECK_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    rows = rows if part == "train" else rows[::10]
    counts: Counter[str] = Counter()
    for i, row in enumerate(rows):
        try:
            text, final = recomputed(row["question"], row["answer"])
        except NotCertain:
            continue
        counts["read"] += 1
        assert text == row["answer"]
        assert final == Fraction(row["answer"].split("####")[1].strip().replace(",", ""))
        found = ChangeNumbers().perturb(sample(row["question"], row["answer"], str(i)), 0)
        if isinstance(found, Perturbed):
            counts["changed"] += 1
            for total, result in re.findall(r"<<([-+*/().\d]+)=([\d.]+)>>", str(found.sample.target)):
                exact = re.sub(r"(\d*\.?\d+)", r"Fraction('\1')", total)
                assert eval(exact, {"Fraction": Fraction}) == Fraction(result)
    assert counts["read"] / len(rows) > 0.7
    assert counts["changed"] / len(rows) > 0.45
