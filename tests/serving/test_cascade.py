"""A cascade behind a server: who answers, what is told when nobody does, and what is kept."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError
from limbeck.models.load import folder_digest
from limbeck.runtime.cascade import Member, Plan, read_plan, write_plan
from limbeck.runtime.student import Answer, load_student
from limbeck.serving.batching import Limits
from limbeck.serving.cascade import Cascade, CascadeModel, Missed, Next, Told, load_cascade, load_first
from limbeck.serving.feedback import open_feedback
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings
from tests.pipeline.endpoint import serving
from tests.runtime.students import LABELS, TEXT
from tests.serving.serving import Serving, make_text

httpx = pytest.importorskip("httpx")
TEXTS = [f"the {'word ' * (1 + i % 5)} of {i * 7}" for i in range(24)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, and a teacher with another head."""
    home = tmp_path_factory.mktemp("run")
    for name in ("train/student", "prepare/teacher"):
        (home / name).mkdir(parents=True)
        make_text(home / name)
    weights = home / "prepare/teacher/model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.weight"] = -tensors["classifier.weight"]
    save_file(tensors, weights, {"format": "pt"})
    return home


def planned(run: Path, threshold: float | None = None, **fields: Any) -> Plan:
    """A cascade that is sure of about half of the texts."""
    student = load_student(run / "train/student")
    if threshold is None:
        threshold = float(np.median([answer.confidence for answer in student.predict(texts(TEXTS))]))
    members = [
        Member(name=name, folder=folder, weights=folder_digest(run / folder))
        for name, folder in (("student", "train/student"), ("teacher", "prepare/teacher"))
    ]
    known: dict[str, Any] = {"promise": "accuracy", "target": 0.9, "level": 0.95, "n": 9, "temperature_rows": 3}
    known |= {"task": TEXT, "labels": LABELS, "timeout": 5.0, "max_waiting": 4, "budget": {}}
    plan = Plan(**known | {"threshold": threshold, "members": tuple(members)} | fields)
    (run / "cascade").mkdir(exist_ok=True)
    write_plan(plan, run / "cascade")
    assert read_plan(run) == plan
    return plan


def texts(words: list[str]) -> Any:
    from limbeck.core.types import Sample

    return [Sample(str(i), {"text": text}) for i, text in enumerate(words)]


@contextmanager
def served(run: Path, *, keep: bool = False) -> Iterator[Serving]:
    """A server of the run with its cascade."""
    metrics, limits, plan = Metrics(), Limits(), read_plan(run)
    cascade = load_cascade(run, limits, metrics, feedback=open_feedback(run, metrics) if keep else None)
    make = partial(CascadeModel, cascade=cascade)
    models = Repository(lambda folder: load_first(plan, folder), limits, metrics, retire_seconds=5, make=make)
    models.add("cats", run / "train/student")
    made = Serving(models, Settings(port=0, linger=0.0, watch_seconds=None), metrics)
    try:
        yield made
    finally:
        made.stop()
        cascade.close()


def predict(made: Serving, words: list[str] = TEXTS) -> list[dict[str, Any]]:
    done = httpx.post(f"{made.url}/predict", json={"inputs": words}, timeout=30)
    assert done.status_code == 200, done.text
    return list(done.json()["predictions"])


def counted(made: Serving, name: str) -> dict[str, float]:
    lines = made.metrics.text().decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith(f"{name}_total{{")]
    return {label.partition("{")[2].rstrip("}"): float(value) for label, _, value in found}


