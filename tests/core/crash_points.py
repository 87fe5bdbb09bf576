"""Kill a step at every write, sync, rename, removal and new folder, and see what is left.

Run as a program: `crash_points.py FOLDER SCENARIO`; it prints what broke a promise, nothing if all is well. It is a
process of its own because it forks: a child does the step and leaves by `os._exit` at one point, without a chance to
tidy up; the parent looks at the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import load, read_manifest, step, write_atomically
from limbeck.core.errors import ArtifactError

KILLED, FINISHED = 9, 0


class Points:
    """Counts what touches the disk and calls `at` when the number `stop` is reached, before it is done."""

    def __init__(self, stop: int, at: Callable[[], None]):
        self.seen, self.stop, self.at = 0, stop, at

    def reached(self) -> bool:
        """Count one; True if it is the one to stop at."""
        self.seen += 1
        return self.seen == self.stop

    def install(self) -> None:
        """Put the counter in front of the system calls."""
        for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, self._before(getattr(os, name)))
        plain = Path.open

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = plain(path, mode, *args, **kwargs)
            return file if mode.startswith("r") else _Torn(file, self)

        Path.open = opened  # type: ignore[method-assign,assignment]

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.reached():
                self.at()
            return call(*args, **kwargs)

        return counted


class _Torn:
    """A file whose write may end half way."""

    def __init__(self, file: Any, points: Points):
        self._file, self._points = file, points

    def write(self, data: Any) -> Any:
        if self._points.reached():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._points.at()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Torn:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def content(version: str) -> dict[str, str]:
    """The files of a version of the artifact."""
    return {"log.jsonl": f'{{"version": "{version}"}}\n' * 3, "student/model.bin": version * 50}


def make(output: Path, version: str, force: bool = False) -> bool:
    """Do the step; True if there was work to do. Like training, it goes on from its own scratch."""

    def work(folder: Path) -> Mapping[str, Any]:
        checkpoint = folder / ".checkpoint" / "state"
        checkpoint.parent.mkdir(exist_ok=True)
        if checkpoint.exists() and checkpoint.read_text() != version:
            raise AssertionError("the folder holds what another try with other inputs left")
        write_atomically(checkpoint, version)
        for name, text in content(version).items():
            (folder / name).parent.mkdir(exist_ok=True)
            with (folder / name).open("w") as file:
                file.write(text)
        return {"counts": {"version": version}}

    return step(output, "train", inputs={"version": version}, parents={}, work=work, force=force)[1]


def version_of(folder: Path) -> str | None:
    """The version of a whole artifact, None if there is none; ArtifactError if it is damaged."""
    if not folder.exists():
        return None
    made = load(folder)
    version = str(made.manifest["inputs"]["version"])
    found = {name: made.file(name).read_text() for name in made.manifest["files"]}
    if found != content(version):
        raise ArtifactError(f"{folder} does not hold version {version}")
    return version


def killed_at(point: int, action: Callable[[], object]) -> bool:
    """Do it in a child that is killed at a point; False if it ended before."""
    child = os.fork()
    if child == 0:
        Points(point, lambda: os._exit(KILLED)).install()
        action()
        os._exit(FINISHED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (KILLED, FINISHED), code
    return code == KILLED


SCENARIOS: dict[str, tuple[list[str], str, bool]] = {
    # finished before; what is made now; force
    "first": ([], "b", False),
    "changed": (["a"], "b", False),
    "forced": (["b"], "b", True),
    "interrupted": (["a", "x!"], "b", False),  # x! began and was killed in its work
}


def prepare(output: Path, before: list[str]) -> None:
    """The disk as it was before the step."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for version in before:
        if version.endswith("!"):
            assert killed_at(12, lambda v=version: make(output, v))  # type: ignore[misc]
            assert (output / ".train.partial" / ".checkpoint").exists()
        else:
            make(output, version)


def problems(output: Path, before: list[str], now: str, force: bool, point: int) -> list[str] | None:
    """What is wrong after a kill at a point; None if the step ended before it."""
    prepare(output, before)
    earlier = next((v for v in before if not v.endswith("!")), None)
    if not killed_at(point, lambda: make(output, now, force)):
        return None
    found = []
    visible = version_of(output / "train")
    kept = version_of(output / ".train.old") if visible is None and (output / ".train.old").exists() else None
    if earlier is not None and (visible or kept) not in (earlier, now):
        found.append(f"point {point}: the earlier artifact is gone")
    second = output.with_name("second")
    for again in filter(None, (now, earlier)):
        shutil.rmtree(second, ignore_errors=True)
        shutil.copytree(output, second)
        worked = make(second, again)
        if version_of(second / "train") != again:
            found.append(f"point {point}: the next run with {again} did not recover")
        if worked and again == visible:
            found.append(f"point {point}: {again} was whole, and was made again")
        if make(second, again):
            found.append(f"point {point}: the run after that was not up to date")
        if read_manifest(second / "train")["files"].keys() != content(again).keys():
            found.append(f"point {point}: other files than it should have")
    return found


def main() -> None:
    """All points of a scenario."""
    # A killed process loses nothing of what it wrote, synced or not; waiting for the disk would only take time.
    os.fsync = lambda _: None  # type: ignore[assignment]
    output, (before, now, force) = Path(sys.argv[1]) / "run", SCENARIOS[sys.argv[2]]
    found, point = [], 1
    while (wrong := problems(output, before, now, force, point)) is not None:
        found += wrong
        point += 1
    sys.stdout.write(json.dumps({"points": point - 1, "problems": found}))


if __name__ == "__main__":
    main()
