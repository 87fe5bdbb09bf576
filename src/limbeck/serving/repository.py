"""The models of a server: names and versions, where they come from, and how one takes another's place."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limbeck.core.errors import LimbeckError, ModelError
from limbeck.runtime.student import ServedStudent
from limbeck.serving.batching import Limits
from limbeck.serving.bounds import bounds_in
from limbeck.serving.errors import Draining, NotFound
from limbeck.serving.metrics import Metrics
from limbeck.serving.model import Model

_LOG = logging.getLogger(__name__)
State = Literal["READY", "LOADING", "UNAVAILABLE"]
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass
class Entry:
    """A version that may be served.

    Attributes:
        folder: where it lies.
        model: what serves it; None while nothing does.
        state: of loading.
        reason: why it is not ready.
        stamp: of the files that `model` was made from.
        unloaded: whether somebody asked that it not be served.
    """

    folder: Path
    model: Model | None = None
    state: State = "UNAVAILABLE"
    reason: str = ""
    stamp: Stamp = ()
    unloaded: bool = False


class Repository:
    """Models by name and version.

    A version is loaded, warmed up, and only then put in the place of the one before, which finishes what it has
    begun; so no request is lost, and a version that cannot be loaded changes nothing.

    Args:
        load: makes a student out of a folder.
        limits: of every engine.
        metrics: told of all.
        retire_seconds: that a replaced model may take to finish.
        make: puts a student behind an engine.
    """

    def __init__(
        self,
        load: Callable[[Path], ServedStudent],
        limits: Limits,
        metrics: Metrics,
        *,
        retire_seconds: float = 30.0,
        make: Callable[[str, str, ServedStudent, Limits, Metrics], Model] = Model,
    ):
        self._make = make
        self._load, self._limits, self._metrics, self._seconds = load, limits, metrics, retire_seconds
        self._entries: dict[str, dict[str, Entry]] = {}
        self._roots: dict[str, Path] = {}
        self._lock = threading.Lock()  # of the entries
        self._changing = threading.RLock()  # one change at a time
        self._leaving = self._draining = False
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """Whether every model is served, but those that were unloaded."""
        with self._lock:
            models = [[e.model for e in versions.values() if not e.unloaded] for versions in self._entries.values()]
        served = [any(m is not None and m.engine.alive for m in versions) for versions in models if versions]
        return all(served) and not self._leaving

    def add(self, name: str, folder: Path) -> None:
        """Serve a folder under a name: a student, or versions of one in folders 1, 2, ...

        Raises:
            ModelError: the name is taken, or a version cannot be loaded.
        """
        if name in self._entries:
            raise ModelError(f"two models have the name `{name}`", fix="--name, or NAME=FOLDER")
        versions = versions_in(folder)
        with self._lock:
            self._entries[name] = {version: Entry(place) for version, place in versions.items()}
            self._roots[name] = folder
        for version in versions:
            self.load(name, version)

    def load(self, name: str, version: str | None = None) -> None:
        """Load a version, or all of a name, anew, and put it in the place of what is served.

        Raises:
            NotFound: there is no such model.
            ModelError: a folder cannot be loaded; what was served before still is.
        """
        for key in self._versions(name, version):
            self._exchange(name, key, self._entry(name, key))

    def unload(self, name: str, version: str | None = None) -> None:
        """Serve it no longer, once what it has begun is finished.

        Raises:
            NotFound: there is no such model.
        """
        with self._changing:
            for key in self._versions(name, version):
                entry = self._entry(name, key)
                with self._lock:
                    old, entry.model, entry.state, entry.reason = entry.model, None, "UNAVAILABLE", "unloaded"
                    entry.unloaded = True
                if old is not None:
                    self._metrics.forget(name, key)
                    old.retire(self._seconds)

    @contextmanager
    def lease(self, name: str | None = None, version: str | None = None) -> Iterator[Model]:
        """A model to ask; while it is held, it is not taken down.

        Args:
            name: left out: the first one.
            version: left out: the highest that is ready.

        Raises:
            NotFound: there is none of that name and version, or it is not loaded.
            Draining: the server is about to stop.
        """
        with self._lock:
            lease = self._find(name, version).lease()
            model = lease.__enter__()  # within the lock: it cannot be taken down in between
        try:
            yield model
        finally:
            lease.__exit__(None, None, None)

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are served."""
        with self._lock:
            return [key for key, entry in self._entries.get(name, {}).items() if entry.model is not None]

    def index(self) -> list[dict[str, str]]:
        """Name, version, state and reason of all."""
        with self._lock:
            return [
                {"name": name, "version": version, "state": entry.state, "reason": entry.reason}
                for name, versions in self._entries.items()
                for version, entry in versions.items()
            ]

    def watch(self, seconds: float) -> None:
        """Look at the folders from time to time; one that was replaced, and a new version, is loaded."""
        self._watcher = threading.Thread(target=self._watch, args=(seconds,), name="watch", daemon=True)
        self._watcher.start()

    def leave(self) -> None:
        """Be no longer ready, though what is asked is still answered."""
        self._stop.set()
        self._leaving = True

    def drain(self, seconds: float) -> bool:
        """Finish what has begun, and stop.

        Returns:
            Whether everything was done in time.
        """
        self.leave()
        with self._lock:
            self._draining = True
            models = [e.model for versions in self._entries.values() for e in versions.values() if e.model is not None]
        end = time.monotonic() + seconds
        done = [model.retire(max(0.0, end - time.monotonic())) for model in models]
        return all(done)

    def _find(self, name: str | None, version: str | None) -> Model:
        if self._draining:
            raise Draining("the server is about to stop")
        versions = self._entries.get(name or next(iter(self._entries), ""))
        if versions is None:
            raise NotFound("there is no such model")
        served = {key: entry.model for key, entry in versions.items() if entry.model is not None}
        if version is None and served:
            return served[max(served, key=int)]
        if version is None or version not in versions:
            raise NotFound("the model has no such version" if version else "no version of the model is loaded")
        if version not in served:
            raise NotFound("this version of the model is not loaded")
        return served[version]

    def _versions(self, name: str, version: str | None) -> list[str]:
        with self._lock:
            versions = self._entries.get(name)
            if versions is None or (version is not None and version not in versions):
                raise NotFound("there is no such model")
            return [version] if version is not None else list(versions)

    def _entry(self, name: str, version: str) -> Entry:
        with self._lock:
            return self._entries[name][version]

    def _exchange(self, name: str, version: str, entry: Entry) -> None:
        with self._changing:
            stamp = stamp_of(entry.folder)
            with self._lock:
                if entry.model is None:
                    entry.state = "LOADING"
            try:
                new = self._made(name, version, entry.folder)
            except Exception as error:
                with self._lock:
                    entry.stamp = stamp  # it is tried again when the folder changes once more
                    entry.reason = error.what if isinstance(error, LimbeckError) else "loading failed"
                    if entry.model is None:
                        entry.state = "UNAVAILABLE"
                raise
            with self._lock:
                old, entry.model, entry.stamp = entry.model, new, stamp
                entry.state, entry.reason, entry.unloaded = "READY", "", False
            self._metrics.watch(name, version, new.engine)
            _LOG.info("loaded", extra={"model": name, "version": version, "engine": new.student.runner.engine})
            if old is not None:
                old.retire(self._seconds)

    def _made(self, name: str, version: str, folder: Path) -> Model:
        model = self._make(name, version, self._load(folder), self._limits, self._metrics)
        try:
            model.bounds = bounds_in(folder)
            model.warm_up()
        except BaseException:
            model.retire(0)
            raise
        return model

    def _watch(self, seconds: float) -> None:
        before: Mapping[tuple[str, str], Stamp] = {}
        while not self._stop.wait(seconds):
            self._discover()
            with self._lock:
                names = list(self._entries.items())
                entries = {(n, v): e for n, versions in names for v, e in versions.items() if not e.unloaded}
            now = {key: stamp_of(entry.folder) for key, entry in entries.items()}
            for key, entry in entries.items():
                # Changed, and at rest since the last look: nobody is still writing.
                if now[key] and now[key] != entry.stamp and now[key] == before.get(key):
                    try:
                        with self._changing:
                            if not entry.unloaded:  # since it was looked at
                                self._exchange(*key, entry)
                    except Exception as error:
                        kind = type(error).__name__
                        _LOG.error("not loaded", extra={"model": key[0], "version": key[1], "error": kind})
            before = now

    def _discover(self) -> None:
        """New versions beside those that are known; one whose folder is gone is served on."""
        for name, root in self._roots.items():
            known = self._entries[name]
            if "1" in known and known["1"].folder == root:  # no folder of versions
                continue
            try:
                found = versions_in(root)
            except (ModelError, OSError):  # somebody is replacing it right now
                continue
            with self._lock:  # not while a disk is asked: callers wait for it
                unloaded = all(entry.unloaded for entry in known.values())  # and so its new versions are not wanted
                for version, folder in found.items():
                    if folder != root and version not in known:
                        known[version] = Entry(folder, reason="unloaded" if unloaded else "", unloaded=unloaded)


def versions_in(folder: Path) -> dict[str, Path]:
    """A folder's versions: its folders with numbers for names, or itself as version 1.

    Raises:
        ModelError: it is no folder.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no folder {folder}")
    found = {each.name: each for each in folder.iterdir() if each.name.isdecimal() and each.is_dir()}
    return dict(sorted(found.items(), key=lambda pair: int(pair[0]))) or {"1": folder}


def stamp_of(folder: Path) -> Stamp:
    """What tells a folder's files from others of the same names; empty while there is no folder."""
    try:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    except OSError:  # somebody is replacing it right now
        return ()
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
