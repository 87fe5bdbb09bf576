"""Does a student learn the same from a recorded teacher as from one that answers in every step? WikiText-2.

    python benchmarks/evidence/recorded_teachers.py                    # about 25 minutes of one idle core
    python benchmarks/evidence/recorded_teachers.py --labels           # as long again, less the teacher
    python benchmarks/evidence/recorded_teachers.py --quick

A decoder (5.2 M parameters, a trained word-piece vocabulary of 8,192) learns the training articles once and teaches
one of 1.4 M on some of them, two epochs. The students learn from KL alone, so that nothing but the recording tells
them apart, or with `--labels` from KL and labels, as is usual. The teacher answers in every step, or there are its
likeliest classes, or classes drawn from it, at several budgets. Each recording is made once, for all seeds. Every
arm of a seed has the same first weights, optimizer, steps and order of samples. Scored by cross-entropy per token on
articles that none of them has seen.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _arms import DATA, ROOT, Arm, difference, recipe_of, write

import limbeck
from limbeck.cache.store import Cache
from limbeck.core import artifacts
from limbeck.core.recipe import Model, Recipe, load_recipe
from limbeck.evaluation.predict import column, likelihood
from limbeck.models.load import parameters
from limbeck.pipeline._job import RunJob

FILES = [DATA / "wikitext2_valtest" / f"{name}.txt.gz" for name in ("valid", "test")]
"""There is no `train` of WikiText-2 here; both files are cut by articles."""
TITLE = re.compile(r"^ = [^=].* = $", re.MULTILINE)
WORDS = 48
"""Words of a row: its first one is the prompt, the others are learned."""
VOCABULARY = 8192
TASK = {"type": "causal-lm", "max_length": 128, "separator": "", "answer_pattern": None}
TRAINING = {"adam_beta2": 0.98, "weight_decay": 0.05, "save_steps": 10_000}
LABELS, SOFT = {"type": "cross_entropy"}, {"type": "kl"}
BUDGETS = {"top_k": (24, 60, 120), "sampled": (24, 60)}
"""Bytes a label may take."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--steps", type=int, default=256, help="of a student, eight rows each")
    options.add_argument("--rows", type=int, default=1024, help="training rows of the students")
    options.add_argument("--teacher-steps", type=int, default=400, help="sixteen rows each")
    options.add_argument("--test-rows", type=int, default=600)
    options.add_argument("--learning-rate", type=float, default=4e-3)
    options.add_argument("--labels", action="store_true", help="cross-entropy beside KL, both of weight 1")
    options.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it works")
    options.add_argument("--output", type=Path, default=Path("runs/evidence/recorded-teachers"))
    options.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    given = options.parse_args()
    if given.quick:
        given.seeds, given.steps, given.rows, given.teacher_steps, given.test_rows = 2, 6, 48, 8, 40
    if absent := [str(path) for path in FILES if not path.exists()]:
        raise SystemExit(f"skipped: {', '.join(absent)} not found; LIMBECK_DATA names the folder of the data sets")
    torch.set_num_threads(1)
    data = rows_of(given.output / "rows", given.test_rows)
    teacher = train_teacher(given, data)
    common, compared = base(given, data, teacher), arms(given.labels)
    settings = {name: value for name, value in vars(given).items() if name not in ("output", "results")}
    facts: dict[str, Any] = {"settings": settings, "words": WORDS, "vocabulary": VOCABULARY}
    facts["teacher"] = score(load_recipe(recipe_of(common, compared[1], 0, given.output)), teacher)
    recorded = {arm.name: record(common, arm, given.output) for arm in compared if "cache" in arm.changes}
    facts["recordings"] = {name: figures(path) for name, path in recorded.items()}
    facts["arms"] = {arm.name: [] for arm in compared}
    for seed in range(given.seeds):
        for arm in compared:
            recipe = load_recipe(recipe_of(common, arm, seed, given.output))
            if arm.name in recorded:
                lend(recorded[arm.name], recipe.output)
            student = limbeck.run(recipe, until="train").student
            facts["arms"][arm.name].append({**score(recipe, student), "seed": seed})
            print(f"seed {seed}  {arm.name:32} loss {facts['arms'][arm.name][-1]['loss']:.4f}", flush=True)
        facts["table"] = table(facts).splitlines()
        path = write(f"evidence-recorded-teachers{'-and-labels' if given.labels else ''}", facts, given.results)
    print("\n".join(facts["table"]))
    print(path)


def rows_of(folder: Path, test_rows: int) -> dict[str, str]:
    """The articles as rows in files, by split: of ten articles one is for the test and one for validation."""
    text = "\n".join(gzip.decompress(path.read_bytes()).decode() for path in FILES)
    starts = [match.start() for match in TITLE.finditer(text)]
    rows: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True)):
        words = text[start:end].split()
        split = {4: "validation", 9: "test"}.get(i % 10, "train")
        whole = range(0, len(words) - WORDS + 1, WORDS)
        rows[split] += [" ".join(words[at : at + WORDS]) for at in whole]
    spread = np.random.default_rng(0)
    for split, most in (("validation", 100), ("test", test_rows)):
        rows[split] = [rows[split][i] for i in sorted(spread.permutation(len(rows[split]))[:most])]
    folder.mkdir(parents=True, exist_ok=True)
    for split, texts in rows.items():
        parts = (row.partition(" ") for row in texts)
        lines = (json.dumps({"prompt": first, "answer": f" {rest}"}) for first, _, rest in parts)
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return {split: str(folder / f"{split}.jsonl") for split in rows}


