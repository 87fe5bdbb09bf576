"""Models and versions, and how one takes another's place while requests come."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import LimbeckError, ModelError
from limbeck.serving.errors import Draining, NotFound
from limbeck.serving.repository import stamp_of, versions_in
from tests.serving.serving import make_text, repository

pytest.importorskip("prometheus_client")


def ask(models: Any, name: str | None = None, version: str | None = None) -> tuple[str, list[float]]:
    with models.lease(name, version) as model:
        outputs = asyncio.run(model.ask([{"text": "the word1 of 7"}]))
        return model.version, outputs["logits"][0].tolist()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two students that answer differently."""
    root = tmp_path_factory.mktemp("students")
    return make_text(root / "one"), make_text(root / "other", hidden_size=8)


def test_versions_are_folders_with_numbers(two: tuple[Path, Path], tmp_path: Path) -> None:
    for version, folder in (("2", two[0]), ("10", two[1])):
        shutil.copytree(folder, tmp_path / version)
    (tmp_path / "notes").mkdir()
    assert list(versions_in(tmp_path)) == ["2", "10"]
    assert versions_in(two[0]) == {"1": two[0]}
    with repository({"m": tmp_path, "n": two[0]}) as models:
        assert ask(models)[0] == "10"  # the highest, by number
        assert ask(models, "m", "2")[1] == ask(models, "n")[1]
        assert ask(models, "m", "2")[1] != ask(models, "m")[1]
        for name, version in (("x", None), ("m", "3"), ("n", "x")):
            with pytest.raises(NotFound):
                ask(models, name, version)
        assert [entry["state"] for entry in models.index()] == ["READY"] * 3


def test_a_folder_that_is_just_being_replaced_stops_no_watcher(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(two[0], tmp_path / "1")
    looks = []

    def gone_for_a_moment(folder: Path) -> dict[str, Path]:
        looks.append(folder)
        if len(looks) < 3:
            raise FileNotFoundError(folder)
        return versions_in(folder)

    with repository({"m": tmp_path}) as models:
        monkeypatch.setattr("limbeck.serving.repository.versions_in", gone_for_a_moment)
        shutil.copytree(two[1], tmp_path / "2")
        models.watch(0.02)
        end = time.monotonic() + 20
        while models.versions("m") != ["1", "2"] and time.monotonic() < end:
            time.sleep(0.02)
        assert models.versions("m") == ["1", "2"]


def test_a_name_is_given_once(two: tuple[Path, Path]) -> None:
    with repository({"m": two[0]}) as models, pytest.raises(ModelError, match="two models"):
        models.add("m", two[1])


def test_what_is_no_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError), repository({"m": tmp_path}):
        pass
    with pytest.raises(ModelError, match="no folder"), repository({"m": tmp_path / "none"}):
        pass


def test_unloaded_models_are_not_served_until_they_are_loaded(two: tuple[Path, Path]) -> None:
    with repository({"m": two[0], "n": two[1]}) as models:
        before = ask(models, "m")
        models.unload("m")
        with pytest.raises(NotFound):
            ask(models, "m")
        assert models.ready  # it is not wanted any more
        assert [entry["state"] for entry in models.index()] == ["UNAVAILABLE", "READY"]
        models.load("m")
        assert ask(models, "m") == before
        with pytest.raises(NotFound):
            models.load("none")


def replace(folder: Path, by: Path) -> None:
    """Put one folder in the place of another, as an artifact is."""
    fresh = folder.with_name("fresh")
    shutil.copytree(by, fresh)
    folder.rename(folder.with_name("old"))
    fresh.rename(folder)
    shutil.rmtree(folder.with_name("old"))


