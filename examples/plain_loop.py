"""Objectives and taps of limbeck in a loop of your own: any PyTorch modules, no recipe, no trainer.

    python examples/plain_loop.py

A small convolutional network learns handwritten digits from 100 labelled pictures in three ways: from the labels
alone, with the teacher's answers (KL), and with the teacher's maps as well (hidden states, through trained 1x1
convolutions that stay behind). Printed with torch 2.13.0 on a CPU, means of three seeds:

    teacher              0.985
    labels               0.885
    + answers            0.932
    + answers and maps   0.938
    between the maps: conv 1x1 4 -> 32, conv 1x1 8 -> 64

Every term gives a sum over its units (here pictures), and the loop divides once. The term's own parameters are trained
with the student. Hooks are there only inside of `with Taps(...)`.

Shapes: B pictures in a batch, C channels, V classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from limbeck.alignment.layers import match_layers
from limbeck.alignment.projectors import describe
from limbeck.core.types import Batch, Dense
from limbeck.models.taps import Taps
from limbeck.objectives import Context, DistributionTerm, FeatureTerm, Layer, Pair, distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.distribution.kl import KL
from limbeck.objectives.features.hidden import Hidden

FEW, BATCH = 100, 32  # labelled pictures that the student sees; pictures in a step
HARD, SOFT, MAPS = CrossEntropy(), KL(temperature=4), Hidden(match={"stages.{0,1}": "stages.{0,1}"})

Rows = tuple[Tensor, Tensor]  # pictures [B, 1, 8, 8] and labels [B]


def digits() -> tuple[Rows, Rows]:
    """1,200 pictures to learn from, 597 to test on."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(pixels / 16, labels, train_size=1200, stratify=labels, random_state=0)
    train, test = (torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) for part in parts[:2])
    return (train, torch.tensor(parts[2])), (test, torch.tensor(parts[3]))


class Network(nn.Module):
    """Two convolutional stages of `width` and twice as many channels, and a head."""

    def __init__(self, width: int):
        super().__init__()
        sizes = [(1, width, 1), (width, 2 * width, 2)]
        stages = [nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o), nn.ReLU()) for i, o, s in sizes]
        self.stages, self.head = nn.Sequential(*stages), nn.Linear(2 * width * 16, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, V] of pictures [B, 1, 8, 8]."""
        return self.head(self.stages(pixels).flatten(1))


@torch.no_grad()
def pairs_of(term: FeatureTerm, student: nn.Module, teacher: nn.Module, pixels: Tensor) -> list[Pair]:
    """The layers that a term's `match` names in both models, with the shapes that a pass shows."""

    def layer(model: nn.Module, path: str) -> Layer:
        with Taps(model, [path]) as taps:
            model(pixels)
        return Layer(path, (path,), (taps.features()[path].shape,), None)

    found = match_layers(student, teacher, term.pairs())
    return [Pair(layer(student, mine), layer(teacher, theirs)) for mine, theirs in found if theirs is not None]


def fit(
    student: nn.Module,
    rows: Rows,
    terms: Sequence[DistributionTerm],
    weights: Sequence[float],
    *,
    teacher: nn.Module | None = None,
    maps: FeatureTerm | None = None,
    steps: int = 300,
) -> nn.Module:
    """Train by a weighted sum of terms on answers and, with `maps`, of a term on layers."""
    pairs = [] if maps is None or teacher is None else pairs_of(maps, student.eval(), teacher, rows[0][:2])
    between = maps.build(pairs) if maps is not None else nn.Module()  # holds the projectors
    optimizer = torch.optim.AdamW(chain(student.parameters(), between.parameters()), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    student.train()
    for _ in range(steps):
        drawn = torch.randint(len(rows[0]), (BATCH,))
        pixels, labels = rows[0][drawn], rows[1][drawn]
        with Taps(student, [pair.student.path for pair in pairs]) as mine:
            said = student(pixels)
        told = None
        if teacher is not None:
            with torch.no_grad(), Taps(teacher, [pair.teacher.path for pair in pairs if pair.teacher]) as theirs:
                told = Dense(teacher(pixels))
        total, _ = distribution_loss(Dense(said), told, labels, terms, weights)
        if pairs:
            batch = Batch(tuple(map(str, drawn.tolist())), {"pixels": pixels}, labels)
            taken = [[[value] for value in taps.features().values()] for taps in (mine, theirs)]
            total = total + between(taken[0], taken[1], Context(batch))
        optimizer.zero_grad()
        (total / BATCH).backward()  # sums until here; divided once
        optimizer.step()
        schedule.step()
    return student.eval()


@torch.no_grad()
def accuracy(model: nn.Module, rows: Rows) -> float:
    """Share of right answers."""
    return (model(rows[0]).argmax(-1) == rows[1]).float().mean().item()


def main(seeds: int = 3, steps: int = 300) -> dict[str, float]:
    """Train teacher and students, print and return their mean accuracies."""
    torch.set_num_threads(1)  # so that figures repeat
    train, test = digits()
    scores: dict[str, list[float]] = {"teacher": [], "labels": [], "+ answers": [], "+ answers and maps": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        teacher = fit(Network(32), train, [HARD], [1.0], steps=steps)
        few = train[0][:FEW], train[1][:FEW]
        both = [HARD, SOFT], [0.1, 0.9]
        made = [
            teacher,
            fit(Network(4), few, [HARD], [1.0], steps=steps),
            fit(Network(4), few, *both, teacher=teacher, steps=steps),
            fit(student := Network(4), few, *both, teacher=teacher, maps=MAPS, steps=steps),
        ]
        for name, model in zip(scores, made, strict=True):
            scores[name].append(accuracy(model, test))
    means = {name: sum(each) / seeds for name, each in scores.items()}
    print("\n".join(f"{name:20} {mean:.3f}" for name, mean in means.items()))
    built = MAPS.build(pairs_of(MAPS, student, teacher, test[0][:2]))
    print("between the maps:", ", ".join(describe(each) for each in built.projectors))
    return means


if __name__ == "__main__":
    main()
