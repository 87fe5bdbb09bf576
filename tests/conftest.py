"""What holds for every test: one thread, so that figures repeat and parallel workers do not fight."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["TOKENIZERS_PARALLELISM"] = "false"


MANY = 60_000
"""Objects that the garbage collector looks through in some ten milliseconds."""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector what stays anyway: it takes half a second to look through all modules and tests,
    and every training and evaluation calls it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def few_objects() -> None:
    """Spare it what the tests of other modules have imported since."""
    if len(gc.get_objects(generation=2)) > MANY:
        pytest_collection_finish()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """Start every test from the same seed, whichever ran before it."""
    import torch

    torch.manual_seed(0)
