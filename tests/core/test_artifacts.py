"""Artifacts: whole or not at all, up to date or not, one writer, every damage noticed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from limbeck.core import artifacts
from limbeck.core.artifacts import Artifact, digest_of, load, locked, read_manifest, seal, step, write_atomically
from limbeck.core.errors import ArtifactError
from tests.core import crash_points


def work_of(
    files: Mapping[str, str | bytes], told: Mapping[str, Any] | None = None
) -> Callable[[Path], Mapping[str, Any]]:
    """A step's work that writes files."""

    def work(folder: Path) -> Mapping[str, Any]:
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        return told or {}

    return work


def make(
    output: Path, name: str = "train", inputs: Any = None, parents: Any = None, **more: Any
) -> tuple[Artifact, bool]:
    """A small step."""
    work = more.pop("work", work_of({"a.json": "[1]", "sub/b.bin": bytes(range(7))}))
    return step(output, name, inputs=inputs or {}, parents=parents or {}, work=work, **more)


class TestStep:
    def test_leaves_files_and_a_manifest(self, tmp_path: Path) -> None:
        made, done = make(tmp_path, inputs={"lr": 1e-5}, work=work_of({"a.json": "[1]"}, {"counts": {"rows": 3}}))
        assert done
        assert made.path == tmp_path / "train"
        manifest = json.loads((made.path / "manifest.json").read_text())
        assert manifest["kind"] == "train"
        assert manifest["inputs"] == {"lr": 1e-5}
        assert manifest["counts"] == {"rows": 3}
        assert manifest["files"] == {"a.json": {"bytes": 3, "sha256": artifacts.sha256_of(made.path / "a.json")}}
        assert {"limbeck", "python", "torch"} <= set(manifest["versions"])
        assert made.digest == manifest["digest"] == load(made.path).digest
        assert made.file("a.json").read_text() == "[1]"
        with pytest.raises(ArtifactError, match=r"holds no 'b\.json'"):
            made.file("b.json")

    def test_leaves_nothing_else(self, tmp_path: Path) -> None:
        make(tmp_path, work=work_of({"a": "1", ".checkpoint/state": "x", ".note": "y"}))
        make(tmp_path, inputs={"other": 1}, work=work_of({"a": "2", ".checkpoint/state": "x", ".note": "y"}))
        assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
            "train",
            "train/a",
            "train/manifest.json",
        ]

    def test_is_up_to_date_while_nothing_changes(self, tmp_path: Path) -> None:
        first, _ = make(tmp_path, inputs={"a": 1, "b": [1, 2]})
        again, done = make(tmp_path, inputs={"b": (1, 2), "a": 1}, work=_never)
        assert not done
        assert again == first

    @pytest.mark.parametrize("other", [{"a": 2}, {"a": 1, "b": 0}, {}, {"a": "1"}, {"a": [1]}])
    def test_is_done_again_with_other_inputs(self, tmp_path: Path, other: dict[str, Any]) -> None:
        first, _ = make(tmp_path, inputs={"a": 1})
        again, done = make(tmp_path, inputs=other)
        assert done
        assert again.digest != first.digest

    def test_is_done_again_with_another_parent(self, tmp_path: Path) -> None:
        parents = [make(tmp_path, "prepare", {"seed": seed}, force=True)[0] for seed in (0, 1)]
        assert make(tmp_path, parents={"prepare": parents[0]})[1]
        assert not make(tmp_path, parents={"prepare": parents[0]}, work=_never)[1]
        made, done = make(tmp_path, parents={"prepare": parents[1]})
        assert done
        assert made.manifest["parents"] == {"prepare": parents[1].digest}
        assert make(tmp_path, parents={"teacher": parents[1]})[1]

    def test_is_done_again_by_another_version(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make(tmp_path)
        monkeypatch.setattr(artifacts, "__version__", "0.0.1")
        assert make(tmp_path)[1]

    def test_is_done_again_by_force_and_from_the_start(self, tmp_path: Path) -> None:
        make(tmp_path)
        (tmp_path / ".train.partial").mkdir()
        (tmp_path / ".train.partial" / "left").write_text("over")
        made, done = make(tmp_path, force=True)
        assert done
        assert "left" not in made.manifest["files"]

    def test_goes_on_where_its_own_try_ended(self, tmp_path: Path) -> None:
        _interrupt(tmp_path, {"a": 1})
        seen: list[bool] = []

        def work(folder: Path) -> Mapping[str, Any]:
            seen.append((folder / ".checkpoint").exists())
            return {}

        make(tmp_path, inputs={"a": 1}, work=work)
        assert seen == [True]

    @pytest.mark.parametrize(("inputs", "force"), [({"a": 2}, False), ({"a": 1}, True)])
    def test_does_not_go_on_from_another_try(self, tmp_path: Path, inputs: dict[str, int], force: bool) -> None:
        _interrupt(tmp_path, {"a": 1})
        seen: list[bool] = []

        def work(folder: Path) -> Mapping[str, Any]:
            seen.append(any(folder.iterdir()))
            return {}

        make(tmp_path, inputs=inputs, work=work, force=force)
        assert seen == [False]

    def test_that_fails_leaves_the_earlier_artifact(self, tmp_path: Path) -> None:
        first, _ = make(tmp_path)
        with pytest.raises(ZeroDivisionError):
            make(tmp_path, inputs={"a": 1}, work=lambda _: {"x": 1 // 0})
        assert load(tmp_path / "train") == first

    def test_never_removes_a_folder_that_is_not_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "train" / "cats").mkdir(parents=True)
        (tmp_path / "train" / "cats" / "1.png").write_text("a photo")
        for force in (False, True):
            with pytest.raises(ArtifactError, match=r"is in the way: it has no manifest\.json"):
                make(tmp_path, work=_never, force=force)
        assert (tmp_path / "train" / "cats" / "1.png").read_text() == "a photo"

    def test_takes_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "train").mkdir()
        assert make(tmp_path)[1]


def _never(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("there was nothing to do")


def _interrupt(output: Path, inputs: dict[str, Any]) -> None:
    def work(folder: Path) -> Mapping[str, Any]:
        (folder / ".checkpoint").mkdir()
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(output, inputs=inputs, work=work)


@pytest.mark.parametrize("scenario", crash_points.SCENARIOS)
def test_a_kill_at_any_point_loses_nothing(tmp_path: Path, scenario: str) -> None:
    command = [sys.executable, crash_points.__file__, str(tmp_path), scenario]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["points"] > 25, "the points are not seen any more"


class TestFullDisk:
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_at_any_point_is_told_and_the_earlier_artifact_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        calls = ("fsync", "rename", "replace")
        for point in range(1, 100):
            output = tmp_path / str(point)
            first, _ = make(output, inputs={"a": 1})
            with monkeypatch.context() as patch:
                full = _Full(point, code)
                for name in calls:
                    patch.setattr(os, name, full.before(getattr(os, name)))
                if not full.stops(lambda output=output: make(output, inputs={"a": 2})):  # type: ignore[misc]
                    break
            assert full.error is not None
            assert str(full.error).startswith(f"the disk that holds {output} is full\n  fix: free some space")
            whole = [p for p in (output / "train", output / ".train.old") if (p / "manifest.json").exists()]
            assert load(whole[0]).manifest["inputs"] in ({"a": 1}, {"a": 2})
            assert make(output, inputs={"a": 1})[0].manifest["files"] == first.manifest["files"]
            assert make(output, inputs={"a": 2})[0].manifest["inputs"] == {"a": 2}
        assert point > 8

    def test_in_the_words_of_other_libraries(self, tmp_path: Path) -> None:
        def work(folder: Path) -> Mapping[str, Any]:
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

        with pytest.raises(ArtifactError, match="is full"):
            make(tmp_path, work=work)

    def test_other_errors_stay_what_they_are(self, tmp_path: Path) -> None:
        def work(folder: Path) -> Mapping[str, Any]:
            raise PermissionError(errno.EACCES, "Permission denied")

        with pytest.raises(PermissionError):
            make(tmp_path, work=work)


class _Full:
    """A disk that is full at the n-th call."""

    def __init__(self, point: int, code: int):
        self.left, self.code = point, code
        self.error: ArtifactError | None = None

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return call(*args, **kwargs)

        return checked

    def stops(self, action: Callable[[], object]) -> bool:
        try:
            action()
        except ArtifactError as error:
            self.error = error
        return self.left <= 0


class TestDamage:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Artifact:
        return make(tmp_path, inputs={"lr": 1e-05, "text": "grün \u001f"})[0]

    @pytest.mark.parametrize("name", ["a.json", "sub/b.bin"])
    def test_any_flipped_bit_of_a_file_is_refused(self, made: Artifact, name: str) -> None:
        path = made.path / name
        good = path.read_bytes()
        for bit in range(8 * len(good)):
            path.write_bytes(_flipped(good, bit))
            with pytest.raises(ArtifactError, match=rf"is damaged: {name} has changed"):
                load(made.path)
        path.write_bytes(good)
        assert load(made.path) == made

    def test_a_flipped_bit_of_the_manifest_is_refused(self, made: Artifact) -> None:
        path = made.path / "manifest.json"
        good = path.read_bytes()
        same_number = 8 * good.index(b"1e-05") + 8 + 5  # 1E-05
        for bit in [same_number, *range(0, 8 * len(good), 7)]:  # 7 and 8 share no divisor: every bit has its turn
            path.write_bytes(_flipped(good, bit))
            with pytest.raises(ArtifactError, match=r"is damaged: manifest\.json "):
                read_manifest(made.path)
        path.write_bytes(good)
        assert load(made.path) == made

    @pytest.mark.parametrize("name", ["a.json", "sub/b.bin", "manifest.json"])
    def test_any_truncation_is_refused(self, made: Artifact, name: str) -> None:
        path = made.path / name
        good = path.read_bytes()
        for length in {*range(0, len(good), 5), len(good) - 1}:
            path.write_bytes(good[:length])
            with pytest.raises(ArtifactError, match=f"is damaged: {name} "):
                load(made.path)

    @pytest.mark.parametrize("name", ["a.json", "sub/b.bin", "manifest.json"])
    def test_anything_appended_is_refused(self, made: Artifact, name: str) -> None:
        with (made.path / name).open("ab") as file:
            file.write(b"\n")
        with pytest.raises(ArtifactError, match=f"is damaged: {name} has changed"):
            load(made.path)

    def test_a_missing_file_is_named(self, made: Artifact) -> None:
        (made.path / "sub" / "b.bin").unlink()
        with pytest.raises(ArtifactError, match=r"is damaged: sub/b\.bin is missing"):
            load(made.path)

    def test_a_missing_manifest_means_no_artifact(self, made: Artifact) -> None:
        (made.path / "manifest.json").unlink()
        with pytest.raises(ArtifactError, match="there is no finished artifact at"):
            load(made.path)

    @pytest.mark.parametrize("text", ["[]", "{}", "3", "null", '{"digest": "x"}', ""])
    def test_a_manifest_of_other_content_is_refused(self, made: Artifact, text: str) -> None:
        (made.path / "manifest.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"is damaged: manifest\.json"):
            load(made.path)

    def test_is_noticed_when_the_step_is_run_again_and_force_mends_it(self, tmp_path: Path) -> None:
        for name in ("a.json", "manifest.json"):
            make(tmp_path, force=True)
            path = tmp_path / "train" / name
            path.write_bytes(_flipped(path.read_bytes(), 9))
            with pytest.raises(ArtifactError, match=f"is damaged: {name}"):
                make(tmp_path)
            make(tmp_path, force=True)
            assert not make(tmp_path, work=_never)[1]


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class TestLock:
    HOLD = (
        "import sys, time, pathlib; from limbeck.core.artifacts import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    sys.stdout.write('held\\n'); sys.stdout.flush(); time.sleep(60)\n"
    )

    def test_another_process_is_refused_and_told_the_pid_and_a_killed_one_is_forgotten(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", self.HOLD, str(tmp_path)], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(ArtifactError, match=rf"is in use by another run\n  got: process {holder.pid}\n"):
                _hold(tmp_path)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        with locked(tmp_path):
            assert (tmp_path / ".lock.owner").read_text() == str(os.getpid())

    def test_it_is_free_after_use_and_after_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            1 / 0  # noqa: B018
        with locked(tmp_path):
            pass
        assert not (tmp_path / ".lock.owner").exists()

    def test_it_holds_within_one_process_too(self, tmp_path: Path) -> None:
        with locked(tmp_path), pytest.raises(ArtifactError, match=f"process {os.getpid()}"):
            _hold(tmp_path)

    def test_an_owner_unknown_is_told_as_such(self, tmp_path: Path) -> None:
        with locked(tmp_path):
            (tmp_path / ".lock.owner").unlink()
            with pytest.raises(ArtifactError, match="process unknown"):
                _hold(tmp_path)

    def test_folders_are_made_and_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        with locked(tmp_path / "a" / "b"), locked(tmp_path / "a"):
            assert (tmp_path / "a" / "b").is_dir()


def _hold(output: Path) -> None:
    with locked(output):
        raise AssertionError("two hold one lock")


class TestFiles:
    def test_text_and_bytes(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "x", "grün")
        assert (tmp_path / "x").read_bytes() == "grün".encode()
        write_atomically(tmp_path / "x", b"\x00")
        assert (tmp_path / "x").read_bytes() == b"\x00"
        assert [p.name for p in tmp_path.iterdir()] == ["x"]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_failed_write_leaves_the_old_content_and_no_litter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        write_atomically(tmp_path / "x", "old")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OSError, match="Input/output error"):
                write_atomically(tmp_path / "x", "new")
        assert (tmp_path / "x").read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["x"]

    def test_a_digest_knows_no_order_of_keys(self) -> None:
        assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
        assert digest_of([1, 2]) != digest_of([2, 1])
        assert digest_of(1) != digest_of("1")

    def test_a_sealed_folder_is_an_artifact(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("1")
        (tmp_path / ".hidden").write_text("2")
        seal(tmp_path, {"kind": "checkpoint", "step": 3})
        assert load(tmp_path).manifest["files"].keys() == {"x"}
