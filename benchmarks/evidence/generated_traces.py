"""What do a teacher's written answers add for a small decoder, step by step? Arithmetic in words.

    python benchmarks/evidence/generated_traces.py                    # about 40 minutes of one core
    python benchmarks/evidence/generated_traces.py --seeds 1 --steps 60 --teacher-steps 60 --prompts 300

A few labelled problems with worked solutions are there, and many problems of which the final number alone is known.
The teacher has learned from problems of its own, some with distracting sentences and slips of the finger. It answers
the many; its answers are taken as they come, or only if the final number is right, or with changed problems beside
them. Every arm has the same student, first weights, optimizer and number of steps; checkpoints are chosen by the same
validation rows. Scored by generation, on test problems as they are and changed in two ways; no calculation of the
test problems is in any training row, the teacher's included.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from _arms import Arm, recipe_of, table, write

import limbeck
from limbeck.core import artifacts
from limbeck.core.recipe import Model, Recipe, load_recipe
from limbeck.core.types import Sample
from limbeck.data.perturbation import Perturbation, perturb_all, question_of
from limbeck.data.perturbation.change_numbers import ChangeNumbers
from limbeck.data.perturbation.distractor import Distractor
from limbeck.data.perturbation.typos import Typos
from limbeck.data.word_problems import problems
from limbeck.evaluation.predict import answer
from limbeck.models.load import parameters
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.run import run_recipe
from limbeck.tasks.causal_lm import CausalCodec

PROBLEMS = {"min_steps": 2, "max_steps": 3, "maximum": 20}
TEACHERS_SEED = 7
"""Draws other problems for the teacher than for the student."""
SETS: dict[str, Perturbation | None] = {
    "clean": None,
    "changed numbers": ChangeNumbers(maximum=PROBLEMS["maximum"]),
    "distractor": Distractor(),
}
"""The test problems as they are, and changed."""
LABELS = [{"type": "cross_entropy"}]
SOFT = [{"type": "cross_entropy", "weight": 0.3}, {"type": "kl", "temperature": 2, "weight": 0.7}]
TOLD = ("prompts", "answers", "rows", "dropped")
"""What of a data stage's counts is in the result."""
EVALUATE = {"max_new_tokens": 48}
TRAINING = {"global_batch_size": 32, "weight_decay": 0.05, "adam_beta2": 0.98, "save_steps": 10_000}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--teacher-steps", type=int, default=600)
    options.add_argument("--labelled", type=int, default=1000, help="problems with worked solutions")
    options.add_argument("--prompts", type=int, default=2500, help="problems that the teacher answers")
    options.add_argument("--test-size", type=int, default=400)
    options.add_argument("--output", type=Path, default=Path("runs/evidence/generated-traces"))
    given = options.parse_args()
    torch.set_num_threads(1)
    teacher, scores = train_teacher(given)
    settings = {name: value for name, value in vars(given).items() if name != "output"}
    facts: dict[str, Any] = {"settings": settings, "problems": PROBLEMS}
    facts |= {"teacher": scores, "generated": {}, "arms": {arm.name: [] for arm in arms(given)}}
    for seed in range(given.seeds):
        for arm in arms(given):
            recipe = load_recipe(recipe_of(base(given, teacher), arm, seed, given.output))
            # Requests are the same in all arms and under all seeds: the teacher writes each answer once.
            result = run_recipe(recipe, until="train", ledger=given.output / "ledger.sqlite")
            found = {**score(recipe, result.student), "seed": seed}
            facts["arms"][arm.name].append(found)
            if recipe.generate:
                stages = artifacts.read_manifest(result.output / "generate")["stages"]
                told = {name: {key: each[key] for key in TOLD} for name, each in stages.items()}
                facts["generated"][arm.name] = told
            print(f"seed {seed}  {arm.name:45}", *(f"{name} {found[name]:.3f}" for name in SETS), flush=True)
            facts["tables"] = tables(facts["arms"], scores)
            path = write("evidence-generated-traces", facts)
    print("\n".join(line for lines in facts["tables"].values() for line in [*lines, ""]))
    print(path)


