"""Difficulty as ranks."""

from __future__ import annotations

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.types import Sample
from limbeck.data.difficulty import asks_student, difficulty, ranks, steps_in


def sample(answer: str, **meta: object) -> Sample:
    return Sample(answer, {"messages": [{"role": "user", "content": "How many?"}]}, answer, meta)


WORKED = ["1+1=2. 2+1=3. 3*2=6. #### 6", "1+1=2. #### 2", "1+1=2. 2*2=4. #### 4"]


def test_ranks_lie_between_zero_and_one_and_equal_values_share_theirs() -> None:
    assert ranks([30, 10, 20]).tolist() == [1, 0, 0.5]
    assert ranks([5, 5, 7, 1, 5]).tolist() == [0.5, 0.5, 1, 0, 0.5]
    assert ranks([4]).tolist() == [0]


def test_steps_are_counted_in_the_worked_answer_unless_the_row_says() -> None:
    rows = [sample(answer) for answer in WORKED]
    assert [steps_in(row) for row in rows] == [4, 2, 3]
    assert difficulty(rows, {"steps": 1}).tolist() == [1, 0, 0.5]
    said = [sample(answer, steps=n) for answer, n in zip(WORKED, (1, 2, 3), strict=True)]
    assert difficulty(said, {"steps": 1}).tolist() == [0, 0.5, 1]


def test_what_the_teacher_often_fails_on_is_difficult() -> None:
    rows = [sample(str(i), pass_rate=rate) for i, rate in enumerate((0.25, 1.0, 0.0))]
    assert difficulty(rows, {"pass_rate": 1}).tolist() == [0.5, 0, 1]


def test_length_is_given_or_counted_in_characters() -> None:
    rows = [sample("a"), sample("aaa"), sample("aa")]
    assert difficulty(rows, {"length": 1}).tolist() == [0, 1, 0.5]
    assert difficulty(rows, {"length": 1}, [9, 1, 5]).tolist() == [1, 0, 0.5]


def test_the_students_loss_is_given_unless_the_rows_say() -> None:
    rows = [sample("a"), sample("aaa"), sample("aa")]
    assert asks_student(rows, {"student_loss": 1, "length": 1})
    assert not asks_student(rows, {"length": 1})
    assert difficulty(rows, {"student_loss": 1}, losses=[0.5, 0.1, 2]).tolist() == [0.5, 0, 1]
    said = [sample(str(i), student_loss=i) for i in range(3)]
    assert not asks_student(said, {"student_loss": 1})
    assert difficulty(said, {"student_loss": 1}, losses=[0.5, 0.1, 2]).tolist() == [0, 0.5, 1]
    with pytest.raises(RecipeError, match="no `student_loss`"):  # where there is no student
        difficulty(rows, {"student_loss": 1})


def test_a_mix_is_of_ranks_and_does_not_hang_on_scales() -> None:
    values = [(3, 0.1), (1, 0.9), (2, 0.2), (5, 0.8)]
    rows = [sample(str(i), loss=a, far=b) for i, (a, b) in enumerate(values)]
    scaled = [sample(str(i), loss=1000 * a, far=b**3) for i, (a, b) in enumerate(values)]
    mix = {"loss": 2.0, "far": 1.0}
    assert difficulty(rows, mix).tolist() == difficulty(scaled, mix).tolist()
    # loss ranks 2/3, 0, 1/3, 1; far ranks 0, 1, 1/3, 2/3: sums 4/3, 1, 1, 8/3
    assert difficulty(rows, mix).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1])
    assert difficulty(rows, {"loss": -1}).tolist() == pytest.approx([1 / 3, 1, 2 / 3, 0])


@pytest.mark.parametrize(
    ("rows", "measure", "words"),
    [
        ([sample("a", loss=1), sample("b")], "loss", "1 rows have none"),
        ([sample("a", loss="x"), sample("b", loss="y")], "loss", "no number in row a"),
        ([sample("a", pass_rate=2), sample("b", pass_rate=0)], "pass_rate", "no share"),
        ([sample("a"), sample("b")], "length", "equally difficult by `length`"),
        ([sample("a", topic="z")], "luck", "no `luck`"),
    ],
)
def test_what_tells_nothing_is_refused(rows: list[Sample], measure: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        difficulty(rows, {measure: 1.0})
