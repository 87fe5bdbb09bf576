"""On-policy stages: whose answers a step has, what the teacher is asked about, and that kills change nothing."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from limbeck.core.errors import LimbeckError, MissingExtra, ModelError, RecipeError
from limbeck.core.recipe import OnPolicy, Stage, load_recipe
from limbeck.core.recipe.models import Lora
from limbeck.core.types import IGNORE, Batch, Dense, Needs, Signal
from limbeck.models.adapters import add_lora
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.reverse_kl import ReverseKL
from limbeck.tasks._decode import Drawing, end_tokens, sample
from limbeck.teachers.local import LocalTeacher
from limbeck.teachers.remembering import RememberingTeacher
from limbeck.training.engine import make_accelerator
from limbeck.training.loop import Job, train
from limbeck.training.on_policy import Writer, forbidden_tokens, is_own
from tests.contracts.cases import TERMS, B, T, V, variants
from tests.pipeline.recipes import language, stage
from tests.training.ragged import losses, make_job, tiny_lm

F32 = torch.float32
NEW = 6


class _Watching:
    """A teacher that remembers what it was asked about, and may pull the plug."""

    def __init__(self, teacher: LocalTeacher, after: int | None = None):
        self.teacher, self.model, self.left = teacher, teacher.model, after
        self.seen: list[Batch] = []

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        if self.left is not None and len(self.seen) >= self.left:
            raise KeyboardInterrupt
        self.seen.append(batch)
        return self.teacher.signal(batch, needs)

    def update(self, student: object) -> None:
        pass


def own_job(
    steps: int = 6,
    micro: int = 8,
    terms: Sequence[Any] = (ReverseKL(),),
    stop: int | None = None,
    save_steps: int = 100,
    **plan: Any,
) -> Job:
    """`make_job` with answers of the student's own."""
    job = make_job(micro, F32, steps, save_steps=save_steps)
    first = job.stages[0]
    fields = {"terms": list(terms), "on_policy": OnPolicy(**{"max_new_tokens": NEW, **plan})}
    job.stages = [replace(first, stage=first.stage.model_copy(update=fields))]
    assert isinstance(job.teacher, LocalTeacher)
    job.teacher = _Watching(job.teacher, stop)
    return job


def asked(job: Job) -> list[Batch]:
    return job.teacher.seen


