"""What do quantization-aware training and pruning bring over rounding and cutting a trained student? Banking77.

    python benchmarks/evidence/smaller.py                          # about half an hour of one core
    python benchmarks/evidence/smaller.py --seeds 1 --epochs 0.5

A Qwen3-shaped classifier of 2 layers, 64 wide, 8 heads and 256 units, from scratch, is teacher and start of every arm:
each one makes it smaller, alone or while the whole one teaches it, on the same rows in the same order. `then` marks
what is done to a student after its training. 3,080 test rows, scored once.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _arms import DATA, Arm, recipe_of, run_arms, table, write

import limbeck
from limbeck.core.recipe import Model, Quantize, Recipe, load_recipe
from limbeck.evaluation.predict import classify
from limbeck.models.quantize import prepare, settle
from limbeck.pipeline._job import RunJob

DATA_SECTION = {
    "train": str(DATA / "banking77/train.csv.gz"),
    "test": str(DATA / "banking77/test.csv.gz"),
    "validation": 0.1,
    "text": "text",
    "label": "category",
}
LABELS = {"type": "cross_entropy"}
SOFT = [{"type": "cross_entropy", "weight": 0.1}, {"type": "kl", "temperature": 2, "weight": 0.9}]
WHOLE = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 8}
INT4 = {"weights": "int4", "group_size": 64}
HALF = {"heads": 0.5, "mlp": 0.5}
THREE_QUARTERS = {"heads": 0.75, "mlp": 0.75}
STILL = {"max_steps": 1, "learning_rate": 1e-12}
"""A stage in which nothing is learned."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=float, default=2)
    options.add_argument("--teacher-epochs", type=float, default=12)
    options.add_argument("--learning-rate", type=float, default=1e-3)
    options.add_argument("--output", type=Path, default=Path("runs/evidence/smaller"))
    given = options.parse_args()
    torch.set_num_threads(1)
    trained = train_teacher(given.output / "teacher", given.teacher_epochs)
    accuracy = trained.score("student", "accuracy")
    base = base_of(given, trained.student)
    found = run_arms(base, arms(), range(given.seeds), given.output)
    found |= rounded_after(base, given)
    near = nearness(base, given, trained.student)
    print(text := table(found, accuracy, ["KD, then int4", "cut to 1/2, KD"]))
    print("\n".join(f"{name:34} same answers {a:.2%}, KL {kl:.5f}" for name, (a, kl) in near.items()))
    facts = {"teacher_accuracy": accuracy, "arms": found, "near": near, "table": text.splitlines()}
    print(write("evidence-smaller", {**facts, "epochs": given.epochs, "learning_rate": given.learning_rate}))


