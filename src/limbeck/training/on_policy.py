"""On-policy distillation: in its own steps a stage trains on answers that the student has just written.

    in a share lambda of the steps:  answers y ~ student(. | prompt), without gradient;  in the others: the data's

and in both the teacher's word on every token of the answer (GKD). So the student learns from the texts that it will
read when it is used, its own. Nothing is learned through the drawing itself.

A step is the student's own or not, as a whole: so a term that reads labels has its weight in the data's steps, and
none in the others, where the label would be the student's own guess. Which steps, which tokens: all is a function of
the seed, the step and the sample. So a killed run goes on to the same texts, and other processes or micro-batches
change them no more than rounding does.

Reference:
    Agarwal et al., On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes, 2023,
    arXiv:2306.13649; Gu et al., MiniLLM: Knowledge Distillation of Large Language Models, 2023, arXiv:2306.08543
    (reverse KL on the student's own answers).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import OnPolicy, Stage
from limbeck.core.types import Batch
from limbeck.data.augmentation import DrawKey
from limbeck.models.load import check_length
from limbeck.objectives import Objective
from limbeck.tasks import Codec, Feature
from limbeck.tasks._decode import Drawing, end_tokens, sample
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.training.vllm_engine import VllmEngine, refuse_vllm

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from limbeck.training.checkpoint import Progress

Ids = list[int]


@dataclass(frozen=True)
class Written:
    """What the student wrote for a step, over all processes.

    Attributes:
        answers: how many.
        tokens: of all together, end tokens included.
        finished: answers that came to their end token.
        seconds: what the writing took, where it was done in this step; else 0.
        written: tokens that were written in these seconds; with `refresh`, for later steps too.
    """

    answers: int
    tokens: int
    finished: int
    seconds: float
    written: int

    def figures(self) -> dict[str, float]:
        """For the log: tokens, mean length, share that finished, tokens per second."""
        told = {"tokens": self.tokens, "mean_length": self.tokens / self.answers}
        told |= {"finished": self.finished / self.answers}
        return told | ({"tokens_per_second": round(self.written / self.seconds, 1)} if self.seconds else {})


def is_own(plan: OnPolicy, seed: int, stage: int, step: int) -> bool:
    """Whether a step of a stage has the student's own answers.

    Own steps lie evenly: of any n steps, share * n are, to within one. The seed decides where the first is.
    """
    shift = float(np.random.default_rng([seed, stage, 5]).random())  # 4 is the stream of mixtures
    # The last bit of a product must not decide: 0.1 * 30 is a little more than 3.
    before, after = (math.floor(round(plan.share * at + shift, 9)) for at in (step, step + 1))
    return after > before


def silenced(terms: Sequence[Objective], weights: Sequence[float]) -> list[float]:
    """The weights of a step with the student's own answers: none for terms that read labels."""
    return [0.0 if term.reads_labels else weight for term, weight in zip(terms, weights, strict=True)]


class Engine(Protocol):
    """What runs the student while it writes."""

    def write(self, prompts: Sequence[Ids], chances: np.ndarray) -> list[Ids]:
        """Answers to prompts, each up to and including its end token.

        Args:
            prompts: token ids.
            chances: numbers that decide the draws, [B, T]; T is the most new tokens.
        """
        ...


