"""A stage that prunes and one that rounds, trained by torchrun in several processes; prints what each one holds.

It takes an output folder.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

from limbeck.training.engine import processes
from limbeck.training.loop import train
from tests.training.test_prune import pruning_job


def main(folder: Path) -> None:
    """Train, and write the bytes that this process ends with."""
    from limbeck.core.recipe import Quantize
    from limbeck.training.job import StageJob

    job = pruning_job({"heads": 0.5, "mlp": 0.5, "rows": 16})
    last = job.stages[1]
    rounded = last.stage.model_copy(update={"name": "round", "prune": None, "quantize": Quantize(activations="int8")})
    job.stages = [*job.stages, StageJob(rounded, last.train, last.validation)]
    train(job, folder)
    data = b"".join(x.numpy().tobytes() for x in job.student.state_dict().values())
    rank = processes().process_index
    (folder / f"rank-{rank}").write_text(hashlib.sha256(data).hexdigest() + f" {job.student.config.intermediate_size}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
