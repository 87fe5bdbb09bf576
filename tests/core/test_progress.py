"""Which process speaks."""

from __future__ import annotations

import pytest

from limbeck.core.progress import is_main_process


@pytest.mark.parametrize(
    ("rank", "world", "speaks"),
    [
        (None, None, True),
        ("0", "1", True),
        ("1", None, True),  # left over from elsewhere
        ("1", "", True),
        ("1", "1", True),
        ("0", "2", True),
        (None, "2", True),
        ("1", "2", False),
    ],
)
def test_the_first_of_many_is_the_main_process(
    rank: str | None, world: str | None, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", world)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert is_main_process() is speaks
