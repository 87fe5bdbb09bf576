"""Stages that begin with taking heads and units out."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Prune, Training
from limbeck.models.shrink.prune import Masks, become, empty, pruned, sizes_left, sizes_of
from limbeck.training import loop
from limbeck.training.engine import make_accelerator
from limbeck.training.job import Job, StageJob
from limbeck.training.loop import train
from limbeck.training.prune import taylor
from tests.training.feature_job import feature_job
from tests.training.ragged import make_job

KL2: dict[str, Any] = {"type": "kl", "temperature": 2}
CE: dict[str, Any] = {"type": "cross_entropy"}


def four_heads(vocabulary: int) -> transformers.PreTrainedModel:
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        "qwen3",
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def pruning_job(plan: dict[str, Any], **training: Any) -> Job:
    job = make_job(4, torch.float32, steps=4, save_steps=1, **training)
    job.student = four_heads(job.student.config.vocab_size)
    job.learnable = {name for name, _ in job.student.named_parameters()}
    old = job.stages[0]
    first = old.stage.model_copy(update={"name": "whole", "max_steps": 2, "eval_steps": 2})
    second = old.stage.model_copy(update={"name": "cut", "prune": Prune(**plan), "eval_steps": 2})
    job.stages = [StageJob(first, old.train, old.validation), StageJob(second, old.train, old.validation)]
    return job


def test_a_head_and_units_go_and_the_rest_learns(tmp_path: Path) -> None:
    job = pruning_job({"heads": 0.5, "mlp": 0.75, "rows": 8})
    held = job.student

    done = train(job, tmp_path)

    assert job.student is held
    config = held.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.intermediate_size) == (2, 1, 6)
    assert done[1]["sizes"]["num_attention_heads"] == 2
    held.save_pretrained(tmp_path / "student")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    ids = torch.tensor([[1, 2, 3]])
    held.eval()
    assert torch.equal(loaded(ids).logits, held(ids).logits)


@pytest.mark.parametrize("at", [3, 5])  # the second stage's first step: nothing saved of it; its third
def test_a_killed_stage_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    plan = {"heads": 0.5, "mlp": 0.5, "rows": 8}
    whole = pruning_job(plan)
    train(whole, tmp_path / "whole")
    step, seen = loop.optimizer_step, []

    def dying(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == at:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(pruning_job(plan), tmp_path / "killed")
    monkeypatch.undo()
    again = pruning_job(plan)
    train(again, tmp_path / "killed")

    one, other = whole.student.state_dict(), again.student.state_dict()
    assert all(torch.equal(x, other[name]) for name, x in one.items())


def test_taylor_is_the_slope_of_the_loss_by_each_sample(tmp_path: Path) -> None:
    """The oracle: the loss of one sample at a time, with what a unit writes made a little larger by hand."""
    job = feature_job([{"terms": [KL2, CE]}])
    job.student.double().eval()
    job.teacher.model.double()  # type: ignore[union-attr]
    batch = job.codec.collate(job.stages[0].train.features[:3])
    distiller = job.distiller(job.stages[0].stage, batch)
    accelerator = make_accelerator(Training(), tmp_path)

    found = taylor(distiller, job.teacher, accelerator, [[batch]], {"intermediate_size": 4})["intermediate_size"]

    step, wanted = 1e-5, torch.zeros_like(found)
    down = job.student.bert.encoder.layer[1].output.dense.weight
    for i in range(3):
        one = job.codec.collate(job.stages[0].train.features[i : i + 1])
        told = job.teacher.signal(one, distiller.asks_teacher)  # type: ignore[union-attr]
        for unit in range(found.shape[1]):
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    kept = down[:, unit].clone()
                    down[:, unit] *= 1 + sign * step
                    losses.append(distiller(one, told, [1 / 3, 1 / 3])[0].item())
                    down[:, unit] = kept
            wanted[1, unit] += abs(losses[0] - losses[1]) / (2 * step)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-8)


def test_what_the_loss_does_not_need_goes() -> None:
    """Heads and units whose output is nothing are worth nothing, and taking them out changes no answer."""
    model = four_heads(30).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:, 8:] = 0  # the second group of two queries
            layer.mlp.down_proj.weight[:, ::2] = 0
    ids = torch.arange(12).view(2, 6)
    left = sizes_left(model, Prune(heads=0.5, mlp=0.5))
    masks = Masks(model, left)
    with masks.there():
        found = masks.slopes(model(ids).logits.square().sum())

    other = pruned(model, left, found).eval()

    assert left == {"num_attention_heads": 2, "intermediate_size": 12}
    assert (found["num_attention_heads"][:, 2:] == 0).all()
    assert (found["num_attention_heads"][:, :2] > 0).all()
    torch.testing.assert_close(other(ids).logits, model(ids).logits)
    before = model(ids).logits
    become(model, other)
    assert torch.equal(model(ids).logits, other(ids).logits)
    assert not torch.equal(before, torch.zeros_like(before))


def test_magnitude_asks_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = pruning_job({"mlp": 0.5, "importance": "magnitude"})
    monkeypatch.setattr(loop, "taylor", None)

    train(job, tmp_path)

    assert job.student.config.intermediate_size == 12
    assert job.student.config.num_attention_heads == 4


def test_activations_computed_twice_give_the_same_student(tmp_path: Path) -> None:
    plan = {"heads": 0.5, "mlp": 0.5, "rows": 8}
    once, twice = pruning_job(plan), pruning_job(plan, gradient_checkpointing=True)
    train(once, tmp_path / "once")
    train(twice, tmp_path / "twice")

    one, other = once.student.state_dict(), twice.student.state_dict()
    assert all(torch.allclose(x, other[name], atol=1e-5) for name, x in one.items())


def test_encoders_lose_units_but_no_heads(tmp_path: Path) -> None:
    job = feature_job([{"terms": [KL2], "prune": {"heads": 0.5}}])
    with pytest.raises(ModelError, match="no head can go alone"):
        train(job, tmp_path)

    job = feature_job([{"terms": [KL2], "prune": {"mlp": 0.5}}])
    train(job, tmp_path)

    assert job.student.config.intermediate_size == 4


def test_a_share_that_takes_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="takes nothing"):
        sizes_left(four_heads(30), Prune(heads=0.1))
    with pytest.raises(ValueError, match="takes nothing out"):
        Prune()


def test_an_empty_model_has_the_sizes_of_a_cut_one() -> None:
    model = four_heads(30)
    other = pruned(model, {"num_attention_heads": 2, "intermediate_size": 8}, {})

    made = empty(copy.deepcopy(model), sizes_of(other))

    assert {k: x.shape for k, x in made.state_dict().items()} == {k: x.shape for k, x in other.state_dict().items()}


def test_two_processes_prune_and_round_alike(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = ["-m", "tests.training.smaller", str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, *script], cwd=root, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    one, other = ((tmp_path / f"rank-{rank}").read_text() for rank in (0, 1))
    assert one == other
    assert one.endswith(" 12")
