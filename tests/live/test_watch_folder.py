"""What is read of a run's folder, at every moment of the run's life."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core.artifacts import locked
from limbeck.core.errors import ArtifactError
from limbeck.live.folder import Folder, State, expected
from limbeck.live.logs import Tail, Thinned
from limbeck.report.curves import POINTS
from tests.live.watching import BEGINNING, add, answered, begun, done, evaluated, held, plan, row, rows, run, under_way
from tests.pipeline.recipes import language


def standing(state: State) -> dict[str, str]:
    return {step.name: step.state for step in state.steps}


def training(state: State, model: str = "student") -> Any:
    return next(each for each in state.trainings if each.model == model)


def test_a_run_under_way(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    with held(path):
        state = Folder(path).state()
    assert (state.phase, state.at, state.title) == ("under_way", "train", "Sums: a large one teaches a small one")
    waiting = dict.fromkeys(("baseline", "evaluate", "report"), "waiting")
    assert standing(state) == {"prepare": "done", "train": "under_way", **waiting}
    assert state.steps[0].seconds == 62.0
    assert state.steps[1].began == BEGINNING
    student = state.current
    assert student is training(state)
    assert student is not None
    assert (student.under_way, student.unit, student.total) == (True, "tokens", 20)
    assert student.last is not None
    assert student.last["step"] == 10
    assert student.per_second == pytest.approx(200)
    assert student.seconds_left == pytest.approx(10 * 0.5)
    assert student.memory == {"resident": 700_000_000, "gpu_peak": 3_000_000_000}
    assert [each["step"] for each in student.evals] == [5, 10]
    assert [each["step"] for each in student.answers] == [5, 10]
    assert [(r["step"], r["loss"]) for r in student.steps] == [(i, 3.0 / i) for i in range(1, 11)]
    teacher = training(state, "teacher")
    assert (teacher.under_way, teacher.seconds_left) == (False, None)


def test_a_killed_run_is_stopped(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    with held(path):
        pass  # and killed: the name of its process stays
    state = Folder(path).state()
    assert (state.phase, state.at) == ("stopped", "train")
    assert standing(state)["train"] == "stopped"
    assert not any(each.under_way for each in state.trainings)
    assert training(state).seconds_left is None


def test_a_number_given_to_another_process_is_not_the_run(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    with held(path):
        os.utime(path / ".lock.owner", (BEGINNING, BEGINNING))  # long before the process began
        assert Folder(path).state().phase == "stopped"
    (path / ".lock.owner").write_text("")  # just being written
    assert Folder(path).state().phase == "stopped"


def test_the_real_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    with locked(path):
        assert Folder(path).state().phase == "under_way"
        assert Folder(path).state().at is None
    assert Folder(path).state().phase == "ended"
    with locked(path):  # nothing of ours holds it
        pass


def test_a_run_that_ended_before_its_end_and_one_that_is_finished(tmp_path: Path) -> None:
    path = run(tmp_path / "run", baseline=False)
    done(path, "prepare", "train")
    state = Folder(path).state()
    assert (state.phase, state.at) == ("ended", "evaluate")
    done(path, "evaluate", "report")
    state = Folder(path).state()
    assert (state.phase, state.at) == ("finished", None)
    assert standing(state) == dict.fromkeys(("prepare", "train", "evaluate", "report"), "done")
    assert state.current is None


def test_steps_made_again_are_told_from_those_that_are_done(tmp_path: Path) -> None:
    """A changed recipe: the student is trained anew; what hangs on it is from before. A leftover try is not at work."""
    path = run(tmp_path / "run")
    done(path, "prepare", "train", "baseline", "evaluate", "report")
    begun(path, "evaluate", at=0)
    begun(path, "train", at=50)
    with held(path):
        state = Folder(path).state()
    assert state.at == "train"
    before = dict.fromkeys(("baseline", "evaluate", "report"), "before")
    assert standing(state) == {"prepare": "done", "train": "under_way", **before}


def test_a_killed_try_at_a_step_that_was_done_is_stopped_until_it_is_given_up(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    done(path, "prepare", "train", "baseline", "evaluate", "report")
    plan(begun(path, "train"), ("distil", 10))
    state = Folder(path).state()
    assert (state.phase, state.at) == ("stopped", "train")
    before = dict.fromkeys(("baseline", "evaluate", "report"), "before")
    assert standing(state) == {"prepare": "done", "train": "stopped", **before}
    os.utime(path / "recipe.json", (BEGINNING + 5, BEGINNING + 5))  # the old recipe again, run to its end
    state = Folder(path).state()
    assert (state.phase, state.at, state.trainings) == ("finished", None, ())
    (path / "train" / "manifest.json").unlink()  # nothing else is there to be shown
    assert (Folder(path).state().phase, Folder(path).state().at) == ("stopped", "train")


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ({"teacher": None}, ["train", "evaluate", "report"]),
        ({"teacher": {"model": "moving-average"}, "baseline": True}, ["train", "baseline", "evaluate", "report"]),
        ({"teacher": {"endpoint": {"url": "x"}}, "generate": [{}]}, ["generate", "train", "evaluate", "report"]),
        ({"teacher": {"model": "x"}, "cache": {}}, ["prepare", "cache", "train", "evaluate", "report"]),
    ],
)
def test_the_chain_is_the_recipes(recipe: dict[str, Any], steps: list[str]) -> None:
    assert expected(recipe) == steps


def test_two_teachers_have_a_log_each(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    folder = begun(path, "prepare")
    plan(folder, ("finetune", 4), title="teacher")
    add(folder / "steps.jsonl", rows(1, 4, "finetune"))
    with held(path):
        assert training(Folder(path).state(), "teacher").under_way
        (folder / "teacher").mkdir()  # saved: the next one is being made
        assert not training(Folder(path).state(), "teacher").under_way
        plan(folder / "teacher-2-log", ("finetune", 8), title="teacher-2")
        add(folder / "teacher-2-log" / "steps.jsonl", rows(1, 2, "finetune"))
        state = Folder(path).state()
    assert [(each.model, each.under_way) for each in state.trainings] == [("teacher", False), ("teacher-2", True)]
    assert state.current is state.trainings[1]


def test_only_what_was_added_is_read(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    folder = Folder(path)
    with held(path):
        folder.state()
        log = path / ".train.partial" / "steps.jsonl"
        add(log, rows(11, 12))
        with log.open("a") as file:
            file.write('{"step": 13, "stage"')  # a line that is being written
        assert [r["step"] for r in training(folder.state()).steps] == list(range(1, 13))
        with log.open("a") as file:
            file.write(json.dumps(row(13)).removeprefix('{"step": 13, "stage"') + "\n")
        assert [r["step"] for r in training(folder.state()).steps] == list(range(1, 14))
        done(path, "train")  # the same log in its last place
        begun(path, "baseline", at=9)
        state = folder.state()
    assert [r["step"] for r in training(state).steps] == list(range(1, 14))
    assert standing(state)["train"] == "done"


def test_a_log_that_a_resumed_run_cut_back_is_read_anew(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    folder, partial = Folder(path), path / ".train.partial"
    assert len(training(folder.state()).steps) == 10
    for name, kept in (("steps", rows(1, 6, "warm")), ("evals", [evaluated(5)]), ("generations", [answered(5)])):
        (partial / f"{name}.jsonl").unlink()
        add(partial / f"{name}.jsonl", kept)
    add(partial / "steps.jsonl", [row(i, seconds=0.25) for i in range(7, 30)])
    student = training(folder.state())
    assert [r["step"] for r in student.steps] == list(range(1, 30))
    assert student.last["seconds"] == 0.25
    assert [each["step"] for each in student.evals] == [each["step"] for each in student.answers] == [5]
    shutil.rmtree(partial)
    assert [each.model for each in folder.state().trainings] == ["teacher"]


def test_a_run_of_an_older_limbeck_has_no_plan(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    (path / ".train.partial" / "plan.json").unlink()
    with held(path):
        student = training(Folder(path).state())
    assert (student.total, student.unit, student.seconds_left) == (None, None, None)
    assert student.last["step"] == 10


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no run"):
        Folder(tmp_path)
    run(tmp_path / "seed-0")
    with pytest.raises(ArtifactError, match=r"limbeck watch .*seed-0"):
        Folder(tmp_path)
    (run(tmp_path / "bad") / "recipe.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        Folder(tmp_path / "bad").state()


def test_a_damaged_line_is_said_so_each_time(tmp_path: Path) -> None:
    folder = Folder(under_way(tmp_path / "run"))
    folder.state()
    with (tmp_path / "run" / ".train.partial" / "steps.jsonl").open("a") as file:
        file.write("\0\0\0\n")
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"steps\.jsonl is damaged: a line is not JSON"):
            folder.state()


def test_a_long_log_is_kept_as_means(tmp_path: Path) -> None:
    log, tail, thinned = tmp_path / "steps.jsonl", Tail(), Thinned()
    add(log, [row(i, "one" if i <= 3001 else "two") for i in range(1, 5001)])
    anew, found = tail.read(log)
    assert (anew, len(found)) == (False, 5000)
    for each in found:
        thinned.add(each)
    kept = thinned.rows()
    assert POINTS / 2 <= len(kept) < POINTS
    assert thinned.every == 16
    assert kept[-1]["step"] == 5000
    assert [r["step"] for r in kept if r["stage"] == "one"][-1] == 3001
    assert kept[0]["loss"] == pytest.approx(sum(3.0 / i for i in range(1, 17)) / 16)
    assert kept[0]["terms"]["kl"] == pytest.approx(sum(4.0 / i for i in range(1, 17)) / 16)
    thinned.add(row(5001, "two", loss=float("nan")))
    assert thinned.rows()[-1]["step"] == 5001
    assert all(r["loss"] is None or math.isfinite(r["loss"]) for r in thinned.rows())
    assert tail.read(log) == (False, [])
    log.unlink()
    assert tail.read(log) == (True, [])
    assert tail.read(log) == (False, [])


def test_a_real_run(tmp_path: Path) -> None:
    limbeck.run(language(tmp_path / "run", baseline=True))
    state = Folder(tmp_path / "run").state()
    assert state.phase == "finished"
    assert [step.name for step in state.steps] == ["prepare", "train", "baseline", "evaluate", "report"]
    assert [each.model for each in state.trainings] == ["teacher", "student", "baseline"]
    for each in state.trainings:
        assert each.total == len(each.steps) == 2
        assert each.memory is not None
        assert each.per_second is not None
        assert {line["step"] for line in each.evals} >= {2}
        assert each.answers