def test_teacher_answers_what_the_student_is_unsure_of(run: Path) -> None:
    plan = planned(run)
    student = load_student(run / "train/student").predict(texts(TEXTS))
    teacher = load_student(run / "prepare/teacher").predict(texts(TEXTS))

    with served(run, keep=True) as made:
        found = predict(made)
        rows = counted(made, "limbeck_cascade_rows")

    unsure = [answer.confidence < plan.threshold for answer in student]
    expected = [after if asked else first for first, after, asked in zip(student, teacher, unsure, strict=True)]
    assert [each["label"] for each in found] == [answer.label for answer in expected]
    assert [each["by"] for each in found] == ["teacher" if asked else "student" for asked in unsure]
    assert all(each["missed"] == [] for each in found)
    assert found[0]["confidence"] == pytest.approx(expected[0].confidence, abs=1e-5)
    assert rows == {'by="student"': unsure.count(False), 'by="teacher"': unsure.count(True)}
    apart = {
        text: after.label
        for text, first, after, asked in zip(TEXTS, student, teacher, unsure, strict=True)
        if asked and first.label != after.label
    }
    kept = [json.loads(line) for line in (run / "feedback" / "feedback-000001.jsonl").read_text().splitlines()]
    assert {row["inputs"]["text"]: row["label"] for row in kept} == apart
    assert apart
    assert {row["by"] for row in kept} == {"teacher"}


def test_open_inference_protocol_tells_who_answered(run: Path) -> None:
    planned(run, threshold=1.1)
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXTS[0]]}
    with served(run) as made:
        plain = httpx.post(f"{made.url}/v2/models/cats/infer", json={"inputs": [text]}, timeout=30).json()
        told = httpx.get(f"{made.url}/v2/models/cats").json()
        with made.models.lease() as model:
            row = model.encode([{"text": TEXTS[0]}])[0]
        arrays = [{"name": k, "shape": [1, len(v)], "datatype": "INT64", "data": [v.tolist()]} for k, v in row.items()]
        own = httpx.post(f"{made.url}/v2/models/cats/infer", json={"inputs": arrays}, timeout=30).json()

    def of(reply: Mapping[str, Any], name: str) -> Any:
        return next(each["data"] for each in reply["outputs"] if each["name"] == name)

    assert {"by", "missed"} <= {each["name"] for each in told["outputs"]}
    assert (of(plain, "by"), of(plain, "missed")) == (["teacher"], [""])
    assert (of(own, "by"), of(own, "missed")) == (["student"], ["teacher: arrays"])


def endpoint_plan(run: Path, section: Mapping[str, Any], **fields: Any) -> Plan:
    from limbeck.core.recipe.cascade import Rung

    plan = planned(run)
    asked = Rung.model_validate({"endpoint": section}).model_dump(mode="json", exclude={"cost", "latency"})
    return planned(run, threshold=1.1, members=(plan.members[0], Member(name="large", asked=asked)), **fields)


def test_endpoint_that_fails_leaves_the_students_answer_and_a_word(run: Path) -> None:
    def reply(body: dict[str, Any]) -> str | int:
        said = str(body["messages"][-1]["content"])
        return 401 if "of 14" in said else "a fish" if "of 7\n" in f"{said}\n" else "bird"

    student = load_student(run / "train/student").predict(texts(TEXTS))
    with serving(reply) as endpoint:
        endpoint_plan(run, endpoint.section())
        with served(run) as made:
            found = [predict(made, [text])[0] for text in TEXTS[:3]]
            again = predict(made, [TEXTS[0]])[0]
            asked = len(endpoint.bodies)
            missed = counted(made, "limbeck_cascade_missed")
    assert (found[0]["label"], found[0]["by"], found[0]["missed"]) == ("bird", "large", [])
    assert found[0]["confidence"] == pytest.approx(float(student[0].probabilities[2]), abs=1e-5)
    for i, reason in ((1, "no_class"), (2, "refused")):
        assert (found[i]["label"], found[i]["by"]) == (student[i].label, "student")
        assert found[i]["missed"] == [f"large: {reason}"]
    assert again == found[0]
    assert asked == 3  # the same row is paid for once
    assert missed == {'model="large",reason="no_class"': 1.0, 'model="large",reason="refused"': 1.0}


def test_budget_holds_over_the_servers_life(run: Path) -> None:
    with serving(lambda _: "dog") as endpoint:
        endpoint_plan(run, {**endpoint.section(), "known_as": "budgeted"}, budget={"tokens": 600, "cost": None})
        (run / "cascade-ledger.sqlite").unlink(missing_ok=True)
        found = []
        for part in (TEXTS[:12], TEXTS[12:]):
            with served(run) as made:
                found += [predict(made, [text])[0] for text in part]
        asked = len(endpoint.bodies)

    over = [each for each in found if each["missed"] == ["large: budget"]]
    assert 0 < asked <= 12  # a second server would have as many again, if it did not know of the first
    assert len(over) == len(TEXTS) - asked
    assert {each["by"] for each in over} == {"student"}


