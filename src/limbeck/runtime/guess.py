"""What a plain Hugging Face folder says of itself, where no card tells how it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import MANIFEST, read_manifest
from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import load_config
from limbeck.runtime.card import CARD, Card, read_card
from limbeck.tasks import class_names

TASKS = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}
"""The task of a model, by how its class's name ends."""


def task_of(architectures: Iterable[str]) -> str | None:
    """The task of a model by the names of its classes; None where they do not tell."""
    for name in architectures:
        for ending, task in TASKS.items():
            if name.endswith(ending):
                return task
    return None


def card_of(folder: Path, task: dict[str, Any] | None = None) -> Card:
    """The card of a folder, or the one that a plain Hugging Face folder would have.

    Args:
        folder: of a student.
        task: what a folder without a card does, as recipes say it; left out: what its config tells.

    Raises:
        ModelError: it is no student's folder, or its config does not tell its task.
    """
    if (folder / CARD).is_file():
        return read_card(folder)
    if not (folder / "config.json").is_file():
        fix = "a Hugging Face folder, or one that limbeck export wrote"
        raise ModelError(f"there is no student in {folder}", got=f"neither {CARD} nor config.json", fix=fix)
    config = load_config(Model(model=str(folder)))
    name = task_of(config.architectures or [])
    if task is None and name is None:
        raise ModelError(
            f"{folder} does not tell what its model does",
            got=", ".join(config.architectures or []) or "a config without architectures",
            allowed=", ".join(sorted(set(TASKS.values()))),
            fix=f"limbeck export {folder} --task text-classification writes a {CARD}",
        )
    task = dict(task) if task is not None else {"type": name}
    longest = getattr(config, "max_position_embeddings", None)
    kind = str(task["type"]).replace("_", "-")
    if "max_length" not in task and kind != "image-classification" and isinstance(longest, int):
        room = longest - 2 if config.model_type in _SHIFTED else longest
        task["max_length"] = min(room, 512) if kind == "text-classification" else room
    names = class_names(config) if kind.endswith("classification") else None
    return Card(task=task, labels=names, precision=PRECISIONS.get(str(config.dtype).removeprefix("torch."), "fp32"))


_SHIFTED = ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xlm-roberta-xl")
"""Models whose positions begin behind that of the padding: two of their places are never used."""
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
"""What a card says of weights, by torch's name of their type."""


def student_folder(where: Path) -> Path:
    """The student's folder in what is given: the folder itself, an artifact with it, or a run.

    Raises:
        ModelError: there is none.
    """
    for inside in ("", "student", "compress/student", "train/student"):
        if any((where / inside / name).is_file() for name in (CARD, "config.json")):
            refuse_old(where, where / inside)
            return where / inside
    allowed = "a Hugging Face folder, one with a card, an artifact `train` or `compress`, or a run's folder"
    hint = "this run has not trained a student yet" if (where / "recipe.json").is_file() else None
    raise ModelError(f"there is no student in {where}", got=hint, allowed=allowed)


def refuse_old(run: Path, folder: Path) -> None:
    """Make sure that what a run made of its student is made of the student that it has now.

    Args:
        run: its folder; other folders are let through.
        folder: a student in it.

    Raises:
        ModelError: the student was trained, or compressed, again since.
    """
    for made in (each for each in (folder, *folder.parents) if run in each.parents and (each / MANIFEST).is_file()):
        for name, digest in read_manifest(made).get("parents", {}).items():
            if (run / name / MANIFEST).is_file() and read_manifest(run / name)["digest"] != digest:
                what = f"{made} was made of another student than {run / name} has now"
                raise ModelError(what, fix="limbeck run brings it up to date; or remove the folder")