def run(job: Job, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    return train(job, folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("share", [0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0])
def test_the_share_is_exact_and_hangs_on_seed_and_step_alone(share: float) -> None:
    plan = OnPolicy(share=share)
    own = [is_own(plan, 3, 0, step) for step in range(600)]
    for start in range(0, 600, 37):
        for length in (1, 10, 60):
            part = own[start : start + length]
            assert abs(sum(part) - share * len(part)) <= 1 + 1e-6
    if 0.2 < share < 1:
        others = [[is_own(plan, seed, place, step) for step in range(600)] for seed, place in ((4, 0), (3, 1), (9, 2))]
        assert any(other != own for other in others)


def test_the_teacher_reads_what_the_student_wrote(tmp_path: Path) -> None:
    """Prompts are the data's; answers are the ones drawn with the step's weights, labels on all of their tokens."""
    job = own_job(steps=1)
    before = copy.deepcopy(job.student).eval()
    done = run(job, tmp_path)
    (batch,), codec = asked(job), job.codec
    rows = {f.id: f for f in job.stages[0].train.features}
    ends = end_tokens(codec.processor, job.student)
    tokens = cut = 0
    for i, name in enumerate(batch.ids):
        prompt = codec.prompt_ids(rows[name].source)  # type: ignore[attr-defined]
        real = batch.inputs["attention_mask"][i].bool()
        ids, labels = batch.inputs["input_ids"][i][real].tolist(), batch.labels[i][real].tolist()
        assert ids[: len(prompt)] == prompt
        assert labels[: len(prompt) - 1] == [IGNORE] * (len(prompt) - 1)
        answer = labels[len(prompt) - 1 :]
        assert ids[len(prompt) :] == answer[:-1]
        assert IGNORE not in answer
        assert not ends & set(answer[:-1])
        assert len(answer) == NEW or answer[-1] in ends
        tokens, cut = tokens + len(answer), cut + (answer[-1] not in ends)
        with torch.no_grad():  # every token had a probability
            logits = before(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        assert logits.softmax(-1).gather(1, torch.tensor(answer)[:, None]).min() > 0
    assert done[0]["on_policy"] == {"steps": 1, "answers": 8, "tokens": tokens, "cut": cut}
    told = lines(tmp_path)[0]
    assert told["units"] == tokens
    assert told["on_policy"]["tokens"] == tokens
    assert told["on_policy"]["mean_length"] == tokens / 8
    assert told["on_policy"]["finished"] == 1 - cut / 8
    assert told["on_policy"]["tokens_per_second"] > 0


def test_each_step_writes_with_the_weights_of_its_time(tmp_path: Path) -> None:
    """Fresh answers are those of the student as it is; with `refresh`, those of a step before."""
    texts: dict[int, list[list[int]]] = {}
    for refresh in (1, 3):
        job = own_job(steps=3, temperature=0.7, refresh=refresh)
        run(job, tmp_path / str(refresh))
        texts[refresh] = [batch.labels[batch.labels != IGNORE].tolist() for batch in asked(job)]
    assert texts[1][0] == texts[3][0]
    assert texts[1][1:] != texts[3][1:]


@pytest.mark.parametrize("refresh", [1, 4])
def test_a_killed_run_writes_the_same_texts(tmp_path: Path, refresh: int) -> None:
    plan: dict[str, Any] = {"share": 0.6, "refresh": refresh, "top_p": 0.9, "save_steps": 1}
    whole = own_job(**plan)
    done = run(whole, tmp_path / "whole")
    for stop in (3,):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(own_job(**plan, stop=stop), folder)
        second = own_job(**plan)
        assert run(second, folder) == done
        for one, two in zip(asked(whole)[stop:], asked(second), strict=True):
            assert torch.equal(one.labels, two.labels)
        for (name, a), b in zip(whole.student.state_dict().items(), second.student.state_dict().values(), strict=True):
            assert torch.equal(a, b), name
        assert losses(folder) == losses(tmp_path / "whole")


def test_micro_batches_and_generation_batches_change_nothing(tmp_path: Path) -> None:
    found = {}
    for name, micro, size in (("whole", 8, None), ("split", 2, 3)):
        job = own_job(steps=3, micro=micro, per_device_generation_batch_size=size)
        run(job, tmp_path / name)
        found[name] = losses(tmp_path / name)
    for one, two in zip(found["whole"], found["split"], strict=True):
        assert one == pytest.approx(two, rel=1e-4)


def test_packed_rows_are_the_same_texts_and_the_same_loss(tmp_path: Path) -> None:
    found = {}
    for packing in (False, True):
        job = own_job(steps=3)
        task = replace(job.codec.task, packing=packing)  # type: ignore[attr-defined]
        job.codec = task.codec(job.codec.processor, None)
        run(job, tmp_path / str(packing))
        found[packing] = losses(tmp_path / str(packing))
        assert (asked(job)[0].packed is not None) is packing
    for one, two in zip(found[False], found[True], strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    long = own_job(steps=3, max_new_tokens=60)
    task = replace(long.codec.task, packing=True, max_length=64)  # type: ignore[attr-defined]
    long.codec = task.codec(long.codec.processor, None)
    with pytest.raises(RecipeError, match="packed row"):
        run(long, tmp_path / "long")


def test_checkpointing_and_dropout_stay_out_of_the_writing(tmp_path: Path) -> None:
    plain, kept = own_job(steps=2), own_job(steps=2)
    kept.training = kept.training.model_copy(update={"gradient_checkpointing": True})
    for name, job in (("plain", plain), ("kept", kept)):
        for module in job.student.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.5  # type: ignore[assignment]
        run(job, tmp_path / name)
    assert torch.equal(asked(plain)[0].labels, asked(kept)[0].labels)
    quiet = own_job(steps=2)
    run(quiet, tmp_path / "quiet")
    assert torch.equal(asked(quiet)[0].labels, asked(plain)[0].labels)
    assert losses(tmp_path / "quiet") != losses(tmp_path / "plain")  # while training it is there


def test_terms_that_read_labels_count_with_the_data_alone(tmp_path: Path) -> None:
    """In own steps cross-entropy is not in the loss; in the others it is."""
    both, alone = ({"type": "cross_entropy"}, {"type": "reverse_kl"}), ({"type": "reverse_kl"},)
    plan = Stage(name="s", terms=list(both), on_policy=OnPolicy(share=0.5))
    run(job := own_job(terms=plan.terms, share=0.5), tmp_path / "both")
    own = [is_own(OnPolicy(share=0.5), job.seed, 0, step) for step in range(6)]
    assert sum(own) == 3
    first = own.index(True)
    for line, mine in zip(lines(tmp_path / "both"), own, strict=True):
        assert ("cross_entropy" in line["terms"]) is not mine
        assert ("on_policy" in line) is mine
        total = line["terms"]["reverse_kl"] + line["terms"].get("cross_entropy", 0.0)
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    if first == 0:  # the same start: the gradient is that of the other term alone
        single = Stage(name="s", terms=list(alone), on_policy=OnPolicy(share=0.5))
        run(own_job(terms=single.terms, share=0.5), tmp_path / "alone")
        assert losses(tmp_path / "alone")[0] == pytest.approx(losses(tmp_path / "both")[0], rel=1e-6)


def test_it_brings_the_student_nearer_to_the_teacher_on_its_own_texts(tmp_path: Path) -> None:
    """Mean reverse KL per token on fresh answers of the student, before and after."""
    job = own_job(steps=25)
    teacher = job.teacher.model
    before = distance(job, teacher)
    run(job, tmp_path)
    assert distance(job, teacher) < 0.7 * before


def distance(job: Job, teacher: Any) -> float:
    codec, student = job.codec, job.student.eval()
    prompts = [codec.prompt_ids(f.source) for f in job.stages[0].train.features]  # type: ignore[attr-defined]
    chances = np.random.default_rng(5).random((len(prompts), NEW))
    answers = sample(student, prompts, 0, end_tokens(codec.processor, student), chances, Drawing())
    total, count = 0.0, 0
    with torch.no_grad():
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([prompt + answer])
            q, p = (m(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (student, teacher))
            total, count = total + float((q.exp() * (q - p)).sum()), count + len(answer)
    return total / count


def test_only_tokens_that_both_know_are_written() -> None:
    student = tiny_lm(20, 16, 0, F32)
    assert forbidden_tokens(student, 20, None) is None
    assert forbidden_tokens(student, 18, None).nonzero().flatten().tolist() == [18, 19]  # type: ignore[union-attr]
    shared = torch.tensor([0, 2, 4, 19])
    found = forbidden_tokens(student, 18, shared)
    assert (~found).nonzero().flatten().tolist() == [0, 2, 4]  # type: ignore[operator]


def test_processes_write_their_own_part_of_the_same_texts() -> None:
    job = own_job()
    features = job.stages[0].train.features[:8]
    written = {}
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        engine: Any = make_accelerator(job.training, Path("logs"))
        seen = SimpleNamespace(process_index=rank, num_processes=world, autocast=engine.autocast)
        writer = Writer(job.stages[0].stage, 0, job.student, job.codec, job.seed, None, seen)
        found = writer._write({0: features}, 0)[0]  # without a process group, only the own part comes back
        written[rank, world] = {i: ids for i, ids in enumerate(found) if ids}
    assert written[0, 2].keys() == {0, 2, 4, 6}
    assert written[0, 1] == written[0, 2] | written[1, 2]


@pytest.mark.parametrize("term", variants(TERMS))
def test_every_term_says_whether_it_reads_labels(term: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    said, told = (Dense(torch.randn(B, T, V, generator=draw)) for _ in range(2))
    values = [
        float(distribution_loss(said, told if term.asks_teacher else None, labels, [term], [1.0])[0])
        for labels in (torch.zeros(B, T, dtype=torch.long), torch.full((B, T), 3))
    ]
    assert (values[0] != values[1]) is term.reads_labels


def test_what_cannot_go_together_is_refused() -> None:
    kl, ce = {"type": "kl"}, {"type": "cross_entropy"}
    own = {"share": 0.5}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"terms": [ce], "on_policy": own}, "asks the teacher and reads no labels"),
        ({"terms": [kl, ce], "on_policy": {}}, "less than 1"),
        ({"terms": [kl], "on_policy": own, "augment": [{"type": "keyboard_typos"}]}, "augment"),
        ({"terms": [kl], "on_policy": own, "views": ["clean", "clean"]}, "views"),
        ({"terms": [kl], "on_policy": own, "gate": {"by": "loss", "share": 0.5}}, "reads labels"),
        ({"terms": [kl], "on_policy": {"lambda": 0.5}}, "unknown key"),
    ]
    for fields, message in refused:
        with pytest.raises(ValidationError, match=message):
            Stage(name="s", **fields)
    assert Stage(name="s", terms=[kl, ce], on_policy=own).on_policy == OnPolicy(share=0.5)


def test_a_recorded_teacher_and_too_long_answers_are_refused(tmp_path: Path) -> None:
    job = own_job()
    job.teacher = RememberingTeacher(tiny_lm(len(job.codec.processor), 32, 1, F32))
    with pytest.raises(RecipeError, match="recording"):
        run(job, tmp_path)
    with pytest.raises(ModelError, match="prompt and written answer"):
        run(own_job(max_new_tokens=40_000), tmp_path)


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    job = own_job()
    job.codec = type("Other", (type(job.codec),), {})(job.codec.processor, job.codec.task)  # type: ignore[attr-defined]
    with pytest.raises(LimbeckError, match="token by token"):
        run(job, tmp_path)


def test_answers_that_end_at_once_are_one_token(tmp_path: Path) -> None:
    """The end token alone: it is learned where the prompt ends, and the step is one as any other."""
    job = own_job(steps=2, temperature=0)
    end = job.codec.processor.eos_token_id
    head = job.student.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(len(head.weight)))
    with torch.no_grad():
        head.bias[end] = 50.0
    done = run(job, tmp_path)
    assert done[0]["on_policy"] == {"steps": 2, "answers": 16, "tokens": 16, "cut": 0}
    for given in asked(job):
        assert given.labels[given.labels != IGNORE].tolist() == [end] * 8
    assert all(np.isfinite(line["loss"]) for line in lines(tmp_path))


def test_the_drawing_does_not_change_what_is_compared(tmp_path: Path) -> None:
    """Drawn greedily among few tokens, an answer is still judged by both models' whole distributions."""
    job = own_job(steps=1, top_p=0.5, temperature=0.5)
    student, teacher = copy.deepcopy(job.student).eval(), job.teacher.model
    run(job, tmp_path)
    (given,) = asked(job)
    with torch.no_grad():
        q, p = (model(**given.inputs).logits.log_softmax(-1) for model in (student, teacher))
    labelled = given.labels != IGNORE
    wanted = (q.exp() * (q - p)).sum(-1)[labelled].mean()
    assert lines(tmp_path)[0]["loss"] == pytest.approx(float(wanted), rel=1e-4)


def test_vllm_does_not_write_for_a_student_with_lora(tmp_path: Path) -> None:
    job = own_job(engine="vllm")
    add_lora(job.student, Lora(r=2))
    with pytest.raises(RecipeError, match="LoRA"):
        run(job, tmp_path)


def test_vllm_is_asked_for_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="vllm"):
        run(own_job(engine="vllm"), tmp_path)


@pytest.mark.slow
def test_a_run_with_on_policy_in_two_processes(tmp_path: Path) -> None:
    """The same student as in one process, answers written ahead included."""
    own = {"max_new_tokens": NEW, "refresh": 2}
    plan = stage(terms=[{"type": "reverse_kl"}], max_steps=3, on_policy=own)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, launcher in (("one", []), ("two", start)):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(load_recipe(language(tmp_path / name, stages=[plan])).model_dump_json())
        command = [sys.executable, *launcher, "-m", "limbeck", "train", str(recipe)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "train" / "student" / "model.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
    manifest = json.loads((tmp_path / "two" / "train" / "manifest.json").read_text())
    assert manifest["best"][0]["on_policy"]["steps"] == 3
