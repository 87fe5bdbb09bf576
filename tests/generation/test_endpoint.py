"""The engine against an endpoint that fails in every way that is known."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from limbeck.core.errors import ArtifactError, ModelError, RecipeError
from limbeck.generation.budget import Amount, Budget, Price
from limbeck.generation.endpoint import Endpoint
from limbeck.generation.engine import estimate, generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling
from tests.generation.server import FAULTS, Server, serving

KEY = "sk-canary-1f2e3d4c5b6a"
PRICE = Price(input=0.28, output=0.42)


def requests(count: int, max_tokens: int = 50, **extra: object) -> list[Request]:
    return [
        Request(
            f"p{i}",
            0,
            ({"role": "user", "content": f"question {i}"},),
            "m",
            Sampling(max_tokens=max_tokens, extra=extra),
        )
        for i in range(count)
    ]


def endpoint(server: Server, **changed: object) -> Endpoint:
    facts = {"price": PRICE, "timeout": 20.0, "wait_scale": 0.001, "concurrency": 16} | changed
    return Endpoint(base_url=server.url, name="m", **facts)  # type: ignore[arg-type]


def billed(server: Server, unknown: bool = False) -> tuple[int, int]:
    counts = server.unknown if unknown else server.billed
    return counts["prompt_tokens"], counts["completion_tokens"]


def test_every_request_is_answered_once_and_paid_for_to_the_token(tmp_path: Path) -> None:
    asked = requests(150)
    with serving(Server()) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        first = generate(endpoint(server), asked, ledger)
        again = generate(endpoint(server), asked, ledger)
        totals, counts = ledger.totals(), ledger.counts()
    assert first == again
    assert set(first) == {r.key for r in asked}
    assert all(isinstance(outcome, Completion) for outcome in first.values())
    assert server.calls == {"answer": 150}
    assert counts == {"done": 150}
    spent = totals.spent
    assert (spent.prompt, spent.completion) == billed(server)
    assert spent.nano == sum(PRICE.of(o.prompt_tokens, o.completion_tokens).nano for o in first.values())  # type: ignore[union-attr]
    assert totals.lost == totals.held == Amount()
    assert server.most_in_flight <= 16


def test_thoughts_are_read_from_field_and_text() -> None:
    asked = requests(30)
    with serving(Server()) as server, Ledger() as ledger:
        outcomes = generate(endpoint(server), asked, ledger)
    for request in asked:
        outcome = outcomes[request.key]
        assert isinstance(outcome, Completion)
        assert outcome.content == f"answer to {request.messages[0]['content']}"
        assert outcome.model == "served"
    assert {outcome.reasoning_content for outcome in outcomes.values()} == {None, "a thought"}  # type: ignore[union-attr]


@pytest.mark.parametrize("idempotent", [False, True])
def test_faults_of_all_kinds_are_survived_and_accounted_for(tmp_path: Path, idempotent: bool) -> None:
    asked = requests(300)
    # Hanging has a test of its own: with a time limit that it can reach, a busy machine would reach it too.
    faults = dict.fromkeys([kind for kind in FAULTS if kind != "hang"], 0.3 / (len(FAULTS) - 1))
    with (
        serving(Server(faults, seed=3, idempotent=idempotent)) as server,
        Ledger(tmp_path / "ledger.sqlite") as ledger,
    ):
        outcomes = generate(endpoint(server, idempotent=idempotent, timeout=300), asked, ledger)
        totals = ledger.totals()
    assert set(server.calls) == {*faults, "answer"}
    assert len(outcomes) == 300
    assert all(isinstance(outcome, Completion) for outcome in outcomes.values())
    if idempotent:
        assert (totals.spent.prompt, totals.spent.completion) == billed(server)
        assert totals.lost == Amount()
    else:
        known = [a - b for a, b in zip(billed(server), billed(server, unknown=True), strict=True)]
        assert [totals.spent.prompt, totals.spent.completion] == known
        assert totals.lost.completion >= billed(server, unknown=True)[1] > 0
        assert totals.lost.prompt >= billed(server, unknown=True)[0]
        cut = [o for o in outcomes.values() if isinstance(o, Completion) and o.finish_reason == "length"]
        assert len(cut) == server.calls["length"] + server.calls["unclosed"]
    assert totals.held == Amount()


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_call_that_hangs_is_counted_as_possibly_spent(idempotent: bool) -> None:
    asked = requests(3)
    with serving(Server(always="hang", idempotent=idempotent)) as server, Ledger() as ledger:
        hasty = endpoint(server, attempts=1, timeout=0.3, idempotent=idempotent)
        outcomes = generate(hasty, asked, ledger)
        assert [o.reason for o in outcomes.values() if isinstance(o, Failure)] == ["timeout"] * 3
        assert ledger.totals().spent == Amount()
        server.always = None
        outcomes = generate(endpoint(server, timeout=300, idempotent=idempotent), asked, ledger)
        spent, lost = ledger.totals().spent, ledger.totals().lost
    assert all(isinstance(outcome, Completion) for outcome in outcomes.values())
    if idempotent:
        assert (spent.prompt, spent.completion) == billed(server)
        assert lost == Amount()
    else:
        prompt, completion = billed(server)
        assert spent.prompt <= prompt <= spent.prompt + lost.prompt
        assert spent.completion <= completion <= spent.completion + lost.completion
        assert lost.tokens > 0


REASONS = {
    "rate_limited": "rate_limited",
    "rate_limited_absurd": "rate_limited",
    "error_500": "server_error",
    "unavailable": "unavailable",
    "reset": "connection",
    "truncated": "malformed",
    "html": "malformed",
    "empty": "empty",
    "status_400": "rejected",
}


@pytest.mark.parametrize(("kind", "reason"), REASONS.items())
def test_what_never_works_is_quarantined_with_its_reason(kind: str, reason: str) -> None:
    permanent = reason in ("empty", "rejected")
    asked = requests(3)
    with serving(Server(always=kind)) as server, Ledger() as ledger:
        outcomes = generate(endpoint(server, attempts=2, timeout=300), asked, ledger)
        failures = [o for o in outcomes.values() if isinstance(o, Failure)]
        assert Counter(o.reason for o in failures) == {reason: 3}
        assert {o.passes for o in failures} == {not permanent}
        assert server.calls[kind] == (3 if kind == "status_400" else 6)
        server.always = None
        outcomes = generate(endpoint(server, timeout=300), asked, ledger)
    assert all(isinstance(outcome, Failure) == permanent for outcome in outcomes.values())
    assert server.calls["answer"] == (0 if permanent else 3)


def test_an_empty_answer_is_asked_for_under_another_key() -> None:
    with serving(Server(always="empty")) as server, Ledger() as ledger:
        (request,) = requests(1)
        generate(endpoint(server, attempts=3), [request], ledger)
    assert [h["idempotency-key"] for h in server.headers] == [request.key, f"{request.key}-1", f"{request.key}-2"]


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refusal_stops_at_once_and_tells_no_secret(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    path = tmp_path / "ledger.sqlite"
    with serving(Server(always=f"status_{status}", delay=0.02)) as server, Ledger(path) as ledger:
        with pytest.raises(ModelError, match="refuses") as caught:
            generate(endpoint(server, api_key="TEST_KEY"), requests(150), ledger)
        assert ledger.totals().lost == ledger.totals().spent == Amount()
    assert server.calls.total() <= 4  # those that were under way
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "[key]" in str(caught.value)
    told = str(caught.value) + repr(caught.getrepr(showlocals=True)) + str(caught.getrepr(showlocals=True))
    assert KEY not in told
    assert KEY not in "".join(capsys.readouterr())
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.iterdir())


def test_an_endpoint_that_never_answers_is_left_alone() -> None:
    with serving(Server(always="error_500")) as server, Ledger() as ledger:
        with pytest.raises(ModelError, match="50 requests in a row"):
            generate(endpoint(server, attempts=1), requests(500), ledger)
        assert server.calls.total() < 50 + 4 * 16


def test_a_key_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    generator = Endpoint(base_url="http://127.0.0.1:9/v1", name="m", api_key="TEST_KEY")
    with pytest.raises(RecipeError, match="TEST_KEY is not set"):
        generator.answer(requests(1), lambda *_: None)
    monkeypatch.setenv("TEST_KEY", f"{KEY}\nHost: evil")
    with pytest.raises(RecipeError, match="holds no key") as caught:
        generator.answer(requests(1), lambda *_: None)
    assert KEY not in str(caught.value)
    with pytest.raises(RecipeError, match="holds a secret") as caught:
        Endpoint(base_url=f"https://user:{KEY}@host/v1", name="m")
    assert KEY not in str(caught.value)


def test_nobody_at_the_address_is_not_charged() -> None:
    with Ledger() as ledger:
        generator = Endpoint(base_url="http://127.0.0.1:9/v1", name="m", attempts=2, wait_scale=0.0, price=PRICE)
        outcomes = generate(generator, requests(2), ledger)
        assert ledger.totals().lost == Amount()
    assert {o.reason for o in outcomes.values() if isinstance(o, Failure)} == {"connection"}


@pytest.mark.parametrize("faulty", [False, True])
def test_the_budget_is_never_exceeded(faulty: bool) -> None:
    asked = requests(150)
    worst = PRICE.worst(asked[0])
    budget = Budget(cost=9.5 * worst.cost)
    faults = {"truncated": 0.1, "reset_billed": 0.1, "empty": 0.1} if faulty else {}
    with serving(Server(faults)) as server, Ledger() as ledger:
        outcomes = generate(endpoint(server), asked, ledger, budget=budget, scope="basic")
        total = ledger.totals("basic")
        assert budget.holds(total.spent + total.lost)
        assert budget.holds(PRICE.of(*billed(server)))
        left = Counter(o.reason for o in outcomes.values() if isinstance(o, Failure))
        assert left["budget"] > 0
        assert total.spent.nano + total.lost.nano + worst.nano > round(budget.cost * 1e9)  # type: ignore[operator]
        calls = server.calls.total()
        again = generate(endpoint(server), asked, ledger, budget=budget, scope="basic")
        assert server.calls.total() == calls  # nor by a second run
        assert sum(isinstance(o, Completion) for o in again.values()) == 150 - left.total()
        generate(endpoint(server), asked[:30], ledger, budget=Budget(tokens=0), scope="other")  # paid for already
        assert server.calls.total() == calls


def test_an_estimate_holds_what_comes(tmp_path: Path) -> None:
    asked = requests(60)
    with serving(Server()) as server, Ledger(tmp_path / "ledger.sqlite") as ledger:
        before = estimate(asked, ledger, price=PRICE, budget=Budget(tokens=100))
        assert (before.requests, before.done, before.fits) == (60, 0, False)
        generate(endpoint(server), asked[:40], ledger)
        middle = estimate(asked, ledger, price=PRICE)
        spent = ledger.totals().spent
        generate(endpoint(server), asked, ledger)
        rest = ledger.totals().spent - spent
    assert before.worst.tokens > before.expected.tokens
    assert (middle.done, middle.spent) == (40, spent)
    assert middle.worst.nano >= rest.nano
    assert 0.7 < middle.expected.tokens / rest.tokens < 1.4


def test_what_is_sent() -> None:
    sampling = Sampling(temperature=0.6, top_p=0.95, max_tokens=7, stop=("x",), extra={"top_k": 20, "seed": None})
    request = Request("p", 2, ({"role": "user", "content": "é"},), "m", sampling, seed=5)
    with serving(Server()) as server:
        endpoint(server).answer([request], lambda *_: None)
        with pytest.raises(RecipeError, match="cannot be set"):
            endpoint(server).answer(requests(1, n=4), lambda *_: None)
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "é"}],
            "temperature": 0.6,
            "top_p": 0.95,
            "max_tokens": 7,
            "stop": ["x"],
            "top_k": 20,
        }
    ]


def test_a_second_process_is_refused_and_a_broken_file_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path), pytest.raises(ArtifactError, match="in use"):
        Ledger(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(ArtifactError, match="cannot be written or read"):
        Ledger(path)


def test_what_goes_wrong_on_this_side_is_told_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def done(*_: object) -> None:
        raise ValueError("no place for it")

    with serving(Server()) as server:
        with pytest.raises(ValueError, match="no place for it"):
            endpoint(server).answer(requests(20), done)
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            generate(endpoint(server), requests(3), ledger)
            calls = server.calls.total()
            monkeypatch.setattr("limbeck.generation.ledger._changed", full)
            with pytest.raises(ArtifactError, match="disk is full"):
                generate(endpoint(server), requests(20), ledger)
            assert server.calls.total() == calls  # nothing is asked that could not be written down


def test_a_loop_that_runs_already_is_no_hindrance() -> None:
    found: list[Outcome] = []

    async def notebook() -> None:
        endpoint(server).answer(requests(3), lambda _, outcome: found.append(outcome))

    with serving(Server()) as server:
        asyncio.run(notebook())
    assert len(found) == 3