def test_endpoints_of_a_server_share_one_budget(run: Path) -> None:
    with serving(lambda _: "dog") as endpoint:
        for ledger in run.glob("cascade-ledger*"):
            ledger.unlink()
        plan = endpoint_plan(run, {**endpoint.section(), "known_as": "first"}, budget={"tokens": 600, "cost": None})
        other = replace(plan.members[1], name="larger", asked={**plan.members[1].asked, "name": "larger"})  # type: ignore[dict-item]
        other.asked["endpoint"]["known_as"] = "second"  # type: ignore[index]
        write_plan(replace(plan, members=(*plan.members, other)), run / "cascade")
        with served(run) as made:
            found = [predict(made, [text])[0] for text in TEXTS[:14]]
        asked = len(endpoint.bodies)

    assert [path.name for path in run.glob("cascade-ledger*.sqlite")] == ["cascade-ledger.sqlite"]
    assert 2 <= asked * 15 <= 600
    assert found[-1]["missed"] == ["large: budget", "larger: budget"]


def test_slow_endpoint_is_not_waited_for(run: Path) -> None:
    import time

    def reply(_: Any) -> str:
        time.sleep(1.5)
        return "dog"

    with serving(reply) as endpoint:
        endpoint_plan(run, {**endpoint.section(), "known_as": "slow"}, timeout=0.3, max_waiting=2)
        with served(run) as made:
            began = time.monotonic()
            found = predict(made, TEXTS[:6])
            took = time.monotonic() - began
    reasons = sorted(each["missed"][0] for each in found)
    assert took < 1.4
    assert {each["by"] for each in found} == {"student"}
    assert reasons == ["large: expired"] * 2 + ["large: overloaded"] * 4


class Says(Next):
    """A model that says what it is told to."""

    def __init__(self, name: str, said: Mapping[str, tuple[str, float] | Missed]):
        self.name, self.said, self.asked = name, said, list[str]()

    async def answer(self, fields: Mapping[str, Any], before: Told, seconds: float) -> tuple[Answer, float] | Missed:
        self.asked.append(fields["text"])
        found = self.said[fields["text"]]
        if isinstance(found, Missed):
            return found
        return Answer(found[0], found[1], before.probabilities), found[1]

    def close(self) -> None:
        pass


def test_three_models_in_a_row(run: Path) -> None:
    plan = planned(run, threshold=0.8)
    middle = Says("middle", {"b": ("dog", 0.9), "c": ("dog", 0.5), "d": Missed("expired")})
    last = Says("last", {"c": ("bird", 0.1), "d": Missed("failed")})
    given = [Answer("cat", sure, np.full(3, 1 / 3, dtype=np.float32)) for sure in (0.8, 0.7, 0.7, 0.7)]

    found = asyncio.run(Cascade(plan, [middle, last], Metrics()).improve([{"text": t} for t in "abcd"], given, 5.0))

    assert [(each.label, each.by) for each in found] == [
        ("cat", "student"),
        ("dog", "middle"),
        ("bird", "last"),
        ("cat", "student"),
    ]
    assert found[3].missed == ("middle: expired", "last: failed")
    assert (middle.asked, last.asked) == (["b", "c", "d"], ["c", "d"])


def test_another_student_is_refused(run: Path, tmp_path: Path) -> None:
    plan = planned(run)
    shutil.copytree(run / "train/student", tmp_path / "other")
    load_first(plan, tmp_path / "other")
    write_json(tmp_path / "other" / "added.json", {})

    with pytest.raises(ModelError, match="not the model that the cascade was fitted with"):
        load_first(plan, tmp_path / "other")
    with pytest.raises(ModelError, match="has no cascade"):
        read_plan(tmp_path)
