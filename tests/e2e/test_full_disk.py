"""A full disk is one clear message, and what was finished before it is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import limbeck
from limbeck.core import artifacts
from limbeck.core.recipe import load_recipe
from tests.cli.command import inside
from tests.pipeline.recipes import images, resnet


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limbeck.run(images(small_disk / "run"), until="train")
    before = artifacts.load(small_disk / "run" / "train").digest
    larger = load_recipe(images(small_disk / "run", student={"config": resnet(96)}))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(larger.model_dump_json())  # JSON is YAML
    done = inside(monkeypatch, "run", str(recipe))
    assert done.returncode == 1
    assert "is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert artifacts.load(small_disk / "run" / "train").digest == before
