"""The models of a cascade: their classes, in whose order they answer, and how they are loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.models.load import folder_digest
from limbeck.runtime.card import write_card
from limbeck.runtime.cascade import FILE, Member, Plan, load_member, read_plan, write_plan
from tests.runtime.students import BERT, LABELS, TEXT, student

PLAN: dict[str, Any] = {"threshold": 0.8, "promise": "accuracy", "target": 0.9, "level": 0.95, "n": 9}
PLAN |= {"temperature_rows": 3, "task": TEXT, "labels": LABELS, "timeout": 5.0, "max_waiting": 4, "budget": {}}


def with_names(folder: Path, names: tuple[str, ...]) -> None:
    """A plain folder whose config names its classes so."""
    student(folder, TEXT, BERT)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(i): name for i, name in enumerate(names)}
    config["label2id"] = {name: i for i, name in enumerate(names)}
    (folder / "config.json").write_text(json.dumps(config))


def planned(folder: Path, **fields: Any) -> tuple[Plan, Member]:
    member = Member(name="large", folder=str(folder), weights=folder_digest(folder), **fields)
    return Plan(**PLAN, members=(Member(name="student", folder="x"), member)), member


@pytest.mark.parametrize("by_card", [False, True])
@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("dog", "cat", "bird"), "has the classes in another order"),
        (("cat", "dog", "fish"), "knows other classes"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "does not name its classes"),
    ],
)
def test_another_order_of_classes_is_refused(tmp_path: Path, by_card: bool, names: tuple[str, ...], said: str) -> None:
    with_names(tmp_path, names)
    if by_card:
        card = replace(student(tmp_path / "other", TEXT, BERT), labels=names)
        write_card(card, tmp_path)
    plan, member = planned(tmp_path)

    with pytest.raises(ModelError, match=f"`large` {said}") as refused:
        load_member(tmp_path, plan, member)
    assert refused.value.got == f"{', '.join(names)} (3)"
    assert refused.value.allowed == "cat, dog, bird (3)"
    assert refused.value.fix


def test_a_member_is_loaded_as_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student(tmp_path / "model", TEXT, BERT)
    plan, member = planned(tmp_path / "model", dtype="bfloat16")
    (tmp_path / "cascade").mkdir()
    write_plan(plan, tmp_path / "cascade")
    assert read_plan(tmp_path) == plan

    assert load_member(tmp_path, plan, member).runner.model.dtype == torch.bfloat16  # type: ignore[attr-defined]

    asked: list[Any] = []
    monkeypatch.setattr("limbeck.runtime.cascade.load_config", lambda spec: asked.append(spec) or _refuse())
    hub = replace(member, folder="org/name", weights=None, revision="c0ffee", trust_remote_code=True)
    with pytest.raises(ModelError, match="not here"):
        load_member(tmp_path, plan, hub)
    spec = asked[0]
    assert (spec.model, spec.revision, spec.dtype) == ("org/name", "c0ffee", "bfloat16")
    assert spec.trust_remote_code is True


def _refuse() -> None:
    raise ModelError("not here")


@pytest.mark.parametrize("change", [{"threshold": "high"}, {"members": [{"name": "a", "colour": 1}]}, {"labels": 3}])
def test_a_damaged_plan_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    student(tmp_path / "model", TEXT, BERT)
    (tmp_path / "cascade").mkdir()
    write_plan(planned(tmp_path / "model")[0], tmp_path / "cascade")
    told = json.loads((tmp_path / "cascade" / FILE).read_text())
    (tmp_path / "cascade" / FILE).write_text(json.dumps(told | change))

    with pytest.raises(ModelError, match=r"threshold\.json cannot be read"):
        read_plan(tmp_path)
