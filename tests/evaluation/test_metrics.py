"""Each metric against the libraries' and against facts that were put into the predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from limbeck.core.parts import find, names
from limbeck.evaluation.metrics._base import Metric
from limbeck.evaluation.metrics.auroc import parts_of_auc
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.evaluation.metrics.steps import way_of
from limbeck.evaluation.predictions import Predictions
from tests.evaluation.made import CLASSES, answers, classifier, measured, of_probabilities, value


@pytest.mark.parametrize("name", names("metric"))
def test_every_part_is_a_metric(name: str) -> None:
    assert issubclass(find("metric", name), Metric)


def test_macro_f1_auroc_and_top5_are_those_of_sklearn() -> None:
    table = classifier(400, skill=1.0)
    book = measured({"student": table}, "macro_f1", "auroc", "top5", "recall_at_threshold")
    targets, given = table.targets, table.probabilities
    labels = list(range(len(CLASSES)))
    said = [CLASSES.index(each) for each in table["prediction"]]
    assert value(book, "student", "macro_f1") == pytest.approx(f1_score(targets, said, average="macro"))
    expected = roc_auc_score(targets, given, multi_class="ovr", average="macro", labels=labels)
    assert value(book, "student", "auroc") == pytest.approx(expected)
    top = top_k_accuracy_score(targets, given, k=5, labels=labels)
    assert value(book, "student", "top5_accuracy") == pytest.approx(top)
    own = given[np.arange(400), targets]
    assert value(book, "student", "recall_at_threshold") == pytest.approx((own >= 0.5).mean())


def test_auroc_of_two_classes_with_ties_and_its_spread() -> None:
    draw = np.random.default_rng(0)
    positive = draw.random(300) < 0.4
    given = np.round(draw.normal(size=300) + positive, 1)
    parts = parts_of_auc(given, positive)
    assert parts.mean() == pytest.approx(roc_auc_score(positive, given))
    spread = []
    for _ in range(800):
        rows = draw.integers(300, size=300)
        spread.append(roc_auc_score(positive[rows], given[rows]))
    assert parts.std() / np.sqrt(300) == pytest.approx(np.std(spread), rel=0.12)


def test_honest_probabilities_are_calibrated_and_sharpened_ones_named() -> None:
    honest, sharp = classifier(4000, skill=1.0), classifier(4000, skill=1.0, sharpened=3.0)
    book = measured({"teacher": honest, "student": sharp}, "calibration")
    assert value(book, "teacher", "ece") < 0.03
    assert value(book, "student", "ece") > 0.2
    assert value(book, "teacher", "temperature") == pytest.approx(1, rel=0.1)
    assert value(book, "student", "temperature") == pytest.approx(3, rel=0.1)
    assert value(book, "student", "ece_after_temperature") < 0.03
    assert value(book, "student", "brier") > value(book, "teacher", "brier")
    found = book.details["reliability"]["student"]
    assert found["temperature_fitted_on"] == "the other half of the rows"
    assert sum(row["n"] for row in found["bins"]) == 4000
    last = found["bins"][-1]
    assert last["accuracy_high"] < last["confidence"]


def test_the_temperature_is_fitted_on_validation_rows_where_there_are_some() -> None:
    held = classifier(2000, skill=1.0, sharpened=2.0, seed=5)
    test = classifier(500, skill=1.0, sharpened=1.0)
    book = measured({"student": test}, "calibration", validation={"student": held})
    assert value(book, "student", "temperature") == temperature_of(held.probabilities, held.targets)
    assert value(book, "student", "ece_after_temperature") > value(book, "student", "ece")
    assert book.details["reliability"]["student"]["temperature_fitted_on"] == "validation"


def test_ece_by_hand_and_a_confidence_of_one() -> None:
    given = np.asarray([[1.0, 0.0], [1.0, 0.0], [0.55, 0.45], [0.55, 0.45]])
    book = measured({"student": of_probabilities(given, [0, 1, 0, 0])}, {"type": "calibration", "bins": 10})
    # bin 0.9-1.0: confidence 1, accuracy 1/2; bin 0.5-0.6: confidence 0.55, accuracy 1
    assert value(book, "student", "ece") == pytest.approx(0.5 * 0.5 + 0.5 * 0.45)
    bins = book.details["reliability"]["student"]["bins"]
    assert [row["n"] for row in bins] == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert "accuracy" not in bins[0]


def test_a_class_that_is_never_said_is_the_worst_slice() -> None:
    teacher = classifier(900, skill=4.0)
    given = teacher.probabilities.copy()
    given[:, CLASSES.index("dog")] = 0
    student = of_probabilities(given / given.sum(1, keepdims=True), teacher.targets.tolist())
    book = measured({"teacher": teacher, "student": student}, "worst_slices", "per_class", "agreement")
    worst = book.details["slices"][0]
    assert (worst["column"], worst["value"], worst["model"]) == ("class", "dog", "student")
    assert worst["score"] == 0
    assert worst["p_holm"] < 1e-6
    assert all(row["model"] == "student" for row in book.details["slices"])
    dogs = next(r for r in book.details["classes"] if (r["model"], r["class"]) == ("student", "dog"))
    assert (dogs["recall"], dogs["predicted"], dogs["f1"]) == (0, 0, 0)
    lost = teacher.correct[np.asarray(teacher["target"]) == "dog"].sum()
    assert book.details["errors"]["student"]["new"] == lost


@pytest.mark.parametrize("with_teacher", [True, False])
def test_a_column_a_word_or_long_inputs_on_which_a_model_fails_are_found(with_teacher: bool) -> None:
    right = ["1"] * 400
    texts = [("please refund this" if i % 4 == 0 else "hello") + " x" * (i % 40) for i in range(400)]
    columns = {"input": texts, "slice:city": ["Bern" if i % 3 == 0 else "Ulm" for i in range(400)]}
    cases = {
        "word": [i % 4 == 0 for i in range(400)],
        "city": [i % 3 == 0 for i in range(400)],
    }
    for column, bad in cases.items():
        said = ["2" if wrong else "1" for wrong in bad]
        models = {"student": answers(said, right, **columns)}
        if with_teacher:
            models["teacher"] = answers(right, right, **columns)
        worst = measured(models, "worst_slices").details["slices"][0]
        assert (worst["column"], worst["value"]) in {("word", "please"), ("word", "refund"), ("city", "Bern")}
        assert worst["column"] == column
        assert worst["difference"] == -1
        assert worst["p_holm"] < 0.001


def test_slices_of_equal_models_are_explained_by_chance() -> None:
    draw = np.random.default_rng(1)
    right = ["1"] * 600
    said = [["1" if x < 0.7 else "2" for x in draw.random(600)] for _ in range(2)]
    columns = {"input": [" ".join(draw.choice(["ab", "cd", "efg", "hijk", "lm", "no"], 2)) for _ in range(600)]}
    models = {name: answers(each, right, **columns) for name, each in zip(("teacher", "student"), said, strict=True)}
    assert min(row["p_holm"] for row in measured(models, "worst_slices").details["slices"]) > 0.05


def test_small_groups_are_not_judged() -> None:
    right = ["1"] * 100
    columns = {"slice:city": ["Ulm"] * 90 + ["Bern"] * 10}
    table = answers(right, right, **columns)
    found = measured({"student": table}, "worst_slices").details["slices"]
    assert [row["value"] for row in found] == ["Ulm"]


def test_errors_are_inherited_new_or_mended() -> None:
    right = ["a"] * 6
    models = {
        "teacher": answers(["a", "a", "b", "b", "b", None], right),
        "student": answers(["a", "c", "b", "c", "a", None], right),
    }
    book = measured(models, "agreement", "examples")
    counts = {"both_right": 1, "inherited": 1, "other_wrong": 2, "new": 1, "mended": 1, "n": 6}
    assert book.details["errors"] == {"student": counts}
    assert value(book, "student", "new_errors") == pytest.approx(1 / 6)
    kinds = {row["id"]: row["kind"] for row in book.details["examples"]}
    assert kinds == {"test/1": "lost", "test/3": "other", "test/4": "gained"}
    example = book.details["examples"][0]
    assert example["teacher"]["prediction"] == "a"
    assert example["student"] == {"prediction": "c", "correct": False}


def test_no_more_examples_than_ten_and_of_every_kind() -> None:
    right = ["a"] * 90
    models = {
        "teacher": answers(["a"] * 30 + ["b"] * 60, right),
        "student": answers(["b"] * 30 + ["a"] * 30 + ["c"] * 30, right),
    }
    kinds = [row["kind"] for row in measured(models, "examples").details["examples"]]
    assert [kinds.count(kind) for kind in ("lost", "gained", "other")] == [5, 3, 2]


def test_p_values_are_corrected_for_the_whole_table() -> None:
    right = ["1"] * 40
    draw = np.random.default_rng(0)
    models = {"teacher": answers(right, right)}
    for name in ("one", "two", "three"):
        models[name] = answers(["1" if x < 0.8 else "2" for x in draw.random(40)], right)
    book = measured(models, "retention")
    for name in ("one", "two", "three"):
        wrong = int(40 - models[name].correct.sum())
        assert value(book, name, "mcnemar_p_teacher") >= 2 / 2**wrong
    smallest = min(2 / 2 ** int(40 - models[n].correct.sum()) for n in ("one", "two", "three"))
    assert min(e.value for e in book.scores if e.unit == "p") == pytest.approx(3 * smallest)


def test_several_draws_pass_and_vote() -> None:
    said = {"x": ["1", "1", "2", "1"], "y": ["2", "3", "2", "1"], "z": ["1", None, None, "2"]}
    rows = [(sample, draw, each) for sample, all_ in said.items() for draw, each in enumerate(all_)]
    table = Predictions(
        {
            "id": [r[0] for r in rows],
            "draw": [r[1] for r in rows],
            "target": ["1"] * 12,
            "prediction": [r[2] for r in rows],
            "correct": [r[2] == "1" for r in rows],
        }
    )
    book = measured({"student": table}, "accuracy", "pass_at_k", "majority_vote")
    assert value(book, "student", "accuracy") == pytest.approx(2 / 3)
    assert value(book, "student", "pass_at_1") == pytest.approx((3 / 4 + 1 / 4 + 1 / 4) / 3)
    assert value(book, "student", "pass_at_2") == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert value(book, "student", "pass_at_4") == 1
    assert value(book, "student", "majority_vote") == pytest.approx(1 / 3)  # z is a tie


def test_draws_may_come_beside_the_table_that_is_scored_alone() -> None:
    drawn = Predictions(
        {"id": ["test/0"] * 3, "draw": [1, 2, 3], "target": ["1"] * 3, "prediction": ["1", None, "1"]}
        | {"correct": [True, False, True]}
    )
    book = measured({"student": answers(["2"], ["1"])}, draws={"student": drawn})
    assert value(book, "student", "accuracy") == 0
    passed = [value(book, "student", f"pass_at_{k}") for k in (1, 2, 3)]
    assert passed == pytest.approx([2 / 3, 1, 1])
    assert value(book, "student", "majority_vote") == 1


def test_an_answer_that_is_only_known_to_be_right_wins_no_vote() -> None:
    columns = {"id": ["a", "a"], "draw": [0, 1], "prediction": [None, None], "correct": [True, True]}
    assert value(measured({"student": Predictions(columns)}, "majority_vote"), "student", "majority_vote") == 0


def test_steps_are_checked_and_held_against_the_teachers() -> None:
    good = "First 64+5=69.\nThen 69+25=94.\n#### 94"
    bad = "First 64+5=70.\nThen 70+25=95.\n#### 94"
    assert way_of(good).conclusions == ("69", "94")
    models = {
        "teacher": answers(["94", "94"], ["94", "94"], text=[good, good]),
        "student": answers(["94", "94"], ["94", "94"], text=[good, bad]),
    }
    book = measured(models, "steps")
    assert value(book, "student", "step_equations_right") == pytest.approx(3 / 4)
    assert value(book, "student", "answer_follows_steps") == 0.5
    assert value(book, "student", "path_agreement") == 0.5
    assert value(book, "teacher", "answer_follows_steps") == 1
    assert book.details["steps"]["student"]["equations"] == 4


def test_texts_without_steps_have_no_figures_of_steps() -> None:
    assert not measured({"student": answers(["a"], ["a"], text=["a"])}, "steps").scores


def test_a_thought_that_never_ends_is_an_empty_answer() -> None:
    texts = ["<think>\nso", "<think>\nso\n</think>\n\n 4", "  ", "4"]
    table = answers([None, "4", None, "4"], ["4"] * 4, text=texts)
    assert value(measured({"student": table}, "answer_rates"), "student", "empty_answers") == 0.5


def test_models_of_which_no_answer_can_be_read_agree_on_nothing() -> None:
    table = answers([None, None], ["1", "2"], text=["", ""])
    book = measured({"teacher": table, "student": table})
    assert value(book, "student", "agreement_with_teacher") == 0
    assert book.details["errors"]["student"]["other_wrong"] == 2
