"""Terms that read layers, in the loop: what learns, what is exported, what a kill leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from limbeck.core.errors import ModelError, RecipeError
from limbeck.teachers.local import MovingTeacher
from limbeck.training.loop import train
from tests.training.feature_job import feature_job

HIDDEN = {"type": "hidden", "match": {"encoder.layer.{0,1}": "encoder.layer.{1,3}"}, "weight": 0.5}
CE = {"type": "cross_entropy"}
KL = {"type": "kl", "temperature": 2}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_projectors_learn_and_stay_behind(tmp_path: Path) -> None:
    job = feature_job([{"terms": [CE, HIDDEN], "max_steps": 8}])
    names = set(job.student.state_dict())
    train(job, tmp_path)
    assert set(job.student.state_dict()) == names
    table = json.loads((tmp_path / "layers.json").read_text())
    assert [row["student"] for row in table] == ["bert.encoder.layer.0", "bert.encoder.layer.1"]
    assert [row["teacher"] for row in table] == ["bert.encoder.layer.1", "bert.encoder.layer.3"]
    assert all("8" in row["between"] and "16" in row["between"] for row in table)
    losses = [line["terms"]["hidden"] for line in lines(tmp_path)]
    assert losses[-1] < losses[0]


def test_the_gradient_follows_the_teachers_layers(tmp_path: Path) -> None:
    ends = []
    for spoil in (False, True):
        job = feature_job([{"terms": [HIDDEN], "max_steps": 2}])
        if spoil:
            with torch.no_grad():
                job.teacher.model.bert.encoder.layer[1].output.LayerNorm.weight.neg_()  # type: ignore[union-attr]
        train(job, tmp_path / str(spoil))
        ends.append(job.student.bert.encoder.layer[0].output.dense.weight.clone())
    assert not torch.allclose(ends[0], ends[1])


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def job() -> Any:
        stages = [{"terms": [CE, KL, HIDDEN], "balance": {"output": 3, "intermediate": 2}}, {"terms": [CE, HIDDEN]}]
        made = feature_job(stages, save_steps=1)
        made.teacher = made.teacher
        return made

    whole = job()
    train(whole, tmp_path / "whole")
    for after in (1, 3, 6):
        folder, broken, again = tmp_path / str(after), job(), job()
        broken.teacher = _Stopping(broken.teacher, after)
        with pytest.raises(KeyboardInterrupt):
            train(broken, folder)
        train(again, folder)
        for (name, one), two in zip(
            whole.student.state_dict().items(), again.student.state_dict().values(), strict=True
        ):
            assert torch.equal(one, two), (after, name)
        assert [line["loss"] for line in lines(folder)] == [line["loss"] for line in lines(tmp_path / "whole")]


class _Stopping:
    """A teacher that pulls the plug when it was asked so often about logits and layers."""

    def __init__(self, teacher: Any, after: int):
        self.teacher, self.left, self.model = teacher, after + 1, teacher.model

    def signal(self, *args: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.teacher.signal(*args)

    def update(self, student: Any) -> None:
        pass


def test_balance_makes_the_groups_weigh_as_told(tmp_path: Path) -> None:
    balance = {"output": 3, "intermediate": 2}
    terms = [{**CE, "weight": 0.2}, {**KL, "weight": 0.6}, HIDDEN]
    job = feature_job([{"terms": terms, "balance": balance, "learning_rate": 1e-9}])
    job.student.eval()
    for module in job.student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    train(job, tmp_path)
    first = lines(tmp_path)[0]
    assert first["loss"] == pytest.approx(1.0, rel=1e-4)  # 3/5 of output and 2/5 of intermediate, each of size 1


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ({"encoder.layer.5": "encoder.layer.0"}, "no layer 'encoder.layer.5'"),
        ({"encoder.layer.*": "encoder.layer.*"}, "different numbers of layers"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_step(tmp_path: Path, match: Any, message: str) -> None:
    job = feature_job([{"terms": [CE]}, {"terms": [CE, {**HIDDEN, "match": match}]}])
    with pytest.raises((ModelError, RecipeError), match=message):
        train(job, tmp_path)
    assert not (tmp_path / "steps.jsonl").exists()


def test_frozen_parameters_stay_and_are_free_again(tmp_path: Path) -> None:
    job = feature_job([{"terms": [CE], "freeze": ["*embeddings*"]}, {"terms": [CE]}])
    before = {name: p.clone() for name, p in job.student.named_parameters()}
    job.stages = job.stages[:1]
    train(job, tmp_path / "one")
    moved = {name for name, p in job.student.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any("embeddings" in name for name in moved)
    assert all(p.requires_grad for p in job.student.parameters())
    with pytest.raises(RecipeError, match="freeze names no parameter"):
        train(feature_job([{"terms": [CE], "freeze": ["*embedings*"]}]), tmp_path / "two")
    with pytest.raises(RecipeError, match="leaves nothing"):
        train(feature_job([{"terms": [CE], "freeze": ["*"]}]), tmp_path / "three")


def test_a_gate_asks_about_the_hardest_only(tmp_path: Path) -> None:
    job = feature_job([{"terms": [CE, KL], "gate": {"by": "entropy", "share": 0.25}}])
    seen: list[int] = []
    signal = job.teacher.signal  # type: ignore[union-attr]
    job.teacher.signal = lambda batch, needs: (seen.append(len(batch.ids)), signal(batch, needs))[1]  # type: ignore
    train(job, tmp_path)
    assert seen == [2] * 4
    assert [line["teacher_share"] for line in lines(tmp_path)] == [0.25] * 4


def test_a_student_can_learn_from_its_own_past(tmp_path: Path) -> None:
    def job() -> Any:
        made = feature_job([{"terms": [CE, KL], "max_steps": 6}], teacher=False, save_steps=2)
        made.teacher = MovingTeacher(made.student, 0.9)
        return made

    whole = job()
    start = whole.teacher.model.classifier.weight.clone()
    train(whole, tmp_path / "whole")
    assert not torch.equal(whole.teacher.model.classifier.weight, start)
    assert not torch.equal(whole.teacher.model.classifier.weight, whole.student.classifier.weight)
    broken, again = job(), job()
    ask, left = broken.teacher.signal, iter(range(3))
    broken.teacher.signal = lambda *args: ask(*args) if next(left, None) is not None else _stop()
    with pytest.raises(KeyboardInterrupt):
        train(broken, tmp_path / "broken")
    train(again, tmp_path / "broken")
    assert torch.equal(again.teacher.model.classifier.weight, whole.teacher.model.classifier.weight)
    assert torch.equal(again.student.classifier.weight, whole.student.classifier.weight)


def _stop() -> None:
    raise KeyboardInterrupt


def test_a_plateau_lowers_a_weight(tmp_path: Path) -> None:
    weight = {"type": "plateau", "start": 1.0, "factor": 0.5}
    stage = {"terms": [{**CE, "weight": weight}], "learning_rate": 1e-12, "eval_steps": 1, "max_steps": 4}
    train(feature_job([stage], teacher=False), tmp_path)
    ratio = [line["loss"] / line["terms"]["cross_entropy"] for line in lines(tmp_path)]
    assert ratio == pytest.approx([1.0, 1.0, 0.5, 0.25], rel=1e-5)  # the first validation is the best so far


def test_a_plateau_that_never_comes_is_refused(tmp_path: Path) -> None:
    hint = {**HIDDEN, "weight": {"type": "plateau", "start": 1.0}}
    with pytest.raises(RecipeError, match="no plateau ever comes"):
        train(feature_job([{"terms": [hint]}]), tmp_path)


def test_checkpointed_activations_give_the_same_student(tmp_path: Path) -> None:
    ends = []
    for on in (False, True):
        job = feature_job([{"terms": [CE, KL, HIDDEN]}], gradient_checkpointing=on)
        train(job, tmp_path / str(on))
        ends.append(job.student.state_dict())
    for name, one in ends[0].items():
        torch.testing.assert_close(ends[1][name], one, msg=name)


def test_checkpoints_hold_the_projectors(tmp_path: Path) -> None:
    job = feature_job([{"terms": [CE, HIDDEN]}], save_steps=2)
    job.teacher = _Stopping(job.teacher, 2)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path)
    found = sorted((tmp_path / ".checkpoints").glob("step-*"))
    assert any("hidden" in name for name in load_file(found[-1] / "terms.safetensors"))


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    found = []
    for micro in (8, 4, 2, 1):
        job = feature_job([{"terms": [CE, KL, HIDDEN], "per_device_train_batch_size": micro, "max_steps": 3}])
        for module in (*job.student.modules(),):
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        train(job, tmp_path / str(micro))
        found.append([(line["terms"], line["loss"], line["grad_norm"]) for line in lines(tmp_path / str(micro))])
    for other in found[1:]:
        for (terms, loss, norm), (wanted, wanted_loss, wanted_norm) in zip(other, found[0], strict=True):
            assert terms == pytest.approx(wanted, rel=2e-5)
            assert loss == pytest.approx(wanted_loss, rel=2e-5)
            assert norm == pytest.approx(wanted_norm, rel=2e-4)


def test_a_learned_temperature_learns_against_the_student_and_is_kept(tmp_path: Path) -> None:
    term = {"type": "kl", "temperature": {"type": "learned", "rise": 0.0}}
    job = feature_job([{"terms": [CE, term], "max_steps": 6}], save_steps=2)
    job.teacher = _Stopping(job.teacher, 4)
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path)
    kept = load_file(sorted((tmp_path / ".checkpoints").glob("step-*"))[-1] / "terms.safetensors")
    (theta,) = kept.values()
    start = torch.logit(torch.tensor((4 - 1) / (21 - 1))) / 10
    assert not torch.allclose(theta.flatten()[0], start, atol=1e-4)


def test_a_temperature_follows_its_schedule(tmp_path: Path) -> None:
    warm = {"type": "scheduled", "value": {"type": "linear", "start": 8, "end": 1}}
    ends = {}
    for name, temperature in (("scheduled", warm), ("fixed", 8)):
        stage = {"terms": [{"type": "kl", "temperature": temperature}], "learning_rate": 1e-12, "max_steps": 3}
        train(feature_job([stage]), tmp_path / name)
        ends[name] = [line["loss"] for line in lines(tmp_path / name)]
    assert ends["scheduled"][0] == pytest.approx(ends["fixed"][0])
    assert ends["scheduled"][-1] != pytest.approx(ends["fixed"][-1], rel=1e-2)


def test_the_hardest_share_needs_several_samples_in_a_pass(tmp_path: Path) -> None:
    gate = {"by": "entropy", "share": 0.5}
    for sizes in ({"per_device_train_batch_size": 1}, {"global_batch_size": 1}):
        job = feature_job([{"terms": [CE, KL], "gate": gate, **sizes}])
        with pytest.raises(RecipeError, match="hardest share of a micro-batch of one"):
            train(job, tmp_path)


def test_angles_need_three_samples_in_a_pass(tmp_path: Path) -> None:
    spec = {"type": "rkd", "match": {"encoder.layer.1": "encoder.layer.3"}, "distance": 0}
    with pytest.raises(RecipeError, match="fewer than 3"):
        train(feature_job([{"terms": [CE, spec], "per_device_train_batch_size": 2}]), tmp_path)


def test_a_term_without_weight_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer may overflow where its term is switched off; the log still shows it."""
    made: list[list[float]] = []
    for broken in (False, True):
        job = feature_job([{"terms": [CE, {**HIDDEN, "weight": 0.0}], "max_steps": 2}])
        if broken:
            inner = job.distiller

            def distiller(*args: Any, inner: Any = inner) -> Any:
                found = inner(*args)
                for loss in found.losses.values():
                    loss.register_forward_hook(lambda module, args, out: out * torch.inf)
                return found

            monkeypatch.setattr(job, "distiller", distiller)
        train(job, tmp_path / str(broken))
        made.append([line["loss"] for line in lines(tmp_path / str(broken))])
    assert made[0] == made[1]
