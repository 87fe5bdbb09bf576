"""Objectives and taps of limbeck inside a Hugging Face Trainer: one method is overridden.

    python examples/hf_trainer.py

A vision transformer of two layers learns handwritten digits from one of four layers and twice its width. It has
200 labelled pictures. It learns from the labels, from the teacher's answers (KL), and from how queries, keys and values
relate to each other in the teacher's last layer (MiniLMv2), which needs no projector between the widths. It prints the
accuracies of the teacher, of the student with labels alone, and of the student with labels and teacher.

Shapes: B pictures in a batch, V classes.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from limbeck.core.types import Batch, Dense, Needs
from limbeck.models.taps import Taps
from limbeck.objectives import Context, DistributionTerm, FeatureTerm, distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.distribution.kl import KL
from limbeck.objectives.features.relations import Relations
from limbeck.teachers.local import LocalTeacher
from limbeck.training.matching import find_pairs

FEW = 200  # labelled pictures that the student sees


def pictures(pixels: Any, labels: Any) -> list[dict[str, Tensor]]:
    """Samples as a Trainer takes them."""
    shaped = torch.tensor(pixels / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return [{"pixel_values": p, "labels": y} for p, y in zip(shaped, torch.tensor(labels), strict=True)]


class DistillingTrainer(Trainer):
    """A Trainer whose loss is a weighted sum of limbeck's terms.

    Args:
        teacher: the model that is learned from.
        terms: divergences between answers, with their weights.
        layers: a term on layers, with its weight. It has no parameters; others would have to be given to the optimizer.
        kw: what a Trainer takes.
    """

    def __init__(
        self, teacher: Any, terms: list[tuple[DistributionTerm, float]], layers: tuple[FeatureTerm, float], **kw: Any
    ):
        super().__init__(**kw)
        self.teacher = LocalTeacher(teacher, self.args.device)
        self.terms, self.weights = zip(*terms, strict=True)
        term, self.layers_weight = layers
        few = as_batch(self.data_collator([self.train_dataset[i] for i in range(2)])).to(self.args.device)
        # The dry run: all paths are found, shapes compared, and errors told before the first step.
        self.pairs = find_pairs(self.model, self.teacher.model, [term], few)[term.label]
        self.layers = term.build(self.pairs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the batch; Trainer divides by its accumulation steps itself."""
        batch = as_batch(inputs)
        mine = [tap for pair in self.pairs for tap in pair.student.taps]
        theirs = [tap for pair in self.pairs if pair.teacher for tap in pair.teacher.taps]
        # The bare model is tapped and the wrapped one called, so that this works with several processes too.
        with Taps(self.accelerator.unwrap_model(model), mine) as taps:
            outputs = model(**batch.inputs)
        told = self.teacher.signal(batch, Needs(dist=True, features=frozenset(theirs)))
        total, _ = distribution_loss(Dense(outputs.logits), told.dist, batch.labels, self.terms, self.weights)
        features = taps.features()
        relations = self.layers(
            [[features[tap] for tap in pair.student.taps] for pair in self.pairs],
            [[told.features[tap] for tap in pair.teacher.taps] for pair in self.pairs if pair.teacher],
            Context(batch),
        )
        # Sums over pictures until here. With texts, a term on layers is a sum over positions, and divided by these.
        loss = (total + self.layers_weight * relations) / len(batch.labels)
        return (loss, outputs) if return_outputs else loss


def as_batch(inputs: dict[str, Any]) -> Batch:
    """What a collator gives, as limbeck's terms read it."""
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    return Batch(tuple(map(str, range(len(inputs["labels"])))), rest, inputs["labels"])


def vit(width: int, layers: int) -> PreTrainedModel:
    """A new classifier of 8 x 8 grey pictures."""
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, num_attention_heads=4, num_labels=10, initializer_range=0.1, **sizes
    )
    return ViTForImageClassification(config)


def accuracy(answers: Any) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float((answers.predictions.argmax(-1) == answers.label_ids).mean())}


def fit(trainer: Trainer) -> float:
    """Train, and take the accuracy."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return float(trainer.evaluate()["eval_accuracy"])


def main(steps: int = 300) -> dict[str, float]:
    """Train a teacher, and a student without and with it; print and return their accuracies."""
    parts = train_test_split(*load_digits(return_X_y=True), train_size=1200, random_state=0)
    train, test = pictures(parts[0], parts[2]), pictures(parts[1], parts[3])
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        plan = {"per_device_train_batch_size": 32, "per_device_eval_batch_size": 256, "max_steps": steps}
        quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        args = TrainingArguments(folder, learning_rate=3e-3, warmup_steps=0.1, use_cpu=True, **plan, **quiet)
        rest = {"args": args, "eval_dataset": test, "compute_metrics": accuracy}
        torch.manual_seed(0)
        teacher = Trainer(model=vit(64, 4), train_dataset=train, **rest)
        found["teacher"] = fit(teacher)
        torch.manual_seed(1)
        found["labels"] = fit(Trainer(model=vit(32, 2), train_dataset=train[:FEW], **rest))
        torch.manual_seed(1)  # the same start
        terms = [(CrossEntropy(), 0.1), (KL(temperature=2), 0.9)]
        layers = Relations(match={"layers.1": "layers.3"}, relation_heads=4), 1.0
        distilled = DistillingTrainer(teacher.model, terms, layers, model=vit(32, 2), train_dataset=train[:FEW], **rest)
        found["labels and teacher"] = fit(distilled)
    print("\n".join(f"{name:20} {score:.3f}" for name, score in found.items()))
    return found


if __name__ == "__main__":
    main()