def decoder(width: int, layers: int) -> dict[str, Any]:
    """A decoder; at the usual initializer range of 0.02 one this narrow learns far more slowly."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": width // 4}
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers, **heads}
    further = {"max_position_embeddings": 128, "tie_word_embeddings": True, "initializer_range": 0.05}
    return {"model_type": "qwen3", **sizes, **further}


def train_teacher(given: argparse.Namespace, data: Mapping[str, str]) -> Path:
    """The teacher, trained on all training rows; its vocabulary is made from them."""
    stage = {"name": "learn", "max_steps": given.teacher_steps, "eval_steps": 100, "terms": [LABELS]}
    recipe = {
        "task": TASK,
        "output": str(given.output / "teacher"),
        "student": {"config": decoder(256, 4), "tokenizer": {"train": "bpe", "vocab_size": VOCABULARY}},
        "data": dict(data),
        "training": {**TRAINING, "global_batch_size": 16, "learning_rate": 2e-3},
        "stages": [stage],
    }
    return limbeck.run(recipe, until="train").student


def base(given: argparse.Namespace, data: Mapping[str, str], teacher: Path) -> dict[str, Any]:
    """The recipe that all arms have in common; the last step's weights count, so that nothing is chosen."""
    return {
        "task": TASK,
        "teacher": {"model": str(teacher)},
        "student": {"config": decoder(128, 2), "tokenizer": str(teacher)},
        "data": {**data, "max_samples": given.rows},
        "training": {**TRAINING, "global_batch_size": 8, "learning_rate": given.learning_rate},
        "stages": [{"name": "learn", "max_steps": given.steps, "eval_steps": given.steps}],
    }


def arms(labels: bool) -> list[Arm]:
    """All teachers that are compared; the first two are what the others stand beside."""
    name, terms = ("KL + labels", [SOFT, LABELS]) if labels else ("KL", [SOFT])
    recorded = [
        Arm(f"{name}, {kind}, {budget} bytes", terms, {"cache": {"type": kind, "bytes_per_token": budget}})
        for kind, budgets in BUDGETS.items()
        for budget in budgets
    ]
    return [Arm("cross-entropy", [LABELS], {"teacher": None}), Arm(f"{name}, dense", terms, {}), *recorded]


def record(common: Mapping[str, Any], arm: Arm, output: Path) -> Path:
    """The folder of a run as far as its recording; seeds do not enter it."""
    recipe = load_recipe(recipe_of(common, arm, 0, output / "recordings"))
    return limbeck.run(recipe, until="cache").output


def lend(recorded: Path, output: Path) -> None:
    """Put a recording and the teacher's artifact into a run's folder, where its steps find them up to date."""
    for step in ("prepare", "cache"):
        shutil.rmtree(output / step, ignore_errors=True)
        shutil.copytree(recorded / step, output / step, copy_function=os.link)


def figures(recorded: Path) -> dict[str, float]:
    """What a recording takes a label, its index included, and how near it comes to the teacher."""
    measured = artifacts.read_manifest(recorded / "cache")["measured"]
    return {"bytes_per_token": Cache(recorded / "cache").figures()["bytes_per_token"], **measured}


def score(recipe: Recipe, student: Path) -> dict[str, float]:
    """Cross-entropy per token on the test rows, their number, and the parameters."""
    job = RunJob(recipe)
    model, codec = job.stored(student, Model(model="student"))
    found = likelihood(model, codec, job.encode(job.splits.test, codec).features, 16)
    tokens = column(found, "tokens").sum()
    return {
        "loss": float(column(found, "nll").sum() / tokens),
        "tokens": float(tokens),
        "parameters": float(parameters(model)),
    }


def table(facts: Mapping[str, Any]) -> str:
    """Markdown: bytes, loss and differences in nats per token, with 95 % intervals over the seeds."""
    found: Mapping[str, Sequence[Mapping[str, float]]] = facts["arms"]
    losses = {name: [row["loss"] for row in rows] for name, rows in found.items()}
    cross_entropy, dense, *_ = losses
    against = [dense, cross_entropy]
    head = ["student learns from", "bytes a token", "total variation", "test loss (min to max)"]
    head += [f"against {name}" for name in against]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, values in losses.items():
        told = facts["recordings"].get(name)
        shown = ["", ""] if told is None else [f"{told['bytes_per_token']:.1f}", f"{told['total_variation']:.3f}"]
        cells = [name, *shown]
        cells.append(f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
        for other in against:
            mean, low, high = difference(values, losses[other])
            cells.append("" if other == name else f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
