"""What replicas can be told to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError, RecipeError
from limbeck.serving.folders import Served
from limbeck.serving.scale.spec import Scale, Spec, found
from limbeck.serving.settings import Settings


@pytest.mark.parametrize("fields", [{"replicas": 0}, {"replicas": 3, "max_replicas": 2}], ids=str)
def test_numbers_of_replicas_make_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="there must be a replica"):
        Scale(**fields)
    assert Scale(replicas=2, max_replicas=2).replicas == 2


@pytest.mark.parametrize(("fields", "said"), [({"grpc_port": 0}, "gRPC is not served"), ({"allow_load": True}, "load")])
def test_what_one_replica_alone_would_do_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Spec(models=(), settings=Settings(**fields))


def test_folders_are_told_as_every_process_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert found(["m=small"]) == (Served("m", tmp_path / "small"),)
    with pytest.raises(ModelError, match="there is no folder"):
        found(["nowhere"])
