"""Processes for tests, forked from one that has imported what takes seconds: the library is read once for all."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["limbeck.pipeline.run", "limbeck.cache.record", "limbeck.generation.engine", "openai"])


def limbeck(*words: str) -> Any:
    """A process that is `limbeck WORDS` and says nothing; it has begun."""
    process = FORKS.Process(target=_limbeck, args=words)
    process.start()
    return process


def _limbeck(*words: str) -> None:
    from limbeck.cli import main

    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.argv = ["limbeck", *words]
    main()


def together(work: Callable[..., None], *given: Any, world: int = 2, patience: float = 240) -> None:
    """A function in processes that find each other, as torchrun starts them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    errors = FORKS.SimpleQueue()
    processes = [FORKS.Process(target=_ranked, args=(rank, world, port, errors, work, given)) for rank in range(world)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(patience)
        said = "" if errors.empty() else errors.get()
        assert [process.exitcode for process in processes] == [0] * world, said
    finally:
        for process in processes:
            process.kill()
            process.join()


def _ranked(rank: int, world: int, port: int, errors: Any, work: Callable[..., None], given: Any) -> None:
    import torch

    torch.set_num_threads(1)
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in known.items()}}
    try:
        work(*given)
    except BaseException:
        errors.put(traceback.format_exc())
        raise
