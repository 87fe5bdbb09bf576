"""What the tests of the live pages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.report.drive import started


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained runs by kind, see `tests.live.playing.Runs`; nobody changes them."""
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    from tests.live.playing import Runs

    return Runs(tmp_path_factory)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser; tests skip where there is none."""
    with started() as made:
        yield made
