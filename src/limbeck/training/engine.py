"""The engine: Accelerate, set up as a recipe says."""

from __future__ import annotations

import atexit
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from limbeck.core.errors import MissingExtra, RecipeError, TrainingError
from limbeck.core.recipe import Optimization, Training

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState


def processes() -> PartialState:
    """This process among those that torchrun started; the process group is made at the first call.

    Raises:
        TrainingError: the launcher started more processes than found each other; each would train alone.
    """
    from accelerate import PartialState

    # Without being told, Accelerate does not look for other processes on a machine that has a CPU only.
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes != (launched := int(os.environ.get("WORLD_SIZE", "1"))):
        raise TrainingError("the processes did not find each other", got=state.num_processes, allowed=launched)
    if state.num_processes > 1:
        _leave_in_order()
    return state


@cache
def _leave_in_order() -> None:
    """Take the process group down before Python goes: its threads may otherwise abort a process that is done."""

    def leave() -> None:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(leave)


def make_accelerator(training: Training, logs: Path) -> Accelerator:
    """An engine for one training run; device and processes are found from the environment.

    Raises:
        MissingExtra: a tracker is not installed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    for tracker in training.report_to:
        if importlib.util.find_spec(tracker) is None:
            raise MissingExtra(f"the tracker '{tracker}'", tracker)
    processes()
    # Several runs share a process (teacher, student, baseline); each brings its own precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    if training.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("fp16 needs a GPU", fix="training.precision=bf16")
    mixed = "no" if training.precision == "fp32" else training.precision
    # Accumulation is ours (see step.py), so the engine must not divide by it.
    options: dict[str, Any] = {"log_with": training.report_to, "project_dir": logs} if training.report_to else {}
    return Accelerator(mixed_precision=mixed, gradient_accumulation_steps=1, **options)


def micro_batch(plan: Optimization, world: int, where: str) -> int:
    """Samples in one forward pass of one process; the rest of the global batch is accumulated.

    Raises:
        RecipeError: processes and micro-batches do not divide the global batch.
    """
    micro = plan.per_device_train_batch_size or max(1, plan.global_batch_size // world)
    one_pass = micro * world
    if plan.global_batch_size % one_pass:
        raise RecipeError(
            f"{where}: global_batch_size is not a whole number of micro-batches",
            got=f"{plan.global_batch_size} = accumulation x {micro} samples x {world} process(es)",
            fix=f"global_batch_size={max(1, round(plan.global_batch_size / one_pass)) * one_pass}",
        )
    return micro
