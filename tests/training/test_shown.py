"""What a training shows of itself: its plan, memory, and answers that change nothing of what is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from limbeck.core.recipe import load_recipe
from limbeck.core.types import Batch, Needs, Signal
from limbeck.pipeline.run import run_recipe
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, train
from limbeck.training.shown import MOST, Answers, answers
from tests.pipeline.recipes import images, language, stage
from tests.training.ragged import losses, make_job

F32 = torch.float32


def job_of(steps: int = 6, eval_steps: int = 2, dropout: float = 0.1, **training: Any) -> Job:
    """A job that validates often, with dropout, whose teacher writes."""
    job = make_job(8, F32, steps, **training)
    first = job.stages[0]
    job.stages = [replace(first, stage=first.stage.model_copy(update={"eval_steps": eval_steps}))]
    job.student.config.attention_dropout = dropout
    for module in job.student.modules():
        if hasattr(module, "attention_dropout"):
            vars(module)["attention_dropout"] = dropout
    assert isinstance(job.teacher, LocalTeacher)
    job.writer = (job.teacher.model, job.codec)
    return job


def rows(folder: Path, name: str = "generations") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_the_weights_are_the_same_with_answers_and_without(tmp_path: Path) -> None:
    trained = {}
    for count in (0, 3):
        job = job_of(generations=count)
        train(job, tmp_path / str(count))
        trained[count] = (job.student.state_dict(), losses(tmp_path / str(count)), torch.get_rng_state())
    assert (tmp_path / "3" / "generations.jsonl").exists()
    assert not (tmp_path / "0" / "generations.jsonl").exists()
    assert trained[0][1] == trained[3][1]
    assert torch.equal(trained[0][2], trained[3][2])
    for name, weights in trained[0][0].items():
        assert torch.equal(weights, trained[3][0][name]), name
    other = job_of(dropout=0.0)
    train(other, tmp_path / "without-dropout")
    assert losses(tmp_path / "without-dropout") != trained[0][1]  # so the dropout above was at work


def test_answers_are_the_students_and_the_teachers_own(tmp_path: Path) -> None:
    job = job_of(steps=2)
    train(job, tmp_path)
    (line,) = rows(tmp_path)
    assert (line["step"], line["stage"]) == (2, "distil")
    samples = [feature.source for feature in job.stages[0].validation.features[:2]]
    assert [row["id"] for row in line["answers"]] == ["0", "1"]
    model, codec = job.writer  # type: ignore[misc]
    by_student = answers(job.student.eval(), codec, samples)  # type: ignore[arg-type]
    by_teacher = answers(model, codec, samples)  # type: ignore[arg-type]
    for row, sample, student, teacher in zip(line["answers"], samples, by_student, by_teacher, strict=True):
        assert sample is not None
        assert row["prompt"] == sample.inputs["messages"][0]["content"]
        assert row["reference"] == sample.target
        assert (row["student"], row["finished"]) == student
        assert row["teacher"] == teacher[0]
    assert by_student != by_teacher


def test_the_teacher_is_asked_once_and_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = answers

    def counted(model: Any, *rest: Any) -> Any:
        asked.append(model)
        return real(model, *rest)

    monkeypatch.setattr("limbeck.training.shown.answers", counted)
    job = job_of(steps=6)
    train(job, tmp_path / "taught")
    assert job.writer is not None
    assert len(rows(tmp_path / "taught")) == asked.count(job.student) == 3
    assert asked.count(job.writer[0]) == 1
    alone = job_of(steps=2)
    alone.writer = None
    train(alone, tmp_path / "alone")
    assert {row["teacher"] for line in rows(tmp_path / "alone") for row in line["answers"]} == {None}


def test_an_answer_ends_at_the_models_positions_and_at_twice_the_rows_own() -> None:
    job = job_of()
    sample = next(f.source for f in job.stages[0].validation.features if f.source is not None)
    count = len(job.codec.processor(sample.target)["input_ids"])
    calls = []

    class Codec:
        processor, prompt_ids = job.codec.processor, staticmethod(job.codec.prompt_ids)  # type: ignore[attr-defined]

        def generate(self, model: Any, prompts: Any, ends: Any, tokens: int) -> torch.Tensor:
            calls.append(tokens)
            return torch.zeros((len(prompts), 0), dtype=torch.long)

    student: Any = job.student
    codec: Any = Codec()
    answers(student, codec, [sample])
    student.config.max_position_embeddings = len(job.codec.prompt_ids(sample)) + 3  # type: ignore[attr-defined]
    answers(student, codec, [sample])
    assert calls == [min(MOST, 8 + 2 * count), 3]
    student.config.max_position_embeddings -= 3
    assert answers(student, codec, [sample]) == [("", False)]


class _Pulled(LocalTeacher):
    """A teacher that pulls the plug when it is asked once too often."""

    left = 5

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().signal(batch, needs)


def test_a_killed_run_goes_on_with_no_answer_told_twice(tmp_path: Path) -> None:
    """Saved at step 3, killed after the answers of step 4: those are dropped and come again."""
    whole = job_of(save_steps=3)
    train(whole, tmp_path / "whole")
    first = job_of(save_steps=3)
    first.teacher = _Pulled(first.teacher.model)  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path / "killed")
    assert [line["step"] for line in rows(tmp_path / "killed")] == [2, 4]
    second = job_of(save_steps=3)
    train(second, tmp_path / "killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert (tmp_path / "killed" / "plan.json").read_bytes() == (tmp_path / "whole" / "plan.json").read_bytes()
    for name, weights in whole.student.state_dict().items():
        assert torch.equal(weights, second.student.state_dict()[name]), name


def test_plan_and_memory(tmp_path: Path) -> None:
    train(job_of(steps=4, eval_steps=3), tmp_path)
    stages = [{"name": "distil", "steps": 4, "eval_steps": 3}]
    assert json.loads((tmp_path / "plan.json").read_text()) == {"title": "student", "unit": "tokens", "stages": stages}
    first = rows(tmp_path, "steps")[0]["memory"]
    assert 1e7 < first["resident"] < 1e12
    assert ("gpu_peak" in first) == torch.cuda.is_available()


def test_classifiers_have_no_answers(tmp_path: Path) -> None:
    run_recipe(load_recipe(images(tmp_path / "run")), until="train")
    assert not (tmp_path / "run" / "train" / "generations.jsonl").exists()
    assert json.loads((tmp_path / "run" / "train" / "plan.json").read_text())["unit"] == "samples"


@pytest.mark.parametrize("fields", [{}, {"cache": {}}, {"task": {"type": "structured-reasoning", "max_length": 128}}])
def test_runs_of_language_models_write_them(tmp_path: Path, fields: dict[str, Any]) -> None:
    """The teacher's fine-tuning has no teacher; the student's is asked where it is at hand, not where it is cached."""
    run_recipe(load_recipe(language(tmp_path / "run", stages=[stage(eval_steps=1)], **fields)), until="train")
    made = rows(tmp_path / "run" / "train")
    assert [line["step"] for line in made] == [1, 2]
    assert {row["teacher"] is None for line in made for row in line["answers"]} == {"cache" in fields}
    assert all(row["teacher"] is None for line in rows(tmp_path / "run" / "prepare") for row in line["answers"])


def test_stages_with_rows_of_the_same_id_have_each_their_teachers_answer(tmp_path: Path) -> None:
    job = job_of(steps=2)
    first = job.stages[0]
    other = replace(first, stage=first.stage.model_copy(update={"name": "other"}))
    shown = Answers(job, Accelerator(cpu=True))
    shown.of(first)

    shown._taught = dict.fromkeys(shown._taught, "of the first stage")

    assert {row["teacher"] for row in shown.of(first)} == {"of the first stage"}
    assert "of the first stage" not in {row["teacher"] for row in shown.of(other)}
