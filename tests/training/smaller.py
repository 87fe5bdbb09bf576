"""A stage that prunes and one that rounds, trained in two processes; writes what each one holds.

It takes an output folder. The processes are forks, so that all that is imported is imported once.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path

import torch
from torch.multiprocessing import start_processes

from limbeck.core.recipe import Quantize
from limbeck.models import quantize  # noqa: F401  imported before the processes part
from limbeck.training.engine import processes
from limbeck.training.job import StageJob
from limbeck.training.loop import train
from tests.training.test_prune import pruning_job


def main(rank: int, folder: Path, port: int) -> None:
    """Train, and write the bytes that this process ends with."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    job = pruning_job({"heads": 0.5, "mlp": 0.5, "rows": 16}, per_process=4)
    last = job.stages[1]
    rounded = last.stage.model_copy(update={"name": "round", "prune": None, "quantize": Quantize(activations="int8")})
    job.stages = [*job.stages, StageJob(rounded, last.train, last.validation)]
    train(job, folder)
    data = b"".join(x.numpy().tobytes() for x in job.student.state_dict().values())
    assert processes().num_processes == 2
    (folder / f"rank-{rank}").write_text(hashlib.sha256(data).hexdigest() + f" {job.student.config.intermediate_size}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen = free.getsockname()[1]
    start_processes(main, (Path(sys.argv[1]), chosen), nprocs=2, start_method="fork")
