"""Which folder of what is given is served, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from limbeck.core.errors import ModelError
from limbeck.runtime import CARD, read_card
from limbeck.runtime.guess import refuse_old, student_folder
from limbeck.runtime.student import engines_of
from limbeck.serving.repository import versions_in

_IN_A_RUN = ("compress/student", "export/onnx", "export/openvino", "train/student")
"""Where a run may have what can be served; an export is of the compressed student where there is one."""
_MARKS = (CARD, "config.json")
"""A folder with one of these holds a student."""


@dataclass(frozen=True)
class Served:
    """A folder and the name that it is served under."""

    name: str
    folder: Path


def named(word: str, name: str | None = None) -> tuple[str, Path]:
    """The name and the folder that a word of the command line tells, perhaps as NAME=FOLDER."""
    before, equals, after = word.partition("=")
    given = Path(after) if equals and before and "/" not in before else Path(word)
    return name or (before if given == Path(after) and equals else given.resolve().name), given


def served(word: str, engine: str = "auto", name: str | None = None) -> Served:
    """What a word of the command line means: a run, a student's folder or one of versions, perhaps as NAME=FOLDER.

    Args:
        word: as it is written.
        engine: that will run it.
        name: to serve it under; left out: the one in the word, or the folder's.

    Raises:
        ModelError: there is nothing to serve.
    """
    told, given = named(word, name)
    if not given.is_dir():
        raise ModelError(f"there is no folder {given}", fix="a run, or a student's folder")
    if (given / "recipe.json").is_file():
        return Served(told, _in_a_run(given, engine))
    if list(versions_in(given)) != ["1"] or versions_in(given)["1"] != given:
        return Served(told, given)
    return Served(told, student_folder(given))


def _in_a_run(run: Path, engine: str) -> Path:
    """Its first folder that the engine runs; before it one whose format is made for that engine."""
    there = [run / inside for inside in _IN_A_RUN if any((run / inside / name).is_file() for name in _MARKS)]
    kinds = {folder: read_card(folder).format if (folder / CARD).is_file() else "pytorch" for folder in there}
    engines = {folder: engines_of(kind) for folder, kind in kinds.items()}
    fits = [folder for folder in there if engine == "auto" or engine in engines[folder]]
    if fits:
        folder = next((each for each in fits if engines[each][:1] == (engine,)), fits[0])
        refuse_old(run, folder)
        return folder
    allowed = ", ".join(_IN_A_RUN)
    raise ModelError(f"the run {run} has nothing that can be served", got=f"engine {engine}", allowed=allowed)
