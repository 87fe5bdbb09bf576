"""What is known of a cascade once it is fitted: `threshold.json`, from which it is run.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.models.load import folder_digest, load_config
from limbeck.runtime.card import CARD, Card, read_card
from limbeck.runtime.student import ServedStudent, codec_of, in_torch, runner_of
from limbeck.tasks import class_names

FILE = "threshold.json"
"""Name of the file, in a run's `cascade/`."""
_EXACT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of a cascade.

    Attributes:
        name: what answers name it by.
        folder: its weights: a folder inside of the run or elsewhere, or a hub name; None for an endpoint.
        temperature: what its logits are divided by before the softmax.
        weights: digest of the folder's files; None for a hub name or an endpoint.
        revision: of a hub name, the commit.
        dtype: of the weights in memory.
        trust_remote_code: whether the model's own code is run, as the recipe allows.
        asked: of an endpoint, its section of the recipe.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    name: str
    folder: str | None = None
    temperature: float = 1.0
    weights: str | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trust_remote_code: bool = False
    asked: Mapping[str, Any] | None = None

    def spec(self, place: Path) -> Model:
        """What is loaded from its place, in torch."""
        code = self.trust_remote_code
        return Model(model=str(place), revision=self.revision, dtype=self.dtype, trust_remote_code=code)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A fitted cascade.

    Attributes:
        threshold: a model that is less sure than this leaves a row to the next one.
        promise: what is kept with that.
        target: its figure.
        level: the chance with which it is kept.
        n: rows that it was fitted on.
        temperature_rows: other rows, on which temperatures were fitted.
        task: as a recipe gives it.
        labels: the classes.
        members: the student first.
        timeout: seconds that a server waits for the models behind the student.
        max_waiting: rows that wait for an endpoint at most.
        budget: what a server may spend on endpoints: tokens and cost.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _EXACT

    threshold: float
    promise: str
    target: float
    level: float
    n: int
    temperature_rows: int
    task: dict[str, Any]
    labels: tuple[str, ...]
    members: tuple[Member, ...]
    timeout: float
    max_waiting: int
    budget: dict[str, Any]

    @property
    def temperatures(self) -> dict[str, float]:
        """Of the models that have weights here."""
        return {each.name: each.temperature for each in self.members if each.folder is not None}


def write_plan(plan: Plan, folder: Path) -> None:
    """Put it into an artifact's folder."""
    write_json(folder / FILE, {**asdict(plan), "temperatures": plan.temperatures})


def read_plan(run: Path) -> Plan:
    """The cascade of a run.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    path = run / "cascade" / FILE
    if not path.is_file():
        raise ModelError(f"{run} has no cascade", fix="a section `cascade` in its recipe, and limbeck cascade RECIPE")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        del said["temperatures"]
        return _READ.validate_python(said)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} cannot be read", got=str(error), fix="limbeck cascade RECIPE --force") from error


_READ = TypeAdapter(Plan)
"""How a plan is read, type by type."""


def place_of(run: Path, member: Member) -> Path:
    """Where a member's weights lie; a hub name stays one."""
    assert member.folder is not None
    inside = run / member.folder
    return inside if inside.is_dir() else Path(member.folder)


_NAMELESS = re.compile(r"LABEL_\d+")
"""What transformers calls classes that nobody has named."""


def check_classes(name: str, given: Sequence[str], wanted: Sequence[str]) -> None:
    """See that a model's logits stand for the classes, in their order: else it would answer with other classes.

    Args:
        name: of the model.
        given: its classes, by its card or its config.
        wanted: those of the data.

    Raises:
        ModelError: they are others, in another order, or have no names.
    """
    if tuple(given) == tuple(wanted):
        return
    got, allowed = (f"{', '.join(names[:6])} ({len(names)})" for names in (given, wanted))
    fix = "a model that was trained on these classes, in this order"
    if given and all(_NAMELESS.fullmatch(each) for each in given):
        what = f"`{name}` does not name its classes, so that nobody knows which logit is which class"
        fix = "write their names into `id2label` of its config.json, in the order of its logits"
    elif sorted(given) == sorted(wanted):
        what = f"`{name}` has the classes in another order than the cascade"
    else:
        what = f"`{name}` knows other classes than the cascade"
    raise ModelError(what, got=got, allowed=allowed, fix=fix)


def member_card(place: Path, member: Member, task: Mapping[str, Any], labels: Sequence[str]) -> Card:
    """How a member with weights is asked: by its card, else as the cascade's task is.

    Args:
        place: its folder, or a hub name.
        member: which one.
        task: of the cascade, as a recipe gives it.
        labels: of the cascade.

    Raises:
        ModelError: its classes are not those of the cascade, in their order.
    """
    if (place / CARD).is_file():
        card = read_card(place)
        check_classes(member.name, card.labels or (), labels)
        return card
    check_classes(member.name, class_names(load_config(member.spec(place))), labels)
    return Card(task=dict(task), labels=tuple(labels))


def tempered(plan: Plan, member: Member, student: ServedStudent) -> ServedStudent:
    """A model as the cascade was fitted with it: its confidence by the cascade's own temperature.

    Raises:
        ModelError: it has other classes.
    """
    check_classes(member.name, student.labels, plan.labels)
    return ServedStudent(replace(student.card, temperature=member.temperature), student.codec, student.runner)


def check_weights(plan: Plan, member: Member, folder: Path) -> None:
    """See that a member is the model that the cascade was fitted with: for another one, nothing is promised.

    Raises:
        ModelError: its files have changed.
    """
    if member.weights is not None and folder_digest(folder) != member.weights:
        what = f"`{member.name}` is not the model that the cascade was fitted with"
        raise ModelError(what, got=str(folder), fix="limbeck cascade RECIPE")


def load_member(
    run: Path, plan: Plan, member: Member, *, threads: int | None = None, device: str = "auto"
) -> ServedStudent:
    """A model of a cascade that has weights.

    Raises:
        ModelError: it cannot be loaded, or is not what the cascade was fitted with.
    """
    place = place_of(run, member)
    check_weights(plan, member, place)
    card = member_card(place, member, plan.task, plan.labels)
    return tempered(plan, member, student_of(place, member, card, threads=threads, device=device))


def student_of(
    place: Path, member: Member, card: Card, *, threads: int | None = None, device: str = "auto"
) -> ServedStudent:
    """A member's model, the same where the cascade is fitted and where it is served.

    Args:
        place: its folder, or a hub name.
        member: which one.
        card: how it is asked, from `member_card`.
        threads: of one request.
        device: cpu, cuda, or `auto`.

    Raises:
        ModelError: it cannot be loaded.
    """
    if card.format == "pytorch":
        return in_torch(member.spec(place), card, threads=threads, device=device)
    codec = codec_of(place, card)
    return ServedStudent(card, codec, runner_of(place, card, codec, threads=threads, device=device))
