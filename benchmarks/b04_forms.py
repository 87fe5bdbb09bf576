"""The forms of B4: a step of limbeck and of TRL's two trainers, with equal students. See b04_step.py.

Shapes: B samples, T positions, P prompt, C answer.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FORMS = ("limbeck", "trl gkd", "trl distillation")
PAD = 0
Sample = tuple[list[int], list[int]]
"""A prompt and an answer."""


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
        optimizer: over it.
        loss: of a batch, with gradients left in the student.
        step: the same, then clip and step.
    """

    student: Any
    optimizer: Any
    loss: Callable[[list[Sample]], Any]
    step: Callable[[list[Sample]], Any]


class Bench:
    """Teacher, and the forms with equal students."""

    def __init__(self, options: argparse.Namespace, only: str | None = None):
        import torch

        from limbeck.core.recipe import Training
        from limbeck.training.engine import make_accelerator

        self.options = options
        self.accelerator = make_accelerator(Training(precision=options.precision), Path("logs"))
        self.teacher = model(options, 8, 512).eval().requires_grad_(False)
        if options.precision == "bf16":  # as it is stored; each form keeps it so
            self.teacher.to(torch.bfloat16)
        start = model(options, 4, 256)
        make = {"limbeck": self._limbeck, "trl gkd": self._gkd, "trl distillation": self._distillation}
        self.forms = {name: make[name](copy.deepcopy(start).train()) for name in FORMS if only in (None, name)}

    def _limbeck(self, student: Any) -> Form:
        from limbeck.core.parts import build
        from limbeck.core.types import Batch, Needs
        from limbeck.teachers.local import LocalTeacher
        from limbeck.training.distiller import Distiller
        from limbeck.training.step import Now, optimizer_step

        distiller = Distiller(student, [build("objective", {"type": "kl", "temperature": 1})])
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

        return Form(student, optimizer, loss, step)

    def _gkd(self, student: Any) -> Form:
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.gkd import GKDTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher, beta=0.0, generalized_jsd_loss=GKDTrainer.generalized_jsd_loss
        )

        def forward(rows: list[Sample]) -> Any:
            ids, mask, labels = padded([p + a for p, a in rows], [len(p) for p, _ in rows])
            given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            return GKDTrainer.compute_loss(trainer, student, given)

        return self._peer(student, forward)

    def _distillation(self, student: Any) -> Form:
        from trl import DistillationTrainer

        trainer: Any = SimpleNamespace(
            teacher_model=self.teacher,
            beta=0.0,
            temperature=1.0,
            _is_vlm=False,
            model_kwarg_keys=(),  # the bodies are called without `logits_to_keep`, which is for the head
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
            _forward_redirection=lambda wrapper, model, method, *args, **more: method(*args, **more),
        )
        trainer._get_last_hidden_state = partial(DistillationTrainer._get_last_hidden_state.__wrapped__, trainer)

        def forward(rows: list[Sample]) -> Any:
            prompt_BP, prompt_mask_BP, _ = padded([p for p, _ in rows], [0] * len(rows), left=True)
            answer_BC, answer_mask_BC, _ = padded([a for _, a in rows], [0] * len(rows))
            given = {"prompt_ids": prompt_BP, "prompt_mask": prompt_mask_BP}
            given |= {"completion_ids": answer_BC, "completion_mask": answer_mask_BC}
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

        return Form(student, optimizer, loss, step)

    def parity(self, rows: list[Sample]) -> dict[str, dict[str, float]]:
        """Relative differences of value and gradients from the first form's, before any step."""
        import torch

        values, gradients = {}, {}
        for name, form in self.forms.items():
            values[name] = float(form.loss(rows))
            gradients[name] = torch.cat([p.grad.flatten() for p in form.student.parameters()])
            form.optimizer.zero_grad()
        ours = gradients[FORMS[0]]
        return {
            name: {
                "value": abs(values[name] / values[FORMS[0]] - 1),
                "gradient": float((gradients[name] - ours).norm() / ours.norm()),
            }
            for name in FORMS[1:]
        }

    def size(self) -> dict[str, Any]:
        """Parameters but for the input embeddings, which are looked up and not multiplied."""
        told = {}
        for name, each in (("teacher", self.teacher), ("student", next(iter(self.forms.values())).student)):
            head = each.get_output_embeddings().weight.numel()
            told[name] = {"body": sum(p.numel() for p in each.parameters()) - 2 * head, "head": head}
        return told


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
