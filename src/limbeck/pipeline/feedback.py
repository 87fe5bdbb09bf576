"""The next round: a recipe that also learns from what its server has kept.

<run>/feedback/                 rows on which student and larger models disagreed, as they came
<run>-round-2/feedback.jsonl    those of them that the round learns from: they stay as they are while a server goes on
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from limbeck.core.progress import is_main_process, say
from limbeck.core.recipe import Recipe, Teacher
from limbeck.data.feedback import FOLDER, files_of, snapshot
from limbeck.pipeline._teaching import all_teachers, folder_of

_ROUND = re.compile(r"(.*)-round-(\d+)")


def next_round(recipe: Recipe, force: bool = False) -> Recipe:
    """The recipe of the next round, in a folder of its own; rows of the rounds before are learned from again.

    Teachers that this run has fine-tuned are taken as they are: the labels are theirs.

    Args:
        recipe: of the run whose server has kept rows.
        force: take the rows as they are now, even if the round has begun.

    Raises:
        DataError: no rows were kept, or some are damaged.
    """
    folder = recipe.output / FOLDER
    files_of(folder)
    target = _after(recipe.output) / "feedback.jsonl"
    if target.exists() and not force:
        say(f"[bold]feedback[/bold]: the rows that this round began with, in {target}; --force takes those of now")
    elif is_main_process():
        before = [recipe.data.feedback] if recipe.data.feedback is not None else []
        count = snapshot([*before, folder], target)
        say(f"[bold]feedback[/bold]: {count:,} different rows, in {target}")
    changes: dict[str, Any] = {
        "output": target.parent,
        "data": recipe.data.model_copy(update={"feedback": target}),
        "teacher": _as_they_are(recipe),
    }
    return recipe.model_copy(update=changes)


def _after(output: Path) -> Path:
    found = _ROUND.fullmatch(output.name)
    name, number = (found[1], int(found[2]) + 1) if found else (output.name, 2)
    return output.with_name(f"{name}-round-{number}")


def _as_they_are(recipe: Recipe) -> Teacher | None:
    teachers = [_prepared(recipe.output, each, i) for i, each in enumerate(all_teachers(recipe.teacher))]
    return teachers[0].model_copy(update={"also": teachers[1:]}) if teachers else recipe.teacher


def _prepared(output: Path, teacher: Teacher, place: int) -> Teacher:
    folder = output / "prepare" / folder_of(place)
    if teacher.finetune is None or not (folder / "config.json").is_file():
        return teacher
    own = {"model": str(folder.resolve()), "config": None, "revision": None, "tokenizer": None, "finetune": None}
    return teacher.model_copy(update=own)
