"""What a training shows to those who watch it: its plan, and what the student says to a few prompts.

Nothing is learned from the answers and nothing random is drawn for them: the weights are the same with and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from limbeck.core.artifacts import write_json
from limbeck.tasks._decode import end_tokens
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from limbeck.core.types import Sample
    from limbeck.tasks import Feature
    from limbeck.training.job import Job, StageJob

MOST = 128
"""Longest answer, in tokens; one may also be no more than twice as long as the row's own."""


def write_plan(job: Job, folder: Path, accelerator: Accelerator) -> int:
    """Write `plan.json`: what is trained, what is counted, and the stages with their steps.

    Returns:
        The steps of all stages together.
    """
    stages = [{"name": each.stage.name, "steps": each.steps, "eval_steps": each.eval_steps} for each in job.stages]
    if accelerator.is_main_process:
        write_json(folder / "plan.json", {"title": job.title, "unit": job.unit, "stages": stages})
    return sum(each.steps for each in job.stages)


class Answers:
    """What the student says to the first validation prompts of a stage, beside what the teacher says.

    Args:
        job: its student answers after every validation, its `writer` once; a classifier has no answers.
        accelerator: its precision is the student's; the teacher has its own.
    """

    def __init__(self, job: Job, accelerator: Accelerator):
        self.job, self.accelerator = job, accelerator
        self._taught: dict[tuple[str, str], str] = {}  # stages with rows of their own may repeat ids

    def of(self, stage: StageJob) -> list[dict[str, Any]]:
        """Rows {id, prompt, reference, teacher, student, finished}; none where the student writes no text.

        `reference` is the row's own answer; `teacher` is None where no teacher is here that could be asked.

        Args:
            stage: whose validation prompts are answered; the student is in evaluation mode.
        """
        codec, student = self.job.codec, self.job.student
        if not isinstance(codec, CausalCodec) or not student.can_generate():
            return []
        samples = _first(stage.validation.features, codec, self.job.training.generations)
        if not samples:
            return []
        with self.accelerator.autocast():
            said = answers(student, codec, samples)
        name = stage.stage.name
        self._ask_teacher(name, samples)
        return [
            {
                "id": sample.id,
                "prompt": "\n".join(turn["content"] for turn in sample.inputs["messages"]),
                "reference": sample.target,
                "teacher": self._taught.get((name, sample.id)),
                "student": text,
                "finished": finished,
            }
            for sample, (text, finished) in zip(samples, said, strict=True)
        ]

    def _ask_teacher(self, stage: str, samples: Sequence[Sample]) -> None:
        new = [sample for sample in samples if (stage, sample.id) not in self._taught]
        if self.job.writer is None or not new:
            return
        model, codec = self.job.writer
        assert isinstance(codec, CausalCodec)
        with torch.autocast(model.device.type, enabled=False):
            said = answers(model, codec, new)
        self._taught |= {(stage, sample.id): text for sample, (text, _) in zip(new, said, strict=True)}


def _first(features: Sequence[Feature], codec: CausalCodec, count: int) -> list[Sample]:
    """The first samples that have a prompt: a model cannot begin a text out of nothing."""
    found: list[Sample] = []
    for feature in features:
        if len(found) == count:
            break
        if feature.source is not None and codec.prompt_ids(feature.source):
            found.append(feature.source)
    return found


@torch.no_grad()
def answers(model: PreTrainedModel, codec: CausalCodec, samples: Sequence[Sample]) -> list[tuple[str, bool]]:
    """Greedy answers of a model, each with whether it came to its end.

    Args:
        model: in evaluation mode.
        codec: the model's own.
        samples: rows with a prompt.
    """
    prompts = [codec.prompt_ids(sample) for sample in samples]
    own = [codec.processor(s.target, add_special_tokens=False, verbose=False)["input_ids"] for s in samples]
    tokens = min(MOST, 8 + 2 * max(map(len, own)))
    if isinstance(positions := getattr(model.config, "max_position_embeddings", None), int):
        tokens = min(tokens, positions - max(map(len, prompts)))
    if tokens < 1:
        return [("", False) for _ in samples]
    ends, found = end_tokens(codec.processor, model), []
    for ids in codec.generate(model, prompts, ends, tokens).tolist():
        stop = next((at for at, token in enumerate(ids) if token in ends), None)
        found.append((codec.processor.decode(ids[:stop], skip_special_tokens=True), stop is not None))
    return found
