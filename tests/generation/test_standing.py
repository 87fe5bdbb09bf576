"""An endpoint that is asked for as long as a server lives: nothing twice, never too much at once, and it recovers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ArtifactError, RecipeError
from limbeck.core.recipe.endpoint import Endpoint as Section
from limbeck.generation import standing
from limbeck.generation.classes import class_request, read_class
from limbeck.generation.endpoint import behind
from limbeck.generation.ledger import Ledger
from limbeck.generation.standing import Standing
from limbeck.generation.types import Completion, Failure, Request
from tests.pipeline.endpoint import Endpoint, serving

LABELS = ("cat", "dog house", "bird")
PROMPT = "One of:\n{labels}\n---\n{text}"


@contextmanager
def asking(
    reply: Callable[[dict[str, Any]], str | int], path: Path | None = None, **fields: Any
) -> Iterator[tuple[Standing, Endpoint, Callable[[str], Request]]]:
    with serving(reply) as endpoint:
        section = Section.model_validate({**endpoint.section(), "known_as": "here"})
        made = Standing(replace(behind(section), wait_scale=0.0, attempts=2), path, **fields)
        try:
            yield made, endpoint, lambda text: class_request("", {"text": text}, LABELS, section, PROMPT, 8)
        finally:
            made.close()


def test_the_same_request_is_paid_for_once_at_a_time_and_ever(tmp_path: Path) -> None:
    gate = threading.Event()

    def reply(_: Any) -> str:
        gate.wait(10)
        return "cat"

    with asking(reply, tmp_path / "l.sqlite") as (made, endpoint, of):
        both = [made.ask(of("a")) for _ in range(2)]
        gate.set()
        assert {str(each.result(10).content) for each in both} == {"cat"}
        assert made.ask(of("a")).result(10) == both[0].result()
        assert len(endpoint.bodies) == 1
    with asking(reply, tmp_path / "l.sqlite") as (made, endpoint, of):
        assert isinstance(made.ask(of("a")).result(10), Completion)
        assert endpoint.bodies == []


def test_no_more_than_so_many_wait() -> None:
    gate = threading.Event()

    def reply(_: Any) -> str:
        gate.wait(10)
        return "cat"

    with asking(reply, max_waiting=3) as (made, _, of):
        asked = [made.ask(of(str(i))) for i in range(5)]
        assert [each.result(1).reason for each in asked[3:]] == ["overloaded"] * 2
        gate.set()
        assert all(isinstance(each.result(10), Completion) for each in asked[:3])
        assert isinstance(made.ask(of("6")).result(10), Completion)  # there is room again


def test_refusal_is_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    replies: list[str | int] = [401, "cat"]
    with asking(lambda _: replies.pop(0)) as (made, endpoint, of):
        assert made.ask(of("a")).result(10).reason == "refused"
        assert made.ask(of("b")).result(10).reason == "refused"
        assert len(endpoint.bodies) == 1  # it is left alone for a while
        made._refused_until = 0.0
        assert isinstance(made.ask(of("b")).result(10), Completion)
    assert standing._REFUSED_FOR > 0


def test_memory_does_not_grow_with_requests() -> None:
    with asking(lambda body: 400 if "odd" in str(body["messages"]) else "cat") as (made, _, of):
        for i in range(20):
            made.ask(of(f"{'odd' if i % 2 else 'even'} {i}")).result(10)
        account = made.account
        assert (len(account._known), len(account._lost), account.calls) == (0, 0, 0)
        assert account.held.tokens == 0
        assert account.spent.tokens == 10 * 15


def test_one_server_for_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite"), serving(lambda _: "cat") as endpoint:
        section = Section.model_validate(endpoint.section())
        with pytest.raises(ArtifactError, match="in use"):
            Standing(behind(section), tmp_path / "l.sqlite")


def test_missing_key_is_told_at_once() -> None:
    section = Section(base_url="http://127.0.0.1:9/v1", model="m", api_key="A_KEY_THAT_IS_NOT_SET")

    with pytest.raises(RecipeError, match="A_KEY_THAT_IS_NOT_SET is not set"):
        Standing(behind(section))


def test_places_in_a_users_text_are_text() -> None:
    section = Section(base_url="http://127.0.0.1:9/v1", model="m")

    asked = class_request("", {"text": "{labels} {text}", "text_pair": "b"}, LABELS, section, PROMPT, 8)

    assert asked.messages[0]["content"] == "One of:\ncat\ndog house\nbird\n---\n{labels} {text}\nb"
    assert asked.sampling.temperature == 0.0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("bird", "bird"),
        (" Dog House.\n", "dog house"),
        ('"cat"', "cat"),
        ("**cat**", "cat"),
        ("a cat", None),
        ("cat or bird", None),
        ("", None),
    ],
)
def test_answers_name_exactly_one_class(said: str, expected: str | None) -> None:
    found = read_class(Completion(said, None, "stop", 1, 1, "m"), LABELS)

    assert found == (expected or Failure("no_class"))


def test_labels_that_differ_in_case_alone_must_be_exact() -> None:
    labels = ("US", "us")

    assert read_class(Completion("us", None, "stop", 1, 1, "m"), labels) == "us"
    assert read_class(Completion("Us", None, "stop", 1, 1, "m"), labels) == Failure("no_class")
    assert read_class(Failure("timeout"), labels) == Failure("timeout")