class TransformersEngine:
    """Writes in this process, with the weights that are being trained.

    Args:
        student: bare.
        plan: how tokens are drawn.
        pad: fills up prompts.
        ends: tokens that end an answer.
        forbidden: tokens that are never drawn, [V] of bool; None: all may be.
        accelerator: for its precision.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        plan: OnPolicy,
        pad: int,
        ends: set[int],
        forbidden: torch.Tensor | None,
        accelerator: Accelerator,
    ):
        self.student, self.plan, self.accelerator, self.pad, self.ends = student, plan, accelerator, pad, ends
        self.drawing = Drawing(plan.temperature, plan.top_p, forbidden)

    def write(self, prompts: Sequence[Ids], chances: np.ndarray) -> list[Ids]:
        """Answers to prompts; those of like length together."""
        size = self.plan.per_device_generation_batch_size or max(1, len(prompts))
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        answers: list[Ids] = [[] for _ in prompts]
        training = self.student.training
        self.student.eval()  # no dropout, and no activation is computed again: that would go without a cache
        try:
            for start in range(0, len(order), size):
                part = order[start : start + size]
                with self.accelerator.autocast():
                    found = sample(
                        self.student, [prompts[i] for i in part], self.pad, self.ends, chances[part], self.drawing
                    )
                for i, ids in zip(part, found, strict=True):
                    answers[i] = ids
        finally:
            self.student.train(training)
        return answers


def forbidden_tokens(student: PreTrainedModel, tokens: int, shared: torch.Tensor | None) -> torch.Tensor | None:
    """What must not be drawn, [V]: rows of the output matrix that are no token, or none of the teacher's.

    Args:
        student: its output matrix may be padded.
        tokens: size of its tokenizer.
        shared: ids of the tokens that the teacher has too; None: all.
    """
    rows = student.get_output_embeddings().weight.shape[0]
    forbidden = torch.arange(rows, device=student.device) >= tokens
    if shared is not None:
        others = torch.ones_like(forbidden)
        others[shared.to(student.device)] = False
        forbidden |= others
    return forbidden if bool(forbidden.any()) else None


class Writer:
    """Gives a stage's own steps their samples.

    Args:
        stage: its `on_policy` says how.
        place: the stage's place among all.
        student: bare; it writes.
        codec: makes batches.
        seed: the run's.
        shared: ids of the tokens that student and teacher have in common; None: all.
        accelerator: the engine of training; its processes share the writing.
    """

    def __init__(
        self,
        stage: Stage,
        place: int,
        student: PreTrainedModel,
        codec: Codec,
        seed: int,
        shared: torch.Tensor | None,
        accelerator: Accelerator,
    ):
        assert stage.on_policy is not None
        self.plan, self.place, self.seed, self.accelerator = stage.on_policy, place, seed, accelerator
        self.codec = cast(CausalCodec, codec)
        self.ends = end_tokens(codec.processor, student)
        self.engine = self._engine(student, forbidden_tokens(student, len(codec.processor), shared))

    def _engine(self, student: PreTrainedModel, forbidden: torch.Tensor | None) -> Engine:
        if self.plan.engine == "vllm":
            return VllmEngine(student, self.plan, self.ends, forbidden)
        pad = self.codec.processor.pad_token_id
        return TransformersEngine(student, self.plan, pad, self.ends, forbidden, self.accelerator)

    def own(self, step: int) -> bool:
        """Whether a step of the stage has the student's own answers."""
        return is_own(self.plan, self.seed, self.place, step)

    def batches(
        self, drawn: Callable[[int], Sequence[Feature]], progress: Progress, steps: int, micro: int
    ) -> tuple[list[Batch], Written]:
        """This process's micro-batches of the step that comes next, and what was written for it.

        Args:
            drawn: the samples of a step of the stage, over all processes.
            progress: where the run stands; it keeps what was written ahead.
            steps: the stage's.
            micro: samples in a micro-batch.
        """
        at, began, written = progress.step_in_stage, time.perf_counter(), 0
        features, kept = drawn(at), progress.answers or {}
        if str(at) in kept:
            texts, seconds = kept[str(at)], 0.0
        else:
            last = min(steps, at + self.plan.refresh)
            ahead = {step: drawn(step) for step in range(at, last) if self.own(step)}
            found = self._write(ahead, progress.step - at)
            seconds, written = time.perf_counter() - began, sum(len(ids) for each in found.values() for ids in each)
            texts = found.pop(at)
            kept = {str(step): answers for step, answers in found.items()}
        progress.answers = {step: each for step, each in kept.items() if int(step) > at} or None
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = [self._feature(features[i], texts[i]) for i in range(rank, len(features), world)]
        mine.sort(key=lambda feature: -feature.length)  # like lengths together; the sum of a step is the same
        batches = [self.codec.collate(mine[start : start + micro]) for start in range(0, len(mine), micro)]
        told = Written(len(texts), sum(map(len, texts)), sum(t[-1] in self.ends for t in texts), seconds, written)
        self._count(told, progress)
        return batches, told

    def _write(self, ahead: dict[int, Sequence[Feature]], before: int) -> dict[int, list[Ids]]:
        """Answers to the samples of some steps, the same on all processes, each of which writes its share.

        Args:
            ahead: by step of the stage, its samples.
            before: steps of the stages before.
        """
        from accelerate.utils import gather_object

        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        places = [(step, i) for step, each in ahead.items() for i in range(len(each))]
        mine = places[rank::world]
        prompts = [self.prompt(ahead[step][i]) for step, i in mine]
        # The place tells the same sample apart where a small data set has it twice in a step.
        draws = [DrawKey(self.seed, before + step).draws(ahead[step][i].id, i) for step, i in mine]
        chances = np.stack([each.random(self.plan.max_new_tokens) for each in draws]) if mine else np.empty((0, 1))
        texts = self.engine.write(prompts, chances)
        told = list(zip(mine, texts, strict=True))
        if world > 1:
            told = gather_object(told)
        found: dict[int, list[Ids]] = {step: [[] for _ in each] for step, each in ahead.items()}
        for (step, i), ids in told:
            found[step][i] = ids
        return found

    def prompt(self, feature: Feature) -> Ids:
        """The tokens of a sample's prompt."""
        assert feature.source is not None
        return self.codec.prompt_ids(feature.source)

    def _feature(self, feature: Feature, answer: Ids) -> Feature:
        """The sample with the student's answer in the place of the data's."""
        prompt = self.prompt(feature)
        values = self.codec.values(prompt + answer, len(prompt))
        return Feature(feature.id, len(values["input_ids"]), values, feature.source)

    def _count(self, told: Written, progress: Progress) -> None:
        """Add a step to the stage's numbers, which the manifest shows."""
        new = {"steps": 1, "answers": told.answers, "tokens": told.tokens, "cut": told.answers - told.finished}
        old = progress.written or dict.fromkeys(new, 0)
        progress.written = {name: old[name] + count for name, count in new.items()}