def decoder(width: int, layers: int) -> dict[str, Any]:
    """A decoder; at the usual initializer range of 0.02 one this narrow learns far more slowly."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": width // 4}
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers, **heads}
    further = {"max_position_embeddings": 256, "tie_word_embeddings": True, "initializer_range": 0.08}
    return {"model_type": "qwen3", **sizes, **further}


def base(given: argparse.Namespace, teacher: Path) -> dict[str, Any]:
    """The recipe that all arms have in common."""
    sizes = {"train_size": given.labelled, "validation_size": 300, "test_size": given.test_size}
    return {
        "task": {"type": "causal-lm", "max_length": 160},
        "teacher": {"model": str(teacher)},
        "student": {"config": decoder(64, 2)},
        "data": {"train": {"type": "arithmetic", **PROBLEMS, **sizes}},
        "training": {**TRAINING, "learning_rate": 4e-3},
        "stages": [{"name": "learn", "max_steps": given.steps, "eval_steps": max(1, given.steps // 7)}],
        "evaluate": EVALUATE,
    }


def arms(given: argparse.Namespace) -> list[Arm]:
    """All ways that are compared."""
    checked = {"samples": 2, "verify": {"type": "math_answer"}, "keep": {"most": 1}}
    basic = {"name": "basic", **asked(given.prompts)}
    numbers = {"type": "change_numbers", "maximum": PROBLEMS["maximum"]}
    changed = {"name": "perturbed", **asked(given.prompts // 2), "perturb": [numbers], "originals": False}
    hard = [{"type": "distractor"}, {"type": "typos", "severity": 2}]
    adversarial = {"name": "adversarial", **asked(given.prompts // 4), "perturb": hard, "originals": False}
    three = {"generate": [{**each, **checked} for each in (basic, changed, adversarial)]}
    mixture = {"mixture": {"basic": 2, "perturbed": 1, "adversarial": 1}}
    curriculum = {"curriculum": {"type": "competence", "difficulty": "steps", "initial": 0.2}}
    return [
        Arm("labels", LABELS, {}),
        Arm("KD on the labelled problems", SOFT, {}),
        Arm("written answers, unverified", LABELS, {"generate": basic}),
        Arm("written answers, verified", LABELS, {"generate": {**basic, **checked}}),
        Arm("verified, three stages, mixture, curriculum", LABELS, {**three, "stage": {**mixture, **curriculum}}),
        Arm("written answers, verified, with KL", SOFT, {"generate": {**basic, **checked}}),
    ]


def asked(count: int) -> dict[str, Any]:
    """Problems for the teacher; the first of them are the labelled ones."""
    return {
        "prompts": {"type": "arithmetic", **PROBLEMS, "train_size": count},
        "sampling": {"max_tokens": 48},
        "per_device_generation_batch_size": 256,
    }


def train_teacher(given: argparse.Namespace) -> tuple[Path, dict[str, float]]:
    """The teacher and its scores; its own rows are 12,000 problems and 3,000 changed ones."""
    folder = given.output / "teacher"
    sizes = {"train": 12_000, "validation": 300, "test": given.test_size}
    sources = {split: school(folder / "rows", split, size) for split, size in sizes.items()}
    recipe = load_recipe(
        {
            "task": {"type": "causal-lm", "max_length": 160},
            "output": str(folder),
            "student": {"config": decoder(128, 4), "tokenizer": {"train": "bpe", "vocab_size": 512}},
            "data": sources,
            "training": {**TRAINING, "learning_rate": 2.5e-3},
            "stages": [{"name": "learn", "max_steps": given.teacher_steps, "eval_steps": 200, "terms": LABELS}],
            "evaluate": EVALUATE,
        }
    )
    student = limbeck.run(recipe, until="train").student
    asking = {**base(given, student), "stages": [{"name": "learn", "terms": LABELS}], "output": str(folder)}
    scores = score(load_recipe(asking), student)  # on the students' test problems
    print("teacher", scores, flush=True)
    return student, scores


def school(folder: Path, split: str, size: int) -> str:
    """The teacher's rows of a split as a file: the training rows with changed ones beside them."""
    path = folder / f"{split}.jsonl"
    if not path.exists():
        rows = problems(split, size, seed=TEACHERS_SEED, **PROBLEMS)
        samples = [Sample(f"{split}/{i}", {"prompt": r["prompt"]}, r["answer"]) for i, r in enumerate(rows)]
        if split == "train":
            hard = [Distractor(), Typos(severity=2)]
            samples += [each.sample for each in perturb_all(samples[: size // 8], hard, seed=TEACHERS_SEED)[0]]
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"prompt": question_of(s), "answer": s.target}) for s in samples)
        path.write_text("\n".join(lines) + "\n")
    return str(path)


def score(recipe: Recipe, student: Path) -> dict[str, float]:
    """The share of right final answers on each of the test sets, and the parameters."""
    job = RunJob(recipe)
    model, codec = job.stored(student, Model(model="student"))
    found = {"parameters": float(parameters(model))}
    for name, change in SETS.items():
        rows = list(job.splits.test)
        if change is not None:
            rows = [each.sample for each in perturb_all(rows, [change], seed=0)[0]]
        answers = answer(model, cast(CausalCodec, codec), rows, batch_size=200, title=name, **EVALUATE)
        found |= {name: float(np.mean(answers["correct"])), f"rows, {name}": float(len(rows))}
    return found


def tables(found: Mapping[str, Sequence[Mapping[str, float]]], teacher: Mapping[str, float]) -> dict[str, list[str]]:
    """A table for each of the test sets."""
    made = {}
    for name in SETS:
        done = {arm: [{"accuracy": run[name]} for run in runs] for arm, runs in found.items() if runs}
        fewest = min(map(len, done.values()))
        done = {arm: runs[:fewest] for arm, runs in done.items()}  # differences are paired by seed
        against = [arm for arm in ("labels", "KD on the labelled problems") if arm in done]
        made[name] = [f"### {name}", "", *table(done, teacher[name], against).splitlines()]
    return made


if __name__ == "__main__":
    main()
