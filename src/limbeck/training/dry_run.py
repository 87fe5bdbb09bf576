"""A training gone through without a step, to find what cannot work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.artifacts import write_json
from limbeck.core.progress import show_table
from limbeck.models.heads import check_head
from limbeck.models.load import check_length
from limbeck.models.shrink.prune import empty, sizes_after
from limbeck.training.augment import Augmenter, refuse_without_replay
from limbeck.training.batches import order_of
from limbeck.training.checks import check_packing, check_stage
from limbeck.training.job import Job
from limbeck.training.matching import match_table
from limbeck.training.on_policy import check_on_policy
from limbeck.training.optim import select_trained

if TYPE_CHECKING:
    from accelerate import Accelerator


def dry_run(job: Job, accelerator: Accelerator, folder: Path) -> None:
    """All that can fail for its shape fails here, before the first step; writes which layers are compared.

    Args:
        job: what is about to be trained.
        accelerator: the engine.
        folder: takes `layers.json`, if layers are compared.
    """
    rows = []
    few = job.read(job.codec.collate(job.stages[0].train.features[:2])).to(accelerator.device)
    check_head(job.student, few, job.title)
    for each in job.stages:
        if each.stage.prune is not None:  # this stage and those after it train what is left; its weights do not matter
            left = empty(job.student, sizes_after(job.student, each.stage.prune))
            job = replace(job, student=left.to(accelerator.device))
        select_trained(job.student, each.stage.freeze, job.learnable)
        refuse_without_replay(each.stage, job.teacher, job.seed)
        if longest := Augmenter(each.stage, job.codec, job.seed).longest:
            check_length(job.student, longest, job.title, "augmented text")
        distiller = job.distiller(each.stage, few)
        check_stage(each.stage, distiller, job.training)
        if each.stage.quantize is not None:
            from limbeck.models.quantize import quantizable

            quantizable(job.student, each.stage.quantize)
        check_packing(each.stage, distiller, few)
        features, world = each.train.features, accelerator.num_processes
        check_on_policy(each.stage, job.student, job.codec, job.teacher, features, world)
        if each.stage.mixture is not None or each.stage.curriculum is not None:
            any_losses = range(len(features))  # the student's own are known when the stage begins
            order_of(each.stage, each.train, each.steps, (job.seed, 0), any_losses)
        found = match_table(distiller)
        rows += [{"stage": each.stage.name, **row} for row in found]
    if rows and accelerator.is_main_process:
        write_json(folder / "layers.json", rows)
        show_table([{k: v for k, v in row.items() if k != "stage" or len(job.stages) > 1} for row in rows])
