"""The forms of B4 and B7: a step of limbeck and of TRL's two trainers, and how alike they are.

Shapes: B samples, T positions.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _bench

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
PAD = 0
Sample = tuple[list[int], list[int]]
"""A prompt and an answer."""


def parser(document: str | None) -> argparse.ArgumentParser:
    """Options of B4 and B7."""
    made = _bench.parser(document)
    made.add_argument("--quick", action="store_true", help="tiny models and two rounds; writes nothing")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batch-size", type=int, default=8)
    made.add_argument("--vocab-size", type=int, default=32_000)
    made.add_argument("--threads", type=int, default=1)
    return made


def model(options: argparse.Namespace, layers: int, width: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if options.quick:
        layers, width = layers // 2, width // 8
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=options.vocab_size,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=3 * width,
        num_attention_heads=max(1, width // 64),
        num_key_value_heads=max(1, width // 64),
        head_dim=min(64, width),
        max_position_embeddings=options.longest,
        tie_word_embeddings=False,
        pad_token_id=PAD,
    )
    torch.manual_seed(layers)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # logits of the size of a trained model's, not nearly uniform ones
        made.get_output_embeddings().weight.mul_(2 / (0.02 * width**0.5))
    return made


@dataclass
class Form:
    """A way to make a step.

    Attributes:
        student: its own copy.
        loss: of a batch, with gradients left in the student.
        step: the same, then clip and step.
    """

    student: Any
    loss: Callable[[list[Sample]], Any]
    step: Callable[[list[Sample]], Any]


class Makers:
    """Makes the forms of one teacher.

    Args:
        teacher: in evaluation mode.
        divergence: limbeck's term at T = 1.
        beta: TRL's name for the same; 0 is KL(teacher || student), 1 the reverse.
        precision: of the students' arithmetic.
    """

    def __init__(self, teacher: Any, divergence: str, beta: float, precision: str = "fp32"):
        from limbeck.core.recipe import Training
        from limbeck.training.engine import make_accelerator

        self.teacher, self.divergence, self.beta = teacher, divergence, beta
        self.accelerator = make_accelerator(Training(precision=precision), Path("logs"))

    def limbeck(self, student: Any) -> Form:
        from limbeck.core.parts import build
        from limbeck.core.types import Batch, Needs
        from limbeck.teachers.local import LocalTeacher
        from limbeck.training.distiller import Distiller
        from limbeck.training.step import Now, optimizer_step

        distiller = Distiller(student, [build("objective", {"type": self.divergence, "temperature": 1})])
        wrapped = self.accelerator.prepare(distiller)
        optimizer, teacher = adamw(student), LocalTeacher(self.teacher)

        def batch(rows: list[Sample]) -> Batch:
            ids, mask, labels = padded([p + a for p, a in rows], [len(p) for p, _ in rows])
            after = labels.roll(-1, dims=1)  # labels[p] answers output p
            after[:, -1] = -100
            return Batch(tuple(map(str, range(len(rows)))), {"input_ids": ids, "attention_mask": mask}, after)

        def loss(rows: list[Sample]) -> Any:
            given = batch(rows)
            total, _ = wrapped(given, teacher.signal(given, Needs(dist=True)), [1.0])
            total = total / (given.labels != -100).sum()
            total.backward()
            return total.detach()

        def step(rows: list[Sample]) -> None:
            now = Now([1.0], 0.0, 1.0)
            optimizer_step(self.accelerator, wrapped, distiller, teacher, optimizer, [batch(rows)], now)

        return Form(student, loss, step)

    def gkd(self, student: Any, lay_out: Callable[[list[Sample]], tuple[Any, Any, Any]]) -> Form:
        """TRL's GKD; `lay_out` gives ids, mask and labels of a batch."""
        from trl.experimental.gkd import GKDTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher, beta=self.beta, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
        )

        def forward(rows: list[Sample]) -> Any:
            given = dict(zip(("input_ids", "attention_mask", "labels"), lay_out(rows), strict=True))
            return GKDTrainer.compute_loss(trainer, student, given)

        return self._peer(student, forward)

    def distillation(self, student: Any) -> Form:
        from trl import DistillationTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher,
            beta=self.beta,
            temperature=1.0,
            _is_vlm=False,
            model_kwarg_keys=(),  # the bodies are called without `logits_to_keep`, which is for the head
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
            _forward_redirection=lambda wrapper, model, method, *args, **more: method(*args, **more),
        )
        trainer._get_last_hidden_state = partial(DistillationTrainer._get_last_hidden_state.__wrapped__, trainer)

        def forward(rows: list[Sample]) -> Any:
            prompts, answers = apart(rows)
            given = {"prompt_ids": prompts[0], "prompt_mask": prompts[1]}
            given |= {"completion_ids": answers[0], "completion_mask": answers[1]}
            return DistillationTrainer._compute_loss(trainer, student, given, None)[0]

        return self._peer(student, forward)

    def _peer(self, student: Any, forward: Callable[[list[Sample]], Any]) -> Form:
        """What a Trainer does with a loss."""
        import torch

        optimizer = adamw(student)

        def loss(rows: list[Sample]) -> Any:
            with self.accelerator.autocast():
                value = forward(rows)
            value.backward()
            return value.detach()

        def step(rows: list[Sample]) -> None:
            value = loss(rows)
            norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            float(value), float(norm)  # a Trainer reads them for its log, as limbeck's step does

        return Form(student, loss, step)


