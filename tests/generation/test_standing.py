"""An endpoint that is asked for as long as a server lives: nothing twice, never too much at once, and it recovers."""

from __future__ import annotations

import stat
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
from limbeck.generation.budget import Budget, Price
from limbeck.generation.classes import class_request, read_class
from limbeck.generation.endpoint import behind
from limbeck.generation.ledger import Ledger
from limbeck.generation.standing import Standing, Till
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
        till = Till(path)
        made = Standing(replace(behind(section), wait_scale=0.0, attempts=2), till, **fields)
        try:
            yield made, endpoint, lambda text: asked_about({"text": text}, section)
        finally:
            made.close()
            till.close()


def asked_about(texts: dict[str, str], section: Section) -> Request:
    return class_request("", texts, LABELS, section, PROMPT, 8, roles=("text", "text_pair"))


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
        account = made.till.account
        assert (len(account._known), len(account._lost), account.calls) == (0, 0, 0)
        assert account.held.tokens == 0
        assert account.spent.tokens == 10 * 15


def test_one_server_for_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite"), pytest.raises(ArtifactError, match="in use"):
        Till(tmp_path / "l.sqlite")


def test_endpoints_share_one_budget_and_ledger(tmp_path: Path) -> None:
    """Together they may not spend what each of them alone could."""
    with serving(lambda _: "cat") as endpoint:
        sections = [Section.model_validate(endpoint.section(model=name)) for name in ("one", "two")]
        worst = Price().worst(asked_about({"text": "row 0"}, sections[0])).tokens
        till = Till(tmp_path / "l.sqlite", Budget(tokens=worst + 3 * 15))
        both = [Standing(behind(section), till) for section in sections]
        found = []
        for i in range(6):
            for standing_, section in zip(both, sections, strict=True):
                found.append(standing_.ask(asked_about({"text": f"row {i}"}, section)).result(10))
        for standing_ in both:
            standing_.close()
        till.close()
        answered = [each for each in found if isinstance(each, Completion)]
        assert len(answered) == 4
        assert {each.reason for each in found[4:]} == {"budget"}
        assert {body["model"] for body in endpoint.bodies} == {"one", "two"}
    with Ledger(tmp_path / "l.sqlite") as ledger:
        assert ledger.totals("serve").spent.tokens == 4 * 15


def test_the_ledger_of_a_server_keeps_no_texts_of_its_users(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    path.touch(0o644)

    def reply(body: dict[str, Any]) -> str | int:
        return 400 if "fails" in str(body["messages"]) else "<think>They said: my secret</think>cat"

    with asking(reply, path) as (made, endpoint, of):
        endpoint.refusal = "cannot read: my secret fails"
        assert made.ask(of("my secret fails")).result(10).reason == "rejected"
        assert made.ask(of("my secret")).result(10).content == "cat"
        there = [each for each in tmp_path.iterdir() if each.name.startswith("l.sqlite")]
        assert len(there) == 3  # what SQLite puts beside it, too
        assert {stat.S_IMODE(each.stat().st_mode) for each in there} == {0o600}
    assert b"secret" not in path.read_bytes()
    with asking(reply, path) as (made, endpoint, of):
        assert made.ask(of("my secret")).result(10).content == "cat"
        assert endpoint.bodies == []


def test_missing_key_is_told_at_once() -> None:
    section = Section(base_url="http://127.0.0.1:9/v1", model="m", api_key="A_KEY_THAT_IS_NOT_SET")

    with pytest.raises(RecipeError, match="A_KEY_THAT_IS_NOT_SET is not set"):
        Standing(behind(section), Till())


def test_places_in_a_users_text_are_text() -> None:
    section = Section(base_url="http://127.0.0.1:9/v1", model="m")

    asked = asked_about({"text": "{labels} {text}", "text_pair": "b"}, section)

    assert asked.messages[0]["content"] == "One of:\ncat\ndog house\nbird\n---\n{labels} {text}\nb"
    assert asked.sampling.temperature == 0.0


def test_a_rows_texts_stand_in_the_tasks_order() -> None:
    section = Section(base_url="http://127.0.0.1:9/v1", model="m")

    one = asked_about({"text": "a", "text_pair": "b"}, section)
    other = asked_about({"text_pair": "b", "text": "a"}, section)

    assert one.key == other.key
    assert str(one.messages[0]["content"]).endswith("a\nb")


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