def train_teacher(output: Path, epochs: float) -> Any:
    """The whole classifier, on the labels."""
    config = {"model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 8, **WHOLE}
    return limbeck.run(
        {
            "task": {"type": "text-classification", "max_length": 48},
            "output": str(output),
            "student": {"config": config, "tokenizer": {"train": "bpe", "vocab_size": 2000}},
            "data": DATA_SECTION,
            "training": {"learning_rate": 3e-3, "warmup_ratio": 0.1, "save_steps": 10_000},
            "stages": [{"name": "labels", "epochs": epochs, "terms": [LABELS]}],
            "evaluate": {"latency_runs": 20},
        },
        until="evaluate",
    )


def base_of(given: argparse.Namespace, whole: Path) -> dict[str, Any]:
    """The recipe that all arms have in common."""
    return {
        "task": {"type": "text-classification", "max_length": 48},
        "teacher": {"model": str(whole), "remember": True},
        "student": {"model": str(whole)},
        "data": DATA_SECTION,
        "training": {"learning_rate": given.learning_rate, "warmup_ratio": 0.1, "save_steps": 10_000},
        "stages": [{"name": "smaller", "epochs": given.epochs}],
        "evaluate": {"latency_runs": 20},
    }


def arms() -> list[Arm]:
    """All ways that are compared, but for what is rounded after its training."""

    def arm(name: str, terms: Any, **stage: Any) -> Arm:
        alone = {"teacher": None} if terms == [LABELS] else {}
        return Arm(name, terms, {"stage": stage, **alone})

    return [
        arm("KD", SOFT),
        arm("QAT int4, KD", SOFT, quantize=INT4),
        arm("QAT int4, labels", [LABELS], quantize=INT4),
        arm("QAT int4, KL alone, rate / 10", [{"type": "kl"}], quantize=INT4, learning_rate=1e-4),
        arm("QAT int8, KD", SOFT, quantize={}),
        arm("cut to 1/2, no training", SOFT, prune=HALF, **STILL),
        arm("cut to 1/2 by size, no training", SOFT, prune={**HALF, "importance": "magnitude"}, **STILL),
        arm("cut to 1/2, KD", SOFT, prune=HALF),
        arm("cut to 1/2 by size, KD", SOFT, prune={**HALF, "importance": "magnitude"}),
        arm("cut to 1/2, labels", [LABELS], prune=HALF),
        arm("cut to 1/4, no training", SOFT, prune=THREE_QUARTERS, **STILL),
        arm("cut to 1/4, KD", SOFT, prune=THREE_QUARTERS),
    ]


PLANS = {"int8": Quantize(), "int4": Quantize(**INT4)}


def rounded_after(base: Mapping[str, Any], given: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Students that did not know in training that they would be rounded."""
    scores: dict[str, list[dict[str, float]]] = {}
    for seed, bits in itertools.product(range(given.seeds), PLANS):
        for start in ("no training", "KD"):
            recipe, folder = folder_of(base, given, start, seed)
            right, _ = answers(recipe, folder, PLANS[bits])
            entry = {"accuracy": float(right.mean()), "seed": seed}
            scores.setdefault(f"{start}, then {bits}", []).append(entry)
    return scores


def nearness(base: Mapping[str, Any], given: argparse.Namespace, whole: Path) -> dict[str, tuple[float, float]]:
    """By arm, over the seeds: share of test rows with the whole classifier's answer, and the mean KL from it."""
    wanted = [(arm.name, arm.name, None) for arm in arms()]
    wanted += [(f"{start}, then {bits}", start, PLANS[bits]) for start in ("no training", "KD") for bits in PLANS]
    recipe, _ = folder_of(base, given, "KD", 0)
    _, said = answers(recipe, whole)
    near = {}
    for name, start, plan in wanted:
        found = []
        for seed in range(given.seeds):
            _, now = answers(*folder_of(base, given, start, seed), plan)
            kl = (said * (np.log(said + 1e-12) - np.log(now + 1e-12))).sum(1).mean()
            found.append(((said.argmax(1) == now.argmax(1)).mean(), kl))
        near[name] = (float(np.mean([a for a, _ in found])), float(np.mean([kl for _, kl in found])))
    return near


def folder_of(base: Mapping[str, Any], given: argparse.Namespace, name: str, seed: int) -> tuple[Recipe, Path]:
    """The recipe of an arm, and its student; `no training` is the whole classifier."""
    arm = next(each for each in arms() if each.name == ("KD" if name == "no training" else name))
    recipe = load_recipe(recipe_of(base, arm, seed, given.output))
    whole = Path(base["student"]["model"])
    return recipe, whole if name == "no training" else Path(recipe.output) / "train/student"


def answers(recipe: Recipe, student: Path, plan: Quantize | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each test row is right, and the probabilities of its classes, after rounding the weights if asked."""
    job = RunJob(recipe)
    model, codec = job.stored(student, Model(model="student"))
    if plan is not None:
        prepare(model, plan)
        settle(model)
    found = classify(model, codec, job.encode(job.splits.test, codec).features, 64, None)
    return np.array(found["correct"]), np.array(found["probabilities"])


if __name__ == "__main__":
    main()
