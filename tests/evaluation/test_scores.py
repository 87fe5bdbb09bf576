"""Scores from recorded predictions."""

from __future__ import annotations

import time

import numpy as np
import pytest

from limbeck.core.errors import DataError
from limbeck.core.parts import names
from limbeck.core.recipe import Evaluate
from limbeck.evaluation.book import AXES, Book
from limbeck.evaluation.scores import score
from limbeck.evaluation.statistics import mean
from tests.evaluation.made import CLASSES, answers, classifier, measured, value


def test_classifier() -> None:
    right = ["a", "b", "a", "b"]
    models = {
        "teacher": answers(["a", "b", "a", "a"], right),
        "student": answers(["a", "b", "b", "a"], right),
        "baseline": answers(["b", "b", "b", "a"], right),
    }
    book = measured(models)
    assert value(book, "teacher", "accuracy") == 0.75
    assert value(book, "student", "accuracy") == 0.5
    assert value(book, "student", "agreement_with_teacher") == 0.75
    assert value(book, "student", "kept_of_teacher") == pytest.approx(2 / 3)
    assert value(book, "baseline", "kept_of_teacher") == pytest.approx(1 / 3)
    assert value(book, "student", "student_minus_baseline") == 0.25
    assert value(book, "student", "student_minus_teacher") == -0.25
    assert not [each for each in book.scores if each.model == "teacher" and each.axis == "comparison"]


def test_unreadable_answers_agree_with_nothing() -> None:
    said = {"text": ["", "#### 1"], "parsed": [False, True], "finished": [False, True], "nll": [1.0, 1.0]}
    table = answers([None, "1"], ["1", "1"], **said, tokens=[2, 2])
    book = measured({"teacher": table, "student": table})
    assert value(book, "student", "answer_accuracy") == 0.5
    assert value(book, "student", "agreement_with_teacher") == 0.5
    assert value(book, "student", "inherited_errors") == 0
    assert value(book, "student", "unparsed_answers") == 0.5
    assert value(book, "student", "unfinished_answers") == 0.5
    assert value(book, "student", "empty_answers") == 0.5
    assert value(book, "student", "perplexity") == pytest.approx(np.exp(0.5))


def test_rows_without_a_likelihood_are_left_out_of_the_perplexity() -> None:
    tables = {
        name: answers(["1"] * 3, ["1"] * 3, nll=nll, tokens=[2, 4, None])
        for name, nll in (("student", [1.0, 8.0, None]), ("baseline", [2.0, 9.0, None]))
    }
    book = measured(tables, "perplexity")
    assert value(book, "student", "perplexity") == pytest.approx(np.exp(9 / 6))
    assert value(book, "student", "log_perplexity_minus_baseline") == pytest.approx(-2 / 6)
    assert {each.n for each in book.scores} == {2}


def test_a_likelihood_without_tokens_is_left_out_too() -> None:
    tables = {
        "student": answers(["1"] * 3, ["1"] * 3, nll=[1.0, 8.0, 3.0], tokens=[2, None, 0]),
        "baseline": answers(["1"] * 3, ["1"] * 3, nll=[None, 9.0, 9.0], tokens=[2, 4, 4]),
        "other": answers(["1"] * 3, ["1"] * 3, nll=[None, 1.0, None], tokens=[2, None, None]),
    }
    book = measured(tables, "perplexity")
    found = {(each.model, each.name): (each.value, each.n) for each in book.scores}
    expected = {("student", "perplexity"): (np.exp(0.5), 1), ("baseline", "perplexity"): (np.exp(18 / 8), 2)}
    assert found == {key: (pytest.approx(value), n) for key, (value, n) in expected.items()}


def test_no_score_is_anything_but_a_number() -> None:
    book = Book(Evaluate())
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"`latency_p50` of student is no finite number"):
            book.exact("student", "efficiency", "latency_p50", "ms", bad, 3)
    with pytest.raises(DataError, match=r"no rows to take `accuracy` of student from"):
        book.estimate("student", "accuracy", "accuracy", "share", mean, np.asarray([]))
    assert not book.scores


