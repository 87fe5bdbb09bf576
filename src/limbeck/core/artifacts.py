"""Artifacts: what a pipeline step leaves behind, whole or not at all.

    <output>/<step>/...            files of the step
    <output>/<step>/manifest.json  kind, sha256 and bytes of every file, parents, inputs, versions, counts
    <output>/.<step>.partial/      a step at work; it outlives a kill, so that the step can go on
    <output>/.lock                 held while a process writes here

A step's folder appears by one rename after everything in it, the manifest last, has reached the disk.
The manifest carries a digest of itself and of all files, so that one flipped bit anywhere is noticed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from limbeck._version import __version__
from limbeck.core.errors import ArtifactError

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Artifact:
    """A finished step: its folder and what its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Identity of the artifact: changes with any of its files, inputs or parents."""
        return str(self.manifest["digest"])

    def file(self, name: str) -> Path:
        """A file of the artifact by its name in the manifest."""
        if name not in self.manifest["files"]:
            raise ArtifactError(f"{self.path} holds no '{name}'", allowed=", ".join(self.manifest["files"]))
        return self.path / name


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """Hex digest of a JSON value, the same for any order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new and nothing between."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_atomically(path, _json_text(value))


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def load(path: Path) -> Artifact:
    """Read an artifact and check every byte of it.

    Raises:
        ArtifactError: there is none, or a file is missing, added to, cut short or changed.
    """
    manifest = read_manifest(path)
    for name, entry in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ArtifactError(f"{path} is damaged: {name} is missing", fix=f"remove {path} and run again")
        if file.stat().st_size != entry["bytes"] or sha256_of(file) != entry["sha256"]:
            raise ArtifactError(f"{path} is damaged: {name} has changed", fix=f"remove {path} and run again")
    return Artifact(path, manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an artifact, checked against its own digest (the files are not read)."""
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
        manifest: dict[str, Any] = json.loads(text)
    except FileNotFoundError:
        raise ArtifactError(f"there is no finished artifact at {path}", fix="run the step before this one") from None
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {MANIFEST} is not JSON", fix=f"remove {path} and run again") from error
    body = {k: v for k, v in manifest.items() if k != "digest"} if isinstance(manifest, dict) else {}
    # The text too, for a flipped bit can leave the values as they are: 1e-05 and 1E-05 are one number.
    if not body or digest_of(body) != manifest.get("digest") or text != _json_text(manifest):
        raise ArtifactError(f"{path} is damaged: {MANIFEST} has changed", fix=f"remove {path} and run again")
    return manifest


def versions() -> dict[str, str]:
    """limbeck, Python and the libraries that decide a run's numbers."""
    found = {"limbeck": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold a run's folder for this process alone; the system frees the lock of a process that died.

    Raises:
        ArtifactError: another process holds it; its PID is named.
    """
    output.mkdir(parents=True, exist_ok=True)
    owner = output / ".lock.owner"
    lock = FileLock(output / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        try:
            holder = owner.read_text().strip()
        except OSError:  # the holder has only just begun, or is about to end
            holder = "unknown"
        raise ArtifactError(f"{output} is in use by another run", got=f"process {holder}", fix="wait for it") from None
    try:
        write_atomically(owner, str(os.getpid()))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def step(
    output: Path,
    name: str,
    *,
    inputs: Mapping[str, Any],
    parents: Mapping[str, Artifact],
    work: Callable[[Path], Mapping[str, Any]],
    force: bool = False,
) -> tuple[Artifact, bool]:
    """Run a pipeline step, or skip it because nothing it depends on has changed.

    Args:
        output: the run's folder.
        name: the step's name; its artifact is `<output>/<name>`.
        inputs: JSON values that the result depends on (recipe sections, data fingerprints).
        parents: artifacts that it is made from.
        work: makes the files in the folder it is given and returns what the manifest should tell
            (counts, scores, licences). The folder holds what an interrupted try with the same inputs left;
            hidden entries in it are scratch and not part of the artifact.
        force: do the work even if it is up to date.

    Returns:
        The artifact, and whether the work was done now.

    Raises:
        ArtifactError: a finished artifact is damaged, something else stands in its place, or the disk is full.
    """
    final, partial = output / name, output / f".{name}.partial"
    lineage = {parent: artifact.digest for parent, artifact in parents.items()}
    fingerprint = digest_of({"step": name, "inputs": inputs, "parents": lineage, "limbeck": __version__})
    _put_back(final)
    if not force and _made_from(final) == fingerprint:
        return load(final), False
    _refuse_strangers(final)
    with _full_disk_explained(output):
        if force or _made_from(partial) != fingerprint:  # else: a kill came just before the last rename
            _open_partial(partial, fingerprint, keep=not force)
            began = time.time()
            told = dict(work(partial))
            facts = {
                "kind": name,
                "fingerprint": fingerprint,
                "parents": lineage,
                "inputs": inputs,
                "versions": versions(),
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.time() - began, 3),
            }
            seal(partial, {**facts, **told})
        _swap(partial, final)
    return load(final), True


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a folder's manifest: what is told of it, and bytes and sha256 of every file, all on the disk."""
    manifest = json.loads(json.dumps({**facts, "files": _inventory(folder)}))
    write_json(folder / MANIFEST, {**manifest, "digest": digest_of(manifest)})


def _made_from(folder: Path) -> str | None:
    """The fingerprint of a finished artifact, None where there is none."""
    return str(read_manifest(folder)["fingerprint"]) if (folder / MANIFEST).exists() else None


def _mark(partial: Path) -> Path:
    return partial.with_suffix(".fingerprint")


def _open_partial(partial: Path, fingerprint: str, keep: bool) -> None:
    """A folder to work in: the one of an interrupted try if it had the same inputs, else an empty one."""
    mark = _mark(partial)
    if not (keep and mark.exists() and mark.read_text() == fingerprint):
        mark.unlink(missing_ok=True)  # first, so that a folder half removed is never taken for one to go on with
        if partial.exists():
            shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / MANIFEST).unlink(missing_ok=True)
    write_atomically(mark, fingerprint)


@contextmanager
def _full_disk_explained(output: Path) -> Iterator[None]:
    """Libraries report a full disk in their own ways; say it in ours."""
    try:
        yield
    except Exception as error:
        if "No space left on device" in str(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space and run again; finished steps are kept"
            raise ArtifactError(f"the disk that holds {output} is full", fix=fix) from error
        raise


def _inventory(folder: Path) -> dict[str, Any]:
    """Every file but the hidden ones, which are scratch; bytes and names are brought to the disk."""
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    files = [folder / name for name in names if not any(part.startswith(".") for part in name.parts)]
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for place in sorted({parent for path in files for parent in path.parents if folder in parent.parents}):
        sync_folder(place)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }


def _swap(partial: Path, final: Path) -> None:
    """Put the new folder in the old one's place; a kill between the renames is mended by the next run."""
    old = _old(final)
    _discard(old)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    sync_folder(final.parent)
    _mark(partial).unlink(missing_ok=True)
    for scratch in [old, *final.glob(".*")]:
        _discard(scratch)


def _old(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _put_back(final: Path) -> None:
    """Mend a kill between the renames of `_swap`: until the new artifact is in place, the old one is the artifact."""
    if not final.exists() and (_old(final) / MANIFEST).exists():
        _old(final).rename(final)


def _discard(path: Path) -> None:
    """Remove a file or a folder, its manifest first: a folder half removed must not be put back."""
    if path.is_dir() and not path.is_symlink():
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _refuse_strangers(final: Path) -> None:
    """A folder without a manifest is not ours, perhaps the user's data: it is never moved or removed."""
    if final.exists() and not (final / MANIFEST).exists() and not (final.is_dir() and not any(final.iterdir())):
        what = f"{final} is in the way: it has no {MANIFEST}, so it is no finished step"
        raise ArtifactError(what, fix=f"choose another `output`, or remove {final} if it is not needed")


def sync_folder(folder: Path) -> None:
    """Bring renames inside a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
