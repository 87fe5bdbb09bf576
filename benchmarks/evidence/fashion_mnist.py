"""What does each kind of distillation add for a convolutional student of a sixteenth of its teacher? Fashion-MNIST.

    python benchmarks/evidence/fashion_mnist.py                    # about an hour of one core
    python benchmarks/evidence/fashion_mnist.py --seeds 1 --epochs 2

12,000 training pictures (1,200 a class), of which a tenth chooses checkpoints; 10,000 test pictures, scored once. The
teacher is a residual network, trained with crops and flips; the student has a quarter of its widths, a sixteenth of its
parameters. Every arm has the same first weights, optimizer, steps and order of samples. Teacher and student see the
same crop, flip or blend of a picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from _arms import DATA, Arm, run_arms, table, write

import limbeck

DATA_SECTION = {
    "train": str(DATA / "fashion_mnist_mini/train.npz"),
    "test": str(DATA / "fashion_mnist_mini/test.npz"),
    "validation": 0.1,
    "image": "x",
    "label": "y",
}
LABELS = {"type": "cross_entropy", "weight": 0.1}
SOFT = {"type": "kl", "temperature": 4, "weight": 0.9}
MAPS = {"type": "attention_transfer", "match": {"encoder.stages.{0..3}": "encoder.stages.{0..3}"}, "weight": 10.0}
CONTRAST = {"type": "crd", "match": {"resnet.pooler": "resnet.pooler"}, "weight": 0.2}
MIXUP = {"stage": {"augment": [{"type": "mixup", "alpha": 0.4}]}}
MOVED = [{"type": "crop", "padding": 2}, {"type": "flip"}]
CROPS = {"stage": {"augment": MOVED}}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=float, default=20)
    options.add_argument("--teacher-epochs", type=float, default=20)
    options.add_argument("--learning-rate", type=float, default=3e-3)
    options.add_argument("--output", type=Path, default=Path("runs/evidence/fashion-mnist"))
    given = options.parse_args()
    torch.set_num_threads(1)
    trained = train_teacher(given.output / "teacher", given.teacher_epochs)
    accuracy = trained.score("student", "accuracy")
    found = run_arms(base(given, trained.student), arms(), range(given.seeds), given.output)
    print(text := table(found, accuracy, ["labels", "KD"]))
    facts = {"teacher_accuracy": accuracy, "arms": found, "table": text.splitlines()}
    print(write("evidence-fashion-mnist", {**facts, "epochs": given.epochs, "learning_rate": given.learning_rate}))


def resnet(width: int) -> dict[str, Any]:
    """Four stages of two basic blocks."""
    sizes = [width, 2 * width, 4 * width, 8 * width]
    shape = {"embedding_size": width, "hidden_sizes": sizes, "depths": [2, 2, 2, 2], "layer_type": "basic"}
    return {"model_type": "resnet", "num_channels": 1, **shape}


def base(given: argparse.Namespace, teacher: Path) -> dict[str, Any]:
    """The recipe that all arms have in common."""
    return {
        "task": "image-classification",
        "teacher": {"model": str(teacher)},
        "student": {"config": resnet(8)},
        "data": DATA_SECTION,
        "training": {"learning_rate": given.learning_rate, "global_batch_size": 64, "save_steps": 10_000},
        "stages": [{"name": "distil", "epochs": given.epochs}],
        "evaluate": {"latency_runs": 20},
    }


def arms() -> list[Arm]:
    """All ways that are compared."""
    dkd = {"type": "dkd", "temperature": 4, "weight": {"type": "linear", "start": 0.2, "end": 1.0}}
    return [
        Arm("labels", [{"type": "cross_entropy"}], {"teacher": None}),
        Arm("labels, mixup", [{"type": "cross_entropy"}], {"teacher": None, **MIXUP}),
        Arm("labels, crops and flips", [{"type": "cross_entropy"}], {"teacher": None, **CROPS}),
        Arm("KD", [LABELS, SOFT], {}),
        Arm("DKD", [{"type": "cross_entropy"}, dkd], {}),
        Arm("KD + attention transfer", [LABELS, SOFT, MAPS], {}),
        Arm("KD + CRD", [LABELS, SOFT, CONTRAST], {}),
        Arm("KD, mixup", [LABELS, SOFT], MIXUP),
        Arm("KD, crops and flips", [LABELS, SOFT], CROPS),
    ]


def train_teacher(output: Path, epochs: float) -> limbeck.Result:
    """The teacher, trained on labels with crops and flips."""
    stage = {"name": "train", "epochs": epochs, "terms": [{"type": "cross_entropy"}], "augment": MOVED}
    return limbeck.run(
        {
            "task": "image-classification",
            "output": str(output),
            "student": {"config": resnet(32)},
            "data": DATA_SECTION,
            "training": {"learning_rate": 3e-3, "global_batch_size": 64, "save_steps": 500},
            "stages": [stage],
            "evaluate": {"latency_runs": 20},
        },
        until="evaluate",
    )


if __name__ == "__main__":
    main()