def test_a_few_rows_that_are_all_right_do_not_make_a_sure_thing() -> None:
    book = measured({"student": answers(["a"] * 8, ["a"] * 8)}, "accuracy")
    assert (book.scores[0].value, book.scores[0].high) == (1, 1)
    assert book.scores[0].low == pytest.approx(8 / (8 + 1.96**2), abs=1e-4)  # Wilson's, where all are right
    alone = Book(Evaluate(resamples=100)).estimate("student", "accuracy", "perplexity", "per token", mean, np.ones(1))
    assert (alone.low, alone.high) == (None, None)


def test_nothing_is_kept_of_a_teacher_that_has_nothing_right() -> None:
    book = measured({"teacher": answers(["b"], ["a"]), "student": answers(["a"], ["a"])}, "retention")
    assert {each.name for each in book.scores} == {"student_minus_teacher", "mcnemar_p_teacher"}


def test_a_score_has_one_name_for_all_models() -> None:
    models = {"teacher": answers(["1"], ["1"], text=["#### 1"]), "student": answers(["1"], ["1"])}
    assert {each.name for each in measured(models, "accuracy").scores} == {"answer_accuracy"}


def test_every_score_says_where_it_is_from() -> None:
    models = {name: classifier(120, seed=0, sharpened=s) for name, s in (("teacher", 1.0), ("student", 2.0))}
    book = measured(models)
    assert {each.axis for each in book.scores} == {"accuracy", "agreement", "comparison", "calibration"}
    for each in book.scores:
        assert each.split == "test"
        assert each.n >= 1
        if each.low is not None and each.high is not None:
            assert each.low <= each.value <= each.high, each


def test_rows_come_by_axis() -> None:
    rows = measured({"teacher": classifier(60), "student": classifier(60)}).rows()
    places = [AXES.index(row["axis"]) for row in rows]
    assert places == sorted(places)


def test_metrics_that_are_asked_for_and_fit_nothing_are_told() -> None:
    plan = Evaluate(resamples=100, metrics=["top5", "accuracy"])
    book = Book(plan)
    assert score({"student": answers(["a"], ["a"])}, plan, book) == [
        "the metric 'top5' fits the predictions of no model"
    ]
    assert [each.name for each in book.scores] == ["accuracy"]
    assert score({"student": answers(["a"], ["a"])}, Evaluate(resamples=100), book) == []


def test_a_metric_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="calibration"):
        Evaluate(metrics=["calibraton"])


def test_models_that_answered_other_rows_are_not_compared() -> None:
    with pytest.raises(DataError, match="different samples"):
        measured({"teacher": answers(["a"] * 3, ["a"] * 3), "student": answers(["a"] * 2, ["a"] * 2)})


def test_row_order_does_not_matter() -> None:
    teacher, student = classifier(80), classifier(80, sharpened=0.5)
    turned = student.rows(list(range(79, -1, -1)))
    assert (
        measured({"teacher": teacher, "student": turned}).rows()
        == measured({"teacher": teacher, "student": student}).rows()
    )


def test_ten_thousand_rows_take_seconds() -> None:
    words = [f"row number {i} about {'money' if i % 7 else 'cards'} and so on" for i in range(10_000)]
    models = {name: classifier(10_000, sharpened=s, input=words) for name, s in (("teacher", 1.0), ("student", 1.5))}
    began = time.process_time()
    book = measured(models, resamples=10_000)
    assert time.process_time() - began < 20  # measured: 3 s of three models
    assert len(book.scores) > 15
    assert set(names("metric")) >= {"calibration", "worst_slices"}


def test_the_recall_of_one_class_and_of_one_without_rows() -> None:
    table, book = classifier(50), Book(Evaluate(resamples=100))
    for positive, notes in (("dog", 0), ("gnu", 1)):
        plan = Evaluate(resamples=100, metrics=[{"type": "recall_at_threshold", "positive": positive}])
        assert len(score({"student": table}, plan, book)) == notes
    (row,) = book.scores
    dogs = [i for i, target in enumerate(table["target"]) if target == "dog"]
    assert row.n == len(dogs)
    assert row.value == pytest.approx((table.probabilities[dogs, CLASSES.index("dog")] >= 0.5).mean())