def parity(forms: Mapping[str, Form], rows: list[Sample], bound: float) -> dict[str, dict[str, float]]:
    """Relative differences of value and gradients from the first form's, before any step.

    The script ends where one is above the bound.
    """
    import torch

    values, gradients = {}, {}
    for name, form in forms.items():
        values[name] = float(form.loss(rows))
        gradients[name] = torch.cat([p.grad.flatten() for p in form.student.parameters()])
        form.student.zero_grad()
    first, *others = forms
    value, gradient = values[first], gradients[first]
    found = {
        name: {
            "value": abs(values[name] / value - 1),
            "gradient": float((gradients[name] - gradient).norm() / gradient.norm()),
        }
        for name in others
    }
    if (worst := max(max(each.values()) for each in found.values())) > bound:
        sys.exit(f"the forms do not compute the same, relative difference {worst:.1e}: {found}")
    return found


def show_comparison(result: Mapping[str, Any], before: str = "") -> None:
    """The ratios to the peers, and how alike the forms are."""
    for name, told in result["ratios"].items():
        wall, processor = told["seconds"], told["processor_seconds"]["median"]
        print(f"{before}{name}: {wall['median']:.2f}x [{wall['low']:.2f}, {wall['high']:.2f}], CPU {processor:.2f}x")
    worst = {name: max(found.values()) for name, found in result["parity"].items()}
    print("largest relative difference before the first step: " + ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))


def adamw(student: Any) -> Any:
    import torch

    return torch.optim.AdamW(student.parameters(), lr=1e-4)


def padded(rows: Sequence[Sequence[int]], prompts: Sequence[int], *, left: bool = False) -> tuple[Any, Any, Any]:
    """Ids, mask and labels, all [B, T]; a row's first `prompts` tokens and the padding are no labels."""
    import torch

    width = max(map(len, rows))
    ids, mask, labels = (torch.full((len(rows), width), fill) for fill in (PAD, 0, -100))
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        at = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, at], mask[i, at] = torch.tensor(row), 1
        labels[i, at.start + prompt : at.stop] = torch.tensor(row[prompt:])
    return ids, mask, labels


def apart(rows: list[Sample]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Ids and mask of the prompts, padded on the left, and of the answers, padded on the right."""
    prompts = padded([p for p, _ in rows], [0] * len(rows), left=True)
    answers = padded([a for _, a in rows], [0] * len(rows))
    return prompts[:2], answers[:2]
