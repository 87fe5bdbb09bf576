"""deploy: a student with the files of the place that is to serve it.

<run>/deploy/<type>/    manifest, and what the place wants
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from limbeck._version import __version__
from limbeck.core import artifacts
from limbeck.core.artifacts import MANIFEST, Artifact, locked
from limbeck.core.errors import LimbeckError, RecipeError
from limbeck.core.parts import config_of
from limbeck.core.progress import say
from limbeck.models.load import folder_digest
from limbeck.runtime.card import Card
from limbeck.runtime.guess import card_of
from limbeck.serving.deploy import Deployment
from limbeck.serving.folders import served

PLACE = "deploy"
"""The deployments of a run are in this folder of it."""


def deploy_at(
    where: Path,
    deployments: Sequence[Deployment],
    *,
    output: Path | None = None,
    exported: Sequence[Path] = (),
    force: bool = False,
) -> dict[str, Artifact]:
    """Write what places want that are to serve a student.

    Args:
        where: a run's folder, or a student's.
        deployments: the places.
        output: the artifacts are `<output>/<type>`; left out: `deploy` in the run, or here.
        exported: exports of a plain folder's student; the first that a place takes goes there.
        force: write again what is up to date.

    Returns:
        By type, what was written.

    Raises:
        RecipeError: a place is named twice.
        ModelError: there is no student, or a place does not take it.
        ArtifactError: the student is damaged, or what was written is locked.
    """
    names = [each.type() for each in deployments]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"{twice[0]} is named twice", fix="one command for each, with -o")
    is_run = (where / "recipe.json").is_file()
    place = output or (where / PLACE if is_run else Path(PLACE))
    with locked(where if is_run and output is None else place):
        return {each.type(): _one(where, each, place, () if is_run else exported, force) for each in deployments}


def _one(where: Path, deployment: Deployment, place: Path, exported: Sequence[Path], force: bool) -> Artifact:
    student, card = _student(where, deployment, exported)
    name, kind = deployment.named(where), deployment.type()
    inputs = {
        "deployment": config_of(deployment),
        "name": name,
        "limbeck": __version__,
        "student": folder_digest(student),
        **deployment.depends(card),
    }
    work = partial(_work, deployment, student, card, name)
    say(f"[bold]deploy/{kind}[/bold]")
    made, done = artifacts.step(place, kind, inputs=inputs, parents=_parents(student), work=work, force=force)
    say(f"deploy/{kind}: {name}, {card.format} {card.precision}{'' if done else ', up to date'}")
    return made


def _student(where: Path, deployment: Deployment, exported: Sequence[Path]) -> tuple[Path, Card]:
    """The student that a place takes: of a run as it is served, of a plain folder its export or itself."""
    for folder in exported:
        card = card_of(folder)
        try:
            deployment.check(card)
        except LimbeckError:
            continue
        return folder, card
    folder = served(str(where.resolve()), deployment.engine).folder
    card = card_of(folder)
    deployment.check(card)
    return folder, card


def _parents(student: Path) -> dict[str, Artifact]:
    """The artifact that a student lies in, made sure to be whole; none of a plain folder."""
    for folder in (student, student.parent):
        if (folder / MANIFEST).is_file():
            return {folder.name: artifacts.load(folder)}
    return {}


def _work(deployment: Deployment, student: Path, card: Card, name: str, folder: Path) -> Mapping[str, Any]:
    for left in folder.iterdir():  # by a try that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    told = deployment.write(student, card, name, folder)
    return {
        "kind": "deploy",
        "place": deployment.type(),
        "model": name,
        "format": card.format,
        "precision": card.precision,
        "written": dict(told.facts),
        "notes": list(told.notes),
    }
