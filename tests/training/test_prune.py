"""Stages that begin with taking heads and units out."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.recipe import Prune, Quantize, Training
from limbeck.models.quantize import quantizable
from limbeck.models.shrink.prune import Masks, become, empty, pruned, sizes_left, sizes_of
from limbeck.tasks.causal_lm import CausalLM
from limbeck.training import loop
from limbeck.training.batches import order_of
from limbeck.training.dry_run import dry_run
from limbeck.training.engine import make_accelerator
from limbeck.training.job import Job, StageJob
from limbeck.training.loop import train
from limbeck.training.prune import taylor
from tests.training.feature_job import feature_job
from tests.training.ragged import make_job, samples

KL2: dict[str, Any] = {"type": "kl", "temperature": 2}
CE: dict[str, Any] = {"type": "cross_entropy"}


LEFT = {"intermediate_size": 4}


def four_heads(vocabulary: int, units: int = 24) -> transformers.PreTrainedModel:
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        "qwen3",
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=units,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def pruning_job(plan: dict[str, Any], per_process: int = 8, **training: Any) -> Job:
    job = make_job(per_process, torch.float32, steps=3, save_steps=1, **training)
    job.student = four_heads(job.student.config.vocab_size)
    job.learnable = {name for name, _ in job.student.named_parameters()}
    old = job.stages[0]
    first = old.stage.model_copy(update={"name": "whole", "max_steps": 1, "eval_steps": 1})
    second = old.stage.model_copy(update={"name": "cut", "prune": Prune(**plan), "eval_steps": 3})
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


PLAN = {"heads": 0.5, "mlp": 0.5, "rows": 8}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What comes of a run by that plan that nothing interrupts."""
    job = pruning_job(PLAN)
    train(job, tmp_path_factory.mktemp("whole"))
    return job.student.state_dict()