def test_a_folder_that_is_replaced_is_served_and_no_request_is_lost(two: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(two[0], tmp_path / "m")
    with repository({"m": folder}) as models:
        old, new = ask(models)[1], None
        with repository({"x": two[1]}) as others:
            new = ask(others)[1]
        assert old != pytest.approx(new)
        stop, failed, seen = threading.Event(), list[BaseException](), list[list[float]]()

        def caller() -> None:
            while not stop.is_set():
                try:
                    seen.append(ask(models)[1])
                except BaseException as error:
                    failed.append(error)

        callers = [threading.Thread(target=caller) for _ in range(4)]
        for thread in callers:
            thread.start()
        models.watch(0.05)
        replace(folder, two[1])
        end = time.monotonic() + 20
        while time.monotonic() < end and not (seen and seen[-1] == pytest.approx(new, abs=1e-5)):
            time.sleep(0.02)
        stop.set()
        for thread in callers:
            thread.join(10)
        assert failed == []
        assert seen[-1] == pytest.approx(new, abs=1e-5)
        known = [any(answer == pytest.approx(each, abs=1e-5) for each in (old, new)) for answer in seen]
        assert all(known)


def test_a_new_version_is_found_and_a_bad_one_takes_nothing_away(two: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "m" / "1")
    with repository({"m": tmp_path / "m"}) as models:
        before = ask(models)
        models.watch(0.05)
        (tmp_path / "m" / "3").mkdir()
        (tmp_path / "m" / "3" / "config.json").write_text("{")
        shutil.copytree(two[1], tmp_path / "m" / "2")
        end = time.monotonic() + 20
        while models.versions("m") != ["1", "2"] and time.monotonic() < end:
            time.sleep(0.02)
        version, logits = ask(models)
        assert version == "2"
        assert logits != before[1]
        assert ask(models, "m", "1") == before
        assert models.ready
        states = {entry["version"]: entry["state"] for entry in models.index()}
        assert states == {"1": "READY", "2": "READY", "3": "UNAVAILABLE"}


def test_a_folder_that_cannot_be_loaded_changes_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(two[0], tmp_path / "m")
    with repository({"m": folder}) as models:
        before, threads = ask(models), threading.active_count()
        (folder / "config.json").write_text("{")
        with pytest.raises(LimbeckError):
            models.load("m")
        assert ask(models) == before
        assert models.ready
        assert threading.active_count() == threads
        assert models.index()[0]["reason"]


def test_a_leased_model_is_not_taken_down(two: tuple[Path, Path]) -> None:
    with repository({"m": two[0]}) as models:
        with models.lease() as model:
            taking = threading.Thread(target=models.unload, args=("m",))
            taking.start()
            while models.versions("m"):
                time.sleep(0.002)
            with pytest.raises(NotFound):
                ask(models)
            assert len(asyncio.run(model.ask([{"text": "still"}]))["logits"]) == 1
            assert taking.is_alive()
        taking.join(5)
        assert not taking.is_alive()


def test_draining_refuses_what_comes_and_stops_the_threads(two: tuple[Path, Path]) -> None:
    with repository({"m": two[0]}) as models:
        ask(models)
        models.leave()
        assert not models.ready
        ask(models)  # callers that have not noticed are still answered
        assert models.drain(5)
        with pytest.raises(Draining):
            ask(models)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("run-m")]


def test_a_watcher_undoes_no_unloading(two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is unloaded after the watcher has looked at its folder, and before it loads it."""
    folder, looks, over = shutil.copytree(two[0], tmp_path / "m"), [], threading.Event()
    with repository({"m": folder}) as models:

        def looked(place: Path) -> Any:
            looks.append(place)
            if len(looks) == 2:
                models.unload("m")
                over.set()
            return stamp_of(place)

        replace(folder, two[1])
        monkeypatch.setattr("limbeck.serving.repository.stamp_of", looked)
        models.watch(0.01)
        assert over.wait(10)
        models.leave()
        assert models._watcher is not None
        models._watcher.join(20)  # what it was about to do is done
        assert models.versions("m") == []
        assert models.index()[0]["reason"] == "unloaded"


def test_of_a_model_that_was_unloaded_no_new_version_is_served(two: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "m" / "1")
    with repository({"m": tmp_path / "m"}) as models:
        models.unload("m")
        shutil.copytree(two[1], tmp_path / "m" / "2")
        models.watch(0.01)
        end = time.monotonic() + 10
        while len(models.index()) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        assert [(each["version"], each["reason"]) for each in models.index()] == [("1", "unloaded"), ("2", "unloaded")]
        assert models.versions("m") == []
        models.load("m")
        assert models.versions("m") == ["1", "2"]
