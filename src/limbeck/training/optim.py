"""AdamW and its learning rate, a function of the step alone."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence, Set

import torch
from torch import nn

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Optimization


def select_trained(student: nn.Module, freeze: Sequence[str], learnable: Set[str]) -> None:
    """Let a student learn, but for the parameters that a stage freezes.

    Args:
        student: the model that learns.
        freeze: names of parameters, with `*`.
        learnable: names of those that may learn at all.

    Raises:
        RecipeError: a name fits no parameter, or nothing is left to learn.
    """
    names = [name for name, _ in student.named_parameters()]
    for pattern in freeze:
        if not fnmatch.filter(names, pattern):
            tops = dict.fromkeys(".".join(name.split(".")[:3]) for name in names)
            raise RecipeError("freeze names no parameter of the student", got=pattern, allowed=", ".join(tops))
    for name, parameter in student.named_parameters():
        frozen = any(fnmatch.fnmatchcase(name, pattern) for pattern in freeze)
        parameter.requires_grad_(name in learnable and not frozen)
    if not any(p.requires_grad for p in student.parameters()):
        raise RecipeError("freeze leaves nothing of the student to learn", got=", ".join(freeze))


def make_optimizer(module: nn.Module, plan: Optimization) -> torch.optim.AdamW:
    """AdamW; only matrices decay, not biases, norms or scalars."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (plan.adam_beta1, plan.adam_beta2)
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=plan.learning_rate, betas=betas, fused=True)


def learning_rate(plan: Optimization, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0, of a stage of `steps`."""
    warmup = math.ceil(plan.warmup_ratio * steps)
    if step < warmup:
        return plan.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    shape = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}
    return plan.learning_rate * shape[plan.lr_scheduler_type]
