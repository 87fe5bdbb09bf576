"""The student written with by vLLM, on the GPU it is trained on. Needs vLLM, which limbeck's own tests do not have."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from limbeck.core.errors import MissingExtra, RecipeError
from limbeck.core.recipe import OnPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEMORY = 0.3
"""Share of the GPU's memory that vLLM may take; the rest is for training."""


def refuse_vllm(student: PreTrainedModel, world: int) -> None:
    """Make sure that vLLM can be used.

    Args:
        student: writes.
        world: processes of the training.

    Raises:
        MissingExtra: it is not installed.
        RecipeError: there is no GPU, more than one process, or the student learns by LoRA.
    """
    if getattr(student, "peft_config", None) is not None:
        what = "vllm takes the weights of plain models, and this student learns by LoRA"
        raise RecipeError(what, fix="on_policy.engine=transformers, or student.lora=null")
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtra("on_policy.engine: vllm", "vllm")
    if world > 1 or not torch.cuda.is_available():
        got = f"{world} process(es), {'a' if torch.cuda.is_available() else 'no'} GPU"
        raise RecipeError("vllm writes beside one process on a GPU", got=got, fix="on_policy.engine=transformers")


class VllmEngine:
    """Writes with vLLM; before each writing it is given the student's weights as they are.

    The draws are seeded like those of transformers, but vLLM batches as it likes: a resumed run has the same texts but
    for rounding, and not the same bytes.

    Args:
        student: bare.
        plan: how tokens are drawn.
        ends: tokens that end an answer.
        forbidden: tokens that are never drawn, [V] of bool; None: all may be.
    """

    def __init__(self, student: PreTrainedModel, plan: OnPolicy, ends: set[int], forbidden: torch.Tensor | None):
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # its model must live in this process to take weights
        from vllm import LLM

        self.student, self.plan, self.ends = student, plan, sorted(ends)
        self.allowed = None if forbidden is None else (~forbidden).nonzero().flatten().tolist()
        with tempfile.TemporaryDirectory() as folder:
            student.save_pretrained(folder)
            self.engine: Any = LLM(model=folder, skip_tokenizer_init=True, gpu_memory_utilization=MEMORY)

    def write(self, prompts: Sequence[list[int]], chances: np.ndarray) -> list[list[int]]:
        """Answers to prompts, each up to and including its end token."""
        model = self.engine.llm_engine.model_executor.driver_worker.model_runner.model
        model.load_weights((name, tensor.detach()) for name, tensor in self.student.named_parameters())
        self.engine.reset_prefix_cache()  # keys and values of the old weights
        given = [{"prompt_token_ids": ids} for ids in prompts]
        said = self.engine.generate(given, [self._params(row) for row in chances], use_tqdm=False)
        return [list(each.outputs[0].token_ids) for each in said]

    def _params(self, chance_T: np.ndarray) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=self.plan.temperature,
            top_p=self.plan.top_p,
            max_tokens=len(chance_T),
            stop_token_ids=self.ends,
            allowed_token_ids=self.allowed,
            seed=int(chance_T[0] * 2**31),
            detokenize=False,
        )
