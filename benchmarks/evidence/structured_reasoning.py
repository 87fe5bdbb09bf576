"""Do marked steps, the mask of steps and heavier conclusions help a small decoder? Arithmetic in words, no teacher.

    python benchmarks/evidence/structured_reasoning.py                      # some 15 minutes of one idle core
    python benchmarks/evidence/structured_reasoning.py --steps 200 --seeds 1

Every form has the same problems, the same decoder (but for the rows of the marks), the same number of optimizer
steps and the same seeds. Marked answers are longer, so a step costs more; the seconds are in the table. Scored by
generation: the share of test problems whose final answer is right, mean and range over the seeds. In these problems
every step uses the one before, so that all are key steps; conclusions are what can weigh more.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import limbeck

STRUCTURED = {"type": "structured-reasoning", "max_length": 192, "max_conclusions": 6}
FORMS: dict[str, dict[str, Any]] = {
    "plain answers": {"type": "causal-lm", "max_length": 192},
    "marks, full mask": {**STRUCTURED, "mask": "full"},
    "marks, mask of steps": {**STRUCTURED, "mask": "steps"},
    "marks, mask of steps, conclusions x 2": {**STRUCTURED, "mask": "steps", "conclusion_weight": 2},
}
PROBLEMS = {"min_steps": 2, "max_steps": 4, "maximum": 12}
"""Long chains of small numbers: what is to be learned is the chain more than the tables."""
STUDENT = {
    "config": {
        "model_type": "qwen3",
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,
    },
    "tokenizer": {"train": "bpe", "vocab_size": 512},
}


def recipe(form: str, options: argparse.Namespace, seed: int, output: Path) -> dict[str, Any]:
    """One training and its evaluation."""
    sizes = {"train_size": options.train_size, "test_size": options.test_size}
    return {
        "task": FORMS[form],
        "output": str(output),
        "seed": seed,
        "student": STUDENT,
        "data": {"train": {"type": "arithmetic", **PROBLEMS, **sizes}},
        "training": {"global_batch_size": 32, "learning_rate": 4e-3, "weight_decay": 0.05, "adam_beta2": 0.98},
        "stages": [{"name": "learn", "max_steps": options.steps, "terms": [{"type": "cross_entropy"}]}],
        "evaluate": {"split": "test", "max_new_tokens": 112, "latency_runs": 2},
    }


def measure(form: str, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Accuracy of one run, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        scores = limbeck.run(recipe(form, options, seed, Path(folder) / "run")).scores
        seconds = time.perf_counter() - start
    accuracy = next(s["value"] for s in scores if s["model"] == "student" and s["name"] == "answer_accuracy")
    return {"accuracy": accuracy, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-size", type=int, default=4000)
    parser.add_argument("--test-size", type=int, default=400)
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for seed in range(options.seeds):  # seed by seed, so that a slow minute of the machine meets all forms
        for form in FORMS:
            found[form].append(measure(form, options, seed))
            print(form, seed, found[form][-1], flush=True)
    print("\n| answers | accuracy | range | seconds |\n|---|---|---|---|")
    for form, runs in found.items():
        scores = [100 * run["accuracy"] for run in runs]
        mean = sum(scores) / len(scores)
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        print(f"| {form} | {mean:.1f} | {min(scores):.1f} to {max(scores):.1f} | {seconds:.0f} |")
    if options.output is not None:
        settings = {k: v for k, v in vars(options).items() if k != "output"}
        machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": 1}
        options.output.write_text(json.dumps({"settings": settings, **machine, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