@pytest.mark.parametrize("at", [2, 4])  # the second stage's first step: nothing saved of it; its third
def test_a_killed_stage_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, torch.Tensor], at: int
) -> None:
    step, seen = loop.optimizer_step, []

    def dying(*args: Any) -> Any:
        seen.append(1)
        if len(seen) == at:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(loop, "optimizer_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(pruning_job(PLAN), tmp_path)
    monkeypatch.undo()
    again = pruning_job(PLAN)
    train(again, tmp_path)

    other = again.student.state_dict()
    assert all(torch.equal(x, other[name]) for name, x in whole.items())


def test_taylor_is_the_slope_of_the_loss_by_each_sample(tmp_path: Path) -> None:
    """The oracle: the loss of one sample at a time, with what a unit writes made a little larger by hand."""
    job = feature_job([{"terms": [KL2, CE]}])
    job.student.double().eval()
    job.teacher.model.double()  # type: ignore[union-attr]
    batch = job.codec.collate(job.stages[0].train.features[:3])
    distiller = job.distiller(job.stages[0].stage, batch)
    accelerator = make_accelerator(Training(), tmp_path)

    found = taylor(distiller, job.teacher, accelerator, [[batch]], LEFT, [1.0, 1.0])["intermediate_size"]

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


def slopes(job: Job, accelerator: Any, weights: list[float]) -> torch.Tensor:
    """Of the job's first stage, on its first three samples."""
    batch = job.codec.collate(job.stages[0].train.features[:3])
    distiller = job.distiller(job.stages[0].stage, batch)
    return taylor(distiller, job.teacher, accelerator, [[batch]], LEFT, weights)["intermediate_size"]


class Half:
    """An engine that computes in fp16 on the CPU, as one on a GPU does."""

    def __init__(self, scale: float):
        self.scaler = SimpleNamespace(get_scale=lambda: scale)

    def autocast(self) -> Any:
        return torch.autocast("cpu", dtype=torch.float16)

    def reduce(self, x: torch.Tensor, _: str) -> torch.Tensor:
        return x


@pytest.mark.parametrize("scale", [2.0**16, 2.0**40])  # what a scaler begins with, and far too much
def test_slopes_too_small_for_fp16_are_scaled(tmp_path: Path, scale: float) -> None:
    job = feature_job([{"terms": [KL2, CE]}])
    wanted = slopes(job, make_accelerator(Training(), tmp_path), [1e-5, 1e-5])

    assert (slopes(job, Half(1.0), [1e-5, 1e-5]) == 0).float().mean() > 0.3, "they are lost without"
    torch.testing.assert_close(slopes(job, Half(scale), [1e-5, 1e-5]), wanted, rtol=0.05, atol=wanted.max().item() / 50)


def test_a_balance_weighs_what_heads_and_units_are_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's own loss decides: its terms' weights, each over its size on the first batch."""
    balance = {"output": 3.0, "intermediate": 1.0}
    hidden = {"type": "hidden", "weight": 5.0, "match": {"bert.encoder.layer.1": "bert.encoder.layer.3"}}
    plain = {"terms": [KL2, hidden], "prune": {"mlp": 0.5}, "max_steps": 1}
    given: list[list[float]] = []

    def seen(*args: Any) -> Any:
        given.append(list(args[5]))
        return taylor(*args)

    monkeypatch.setattr(loop, "taylor", seen)
    train(feature_job([plain]), tmp_path / "plain")
    job = feature_job([{**plain, "balance": balance}])
    first = job.codec.collate([job.stages[0].train.features[i] for i in first_drawn(job)])
    distiller = job.distiller(job.stages[0].stage, first)
    distiller.eval()
    told = job.teacher.signal(first, distiller.asks_teacher)  # type: ignore[union-attr]
    with torch.no_grad():
        _, sums = distiller(first, told, [1.0, 1.0])
    sizes = [float(sums["kl"]) / 8, float(sums["hidden"]) / float(first.inputs["attention_mask"].sum())]
    train(job, tmp_path / "balanced")

    assert given[0] == [1.0, 5.0]
    assert given[1] == pytest.approx([0.75 / sizes[0], 0.25 / sizes[1]], rel=1e-4)


def first_drawn(job: Job) -> list[int]:
    """The samples of the first step."""
    each = job.stages[0]
    return list(order_of(each.stage, each.train, each.steps, (job.seed, 0), None).step(0))


def test_packed_rows_have_no_factor_for_each_sample(tmp_path: Path) -> None:
    job = pruning_job({"mlp": 0.5, "rows": 8})
    job.codec = CausalLM(answer_pattern=None, packing=True, max_length=64).codec(job.codec.processor, None)
    last = job.stages[1]
    job.stages = [StageJob(last.stage, job.codec.encode(samples()), job.codec.encode(samples()))]

    with pytest.raises(RecipeError, match=r"stage cut: prune.* needs one sample a row"):
        train(job, tmp_path)

    by_size = last.stage.model_copy(update={"prune": Prune(mlp=0.5, importance="magnitude")})
    job.stages = [StageJob(by_size, job.stages[0].train, job.stages[0].validation)]
    dry_run(job, make_accelerator(Training(), tmp_path), tmp_path)


def test_later_stages_are_checked_on_what_the_pruned_student_will_be(tmp_path: Path) -> None:
    """Each fits the whole student, of 32 units and two groups of heads, and not the one that is left."""
    job = pruning_job({"mlp": 0.75, "heads": 0.5})
    job.student = four_heads(job.student.config.vocab_size, units=32)
    accelerator, cut = make_accelerator(Training(), tmp_path), job.stages[1]
    whole, state = sizes_of(job.student), copy.deepcopy(job.student.state_dict())

    def then(**fields: Any) -> None:
        after = cut.stage.model_copy(update={"name": "after", "prune": None, **fields})
        job.stages = [*job.stages[:2], StageJob(after, cut.train, cut.validation)]
        dry_run(job, accelerator, tmp_path)

    then()
    quantizable(job.student, Quantize(weights="int4", group_size=16))
    with pytest.raises(RecipeError, match="group_size does not divide"):
        then(quantize=Quantize(weights="int4", group_size=16))
    with pytest.raises(ModelError, match=r"0\.5 of 1 heads or groups"):
        then(prune=Prune(heads=0.5))

    assert sizes_of(job.student) == whole
    assert all(torch.equal(x, state[name]) for name, x in job.student.state_dict().items())


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
    job.stages = job.stages[1:]
    monkeypatch.setattr(loop, "taylor", None)

    train(job, tmp_path)

    assert job.student.config.intermediate_size == 12
    assert job.student.config.num_attention_heads == 4


def test_activations_computed_twice_give_the_same_student(tmp_path: Path, whole: dict[str, torch.Tensor]) -> None:
    twice = pruning_job(PLAN, gradient_checkpointing=True)
    train(twice, tmp_path)

    other = twice.student.state_dict()
    assert all(torch.allclose(x, other[name], atol=1e-5) for name, x in whole.items())


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


@pytest.mark.slow  # a process of its own imports everything anew
def test_two_processes_prune_and_round_alike(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.training.smaller", str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 0, done.stderr[-3000:]
    one, other = ((tmp_path / f"rank-{rank}").read_text() for rank in (0, 1))
    assert one == other
    assert one.endswith(" 12")
