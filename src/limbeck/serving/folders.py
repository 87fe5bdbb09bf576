"""Which folder of what is given is served, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from limbeck.core.errors import ModelError
from limbeck.runtime import CARD, read_card
from limbeck.runtime.guess import refuse_old, student_folder
from limbeck.serving.repository import versions_in

_IN_A_RUN = ("compress/student", "export/onnx", "export/openvino", "train/student")
"""Where a run may have what can be served; an export is of the compressed student where there is one."""


_ENGINES = {"pytorch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
"""What runs a format."""


@dataclass(frozen=True)
class Served:
    """A folder and the name that it is served under."""

    name: str
    folder: Path


def served(word: str, engine: str = "auto", name: str | None = None) -> Served:
    """What a word of the command line means: a run, a student's folder or one of versions, perhaps as NAME=FOLDER.

    Args:
        word: as it is written.
        engine: that will run it.
        name: to serve it under; left out: the one in the word, or the folder's.

    Raises:
        ModelError: there is nothing to serve.
    """
    before, equals, after = word.partition("=")
    given = Path(after) if equals and before and "/" not in before else Path(word)
    told = name or (before if given == Path(after) and equals else given.resolve().name)
    if not given.is_dir():
        raise ModelError(f"there is no folder {given}", fix="a run, or a student's folder")
    if (given / "recipe.json").is_file():
        return Served(told, _in_a_run(given, engine))
    if list(versions_in(given)) != ["1"] or versions_in(given)["1"] != given:
        return Served(told, given)
    return Served(told, student_folder(given))


def _in_a_run(run: Path, engine: str) -> Path:
    for inside in _IN_A_RUN:
        folder = run / inside
        if (folder / CARD).is_file() or (folder / "config.json").is_file():
            kind = read_card(folder).format if (folder / CARD).is_file() else "pytorch"
            if engine in ("auto", _ENGINES.get(kind)):
                refuse_old(run, folder)
                return folder
    allowed = ", ".join(_IN_A_RUN)
    raise ModelError(f"the run {run} has nothing that can be served", got=f"engine {engine}", allowed=allowed)
