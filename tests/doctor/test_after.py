"""Runs made sick on purpose: each illness is found, by its own check alone, and a healthy run has none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ArtifactError
from limbeck.core.parts import find, names
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.pipeline.doctor import examine_run
from tests.doctor.made import (
    DETAILS,
    STEPS,
    changed_scores,
    classes,
    evals,
    ill,
    leave,
    recipe,
    score,
    steps,
    term,
)


def only(folder: Path, check: str, severity: str) -> Finding:
    """The one illness of a run, which says its evidence and its cure."""
    found = ill(folder)
    assert list(found) == [check]
    assert found[check].severity == severity
    assert found[check].evidence
    assert found[check].change
    return found[check]


def test_a_healthy_run(tmp_path: Path) -> None:
    found = examine_run(leave(tmp_path / "run"))
    assert {each.severity for each in found} == {"ok"}
    assert {each.check for each in found} == {
        "baseline_better",
        "capability_loss",
        "collapse",
        "dead_projector",
        "fighting_terms",
        "gradients",
        "length_explosion",
        "negligible_term",
        "overfitting",
    }


def test_capability_loss(tmp_path: Path) -> None:
    lost = score("student", "kept_of_teacher", 0.7, 0.65, 0.75)
    found = only(leave(tmp_path / "run", scores=changed_scores(lost)), "capability_loss", "warning")
    assert "70.0%" in found.evidence
    assert "stages.distil.epochs" in str(found.change)
    nearly = score("student", "kept_of_teacher", 0.88, 0.85, 0.91)  # the interval reaches 0.9
    assert not ill(leave(tmp_path / "nearly", scores=changed_scores(nearly)))
    gone = score("student", "kept_of_teacher", 0.2, 0.15, 0.25)
    only(leave(tmp_path / "gone", scores=changed_scores(gone)), "capability_loss", "error")


def test_a_student_without_graded_answers_that_predicts_far_worse(tmp_path: Path) -> None:
    scores = [score("teacher", "perplexity", 5.0), score("student", "perplexity", 11.0)]
    found = only(leave(tmp_path / "run", scores=scores), "capability_loss", "warning")
    assert "11" in found.evidence


def test_a_class_that_is_lost(tmp_path: Path) -> None:
    found = only(leave(tmp_path / "run", details={"classes": classes(b=0.0)}), "capability_loss", "error")
    assert "b: recall 0" in found.evidence


def test_a_slice_that_is_lost(tmp_path: Path) -> None:
    row = {**DETAILS["slices"][0], "difference": -0.3, "p_holm": 0.001}
    found = only(leave(tmp_path / "run", details={"slices": [row]}), "capability_loss", "warning")
    assert "class = a: -30.0%" in found.evidence
    luck = {**row, "p_holm": 0.2}
    assert not ill(leave(tmp_path / "luck", details={"slices": [luck]}))


def test_overfitting_to_the_teachers_noise(tmp_path: Path) -> None:
    worse = evals([0.8, 0.92, 0.9, 0.87, 0.85], [0.6, 0.3, 0.4, 0.5, 0.6])
    found = only(leave(tmp_path / "run", validation=worse), "overfitting", "warning")
    assert "the teacher's noise" in found.reason
    assert "kl" in found.evidence
    assert "terms.kl.temperature" in str(found.change)
    # A loss alone rises where a student gets sure of what it says.
    sure = evals([0.8, 0.92, 0.93, 0.93, 0.93], [0.6, 0.3, 0.4, 0.5, 0.6])
    assert not ill(leave(tmp_path / "sure", validation=sure))


def test_errors_of_the_teacher_that_are_taken_over(tmp_path: Path) -> None:
    errors = {**DETAILS["errors"], "student": {**DETAILS["errors"]["student"], "inherited": 40}}
    found = only(leave(tmp_path / "run", details={"errors": errors}), "overfitting", "warning")
    assert "10.0%" in found.evidence


def test_collapse_onto_one_class(tmp_path: Path) -> None:
    said = {"target": ["a", "b", "c", "d"] * 25, "prediction": ["a"] * 100}
    found = only(leave(tmp_path / "run", said=said), "collapse", "error")
    assert "1.0 answers in use" in found.evidence
    mostly = {**said, "prediction": ["a"] * 90 + ["b"] * 10}
    only(leave(tmp_path / "mostly", said=mostly), "collapse", "warning")
    uneven = {"target": ["a"] * 95 + ["b"] * 5, "prediction": ["a"] * 97 + ["b"] * 3}  # so are the targets
    assert not ill(leave(tmp_path / "uneven", said=uneven))


def test_collapse_onto_one_text(tmp_path: Path) -> None:
    said: dict[str, list[Any]] = {"text": ["I do not know"] * 60 + [f"it is {i}" for i in range(40)]}
    found = only(leave(tmp_path / "run", said=said), "collapse", "error")
    assert "60 of 100" in found.evidence
    assert "stages.distil.learning_rate" in str(found.change)
    yes: dict[str, list[Any]] = {"text": ["yes"] * 60 + ["no"] * 40}
    yes["target"] = yes["prediction"] = yes["text"]  # most answers are the same, and rightly
    assert not ill(leave(tmp_path / "yes", said=yes))


def on_policy(length: float, finished: float) -> list[dict[str, Any]]:
    """A log in which the student writes itself, to that length and share in the end."""
    rows = steps()
    for i, row in enumerate(rows):
        done = i / STEPS
        row["on_policy"] = {
            "tokens": 100,
            "mean_length": 20 + done * (length - 20),
            "finished": 1 - done * (1 - finished),
        }
    return rows


def test_length_explosion(tmp_path: Path) -> None:
    found = only(leave(tmp_path / "run", log=on_policy(120, 0.3)), "length_explosion", "error")
    assert "came to an end" in found.evidence
    assert not ill(leave(tmp_path / "longer", log=on_policy(60, 0.98)))  # longer, but they end


def test_answers_that_do_not_end(tmp_path: Path) -> None:
    scores = changed_scores(score("student", "unfinished_answers", 0.5, 0.45, 0.55))
    only(leave(tmp_path / "run", scores=scores), "length_explosion", "warning")


def test_terms_that_fight(tmp_path: Path) -> None:
    log = steps()
    for row in log:
        if "gradients" in row:
            row["gradients"]["cosines"] = [["cross_entropy", "kl", 0.5], ["kl", "hidden", -0.6]]
    found = only(leave(tmp_path / "run", log=log), "fighting_terms", "warning")
    assert "kl and hidden: cosine -0.60 over 10 steps" in found.evidence


def test_whether_terms_fight_is_noted_where_it_was_not_measured(tmp_path: Path) -> None:
    log = [{name: value for name, value in row.items() if name != "gradients"} for row in steps()]
    found = {each.check: each for each in examine_run(leave(tmp_path / "run", log=log))}
    assert found["fighting_terms"].severity == "note"
    assert "gradient_cosine_steps" in str(found["fighting_terms"].change)


def test_a_negligible_term(tmp_path: Path) -> None:
    weak = recipe(terms=[term("cross_entropy", 0.3), term("kl", 0.7), term("hidden", 0.001)])
    found = only(leave(tmp_path / "run", plan=weak), "negligible_term", "warning")
    assert "hidden is negligible" in found.reason
    assert "terms.hidden.weight" in str(found.change)
    # A term that comes late is felt while it is there.
    late = {"type": "linear", "start": 0.0, "end": 0.5}
    rising = recipe(terms=[term("cross_entropy", 0.3), term("kl", 0.7), {**term("hidden"), "weight": late}])
    assert not ill(leave(tmp_path / "late", plan=rising))


def test_a_dead_projector(tmp_path: Path) -> None:
    flat = steps()
    for row in flat:
        row["terms"]["hidden"] = 1.0
    found = only(leave(tmp_path / "flat", log=flat), "dead_projector", "warning")
    assert "layer.0 <- layer.3, linear 8 -> 16" in found.evidence
    dead = steps()
    for row in dead:
        if "gradients" in row:
            row["gradients"]["norms"]["hidden"] = 0.0
    assert "no gradient" in only(leave(tmp_path / "dead", log=dead), "dead_projector", "error").reason


def test_gradients_that_explode(tmp_path: Path) -> None:
    log = steps()
    for row in log[60:63]:
        row["grad_norm"] = 5_000.0
    found = only(leave(tmp_path / "run", log=log), "gradients", "warning")
    assert "5e+03 at step 61" in found.evidence
    assert "learning_rate=1e-04" in str(found.change)
    assert "max_grad_norm" in str(found.change)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite(tmp_path: Path, value: float) -> None:
    log = steps()
    log[50]["grad_norm"] = value
    assert "step 51" in only(leave(tmp_path / "run", log=log), "gradients", "error").evidence
    log[50]["skipped"] = True  # the loss scaler of fp16 does this now and then
    assert not ill(leave(tmp_path / "scaled", log=log))


def test_a_loss_that_diverges(tmp_path: Path) -> None:
    log = steps()
    for i, row in enumerate(log):
        row["terms"]["kl"] *= 1 + i
    found = only(leave(tmp_path / "run", log=log), "gradients", "error")
    assert "diverged" in found.reason


def test_a_loss_that_does_not_fall(tmp_path: Path) -> None:
    log = steps()
    whole = sum(log[0]["terms"].values())
    for row in log:
        row["terms"]["kl"] = whole - row["terms"]["cross_entropy"] - row["terms"]["hidden"]
    found = only(leave(tmp_path / "run", log=log), "gradients", "warning")
    assert "has not fallen" in found.reason


def test_a_teacher_that_knows_nothing(tmp_path: Path) -> None:
    scores = changed_scores(score("teacher", "accuracy", 0.0), score("student", "kept_of_teacher", 0.0, 0.0, 0.0))
    assert "the teacher itself" in only(leave(tmp_path / "run", scores=scores), "capability_loss", "error").reason


def test_a_student_that_is_better_without_its_teacher(tmp_path: Path) -> None:
    scores = changed_scores(score("student", "student_minus_baseline", -0.05, -0.08, -0.02))
    found = only(leave(tmp_path / "run", scores=scores), "baseline_better", "error")
    assert "accuracy: teacher 0.96" in found.evidence
    luck = changed_scores(score("student", "student_minus_baseline", -0.01, -0.03, 0.01))
    assert not ill(leave(tmp_path / "luck", scores=luck))
    worse = changed_scores(score("student", "log_perplexity_minus_baseline", 0.2, 0.1, 0.3))
    only(leave(tmp_path / "perplexity", scores=worse), "baseline_better", "error")


def test_a_student_without_a_key_value_cache(tmp_path: Path) -> None:
    config = {"architectures": ["Qwen3ForCausalLM"], "use_cache": False}
    found = only(leave(tmp_path / "run", config=config), "slow_generation", "warning")
    assert "use_cache=true" in str(found.change)
    config["architectures"] = ["Qwen3ForSequenceClassification"]  # it writes nothing
    assert not ill(leave(tmp_path / "classifier", config=config))


def test_a_training_that_waits_for_its_own_texts(tmp_path: Path) -> None:
    log = steps()
    for row in log:
        row["on_policy"] = {"tokens": 95, "mean_length": 20, "finished": 1.0, "tokens_per_second": 1_000.0}
    found = [each for each in examine_run(leave(tmp_path / "run", log=log)) if each.check == "slow_generation"]
    assert [each.severity for each in found] == ["note"]


def test_an_unfinished_run_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    log = steps()[:40]
    log[-1]["grad_norm"] = 9_000.0
    found = examine_run(leave(tmp_path / "run", log=log, trained=False))
    assert [each.severity for each in found if each.check == "gradients"] == ["warning", "note"]
    assert not [each for each in found if each.check == "collapse"]


def test_a_later_training_that_did_not_end_is_told_of(tmp_path: Path) -> None:
    run = leave(tmp_path / "run")
    (run / ".train.partial").mkdir()
    found = [each for each in examine_run(run) if each.severity != "ok"]
    assert ["later training" in each.reason for each in found] == [True]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run"):
        examine_run(tmp_path)


def test_every_check_of_runs_is_tested_here() -> None:
    known = {name for name in names("check") if issubclass(find("check", name), AfterCheck)}
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in sorted(known) if f'"{name}"' not in text] == []