def check_on_policy(
    stage: Stage, student: PreTrainedModel, codec: Codec, teacher: Any, train: Sequence[Feature], world: int = 1
) -> None:
    """Refuse what cannot go with the student's own answers.

    Args:
        stage: may have `on_policy` or not.
        student: writes.
        codec: makes batches.
        teacher: is asked about what is written.
        train: the stage's rows.
        world: processes of the training.

    Raises:
        RecipeError: the task's samples are no prompts with answers, the teacher knows recorded samples only, or the
            engine does not fit the student, the machine or the number of processes.
        ModelError: a model has too few positions for a prompt and its answer.
        MissingExtra: vLLM is asked for and not installed.
    """
    plan, where = stage.on_policy, f"stage {stage.name}"
    if plan is None:
        return
    if type(codec) is not CausalCodec:
        what = f"{where}: `on_policy` needs prompts whose answers a model can write token by token"
        raise RecipeError(what, got=type(codec).__name__, allowed="the task causal-lm")
    if plan.engine == "vllm":
        refuse_vllm(student, world)
    members = getattr(teacher, "members", [teacher])
    if any(hasattr(member, "recorded") for member in members):
        what = f"{where}: a teacher that answers from a recording has not seen what the student writes"
        raise RecipeError(what, fix="teacher.remember=false and no cache, or leave out `on_policy`")
    longest = max(len(codec.prompt_ids(f.source)) for f in train if f.source is not None) + plan.max_new_tokens
    fix = "a smaller on_policy.max_new_tokens"
    if codec.task.packing and longest > codec.task.max_length:
        what = f"{where}: a prompt and its written answer may be longer than a packed row"
        raise RecipeError(what, got=f"{longest} tokens", allowed=codec.task.max_length, fix="a larger task.max_length")
    for model, name in [(student, "the student"), *((getattr(each, "model", None), "a teacher") for each in members)]:
        if model is not None:
            check_length(model, longest, name, "prompt and written answer", fix)
