"""The engine's pieces, each by itself."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import ArtifactError
from limbeck.data.thinking import split_thought
from limbeck.generation.budget import Amount, Budget, Price, prompt_bound
from limbeck.generation.concurrency import Limiter
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Charge, Ledger
from limbeck.generation.reply import read_body, read_message
from limbeck.generation.retry import backoff, retry_after
from limbeck.generation.types import Completion, Failure, Outcome, Request, Sampling
from tests.generation.test_endpoint import requests

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUICK = settings(deadline=None, max_examples=60)
ANSWER = Completion("yes", None, "stop", 3, 4, "m")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("99999999999", 99999999999.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:04:00 GMT", 0.0),
        ("Fri, 02 Jan 2026 04:05:05 +0100", 60.0),
        ("Fri, 32 Jan 2026 03:05:05 GMT", None),
        ("Fri, 02 Jan 99999 03:05:05 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@QUICK
@given(st.text(max_size=40))
def test_any_retry_after_is_survived(header: str) -> None:
    seconds = retry_after(header, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@QUICK
@given(st.integers(0, 5000), st.integers(0, 10**6))
def test_backoff_stays_in_its_span(attempt: int, seed: int) -> None:
    assert 0 <= backoff(attempt, 0.5, 30.0, random.Random(seed)) <= min(30.0, 0.5 * 2.0 ** min(attempt, 60))


def test_backoff_grows_and_uses_the_whole_span() -> None:
    draw = random.Random(0)
    waits = [[backoff(attempt, 1.0, 60.0, draw) for _ in range(500)] for attempt in range(8)]
    for attempt, drawn in enumerate(waits):
        span = min(60.0, 2.0**attempt)
        assert max(drawn) > 0.95 * span
        assert min(drawn) < 0.05 * span


@pytest.mark.parametrize(
    ("text", "content", "thought", "closed"),
    [
        ("plain", "plain", None, True),
        (" plain \n", " plain \n", None, True),
        ("<think>\na\nb\n</think>\n\nc", "c", "a\nb", True),
        ("\n<think>a</think>c", "c", "a", True),
        ("a\n</think>\nc", "c", "a", True),  # the template opened the thought
        ("<think>\n\n</think>\n\nc", "c", None, True),
        ("<think>a and so", "", "a and so", False),
        ("<think>", "", None, False),
        ("<think>a</think>", "", "a", True),
        ("write <think>x</think>", "write <think>x</think>", None, True),
        ("<think>a</think>use </think>", "use </think>", "a", True),
        ("", "", None, True),
    ],
)
def test_thoughts(text: str, content: str, thought: str | None, closed: bool) -> None:
    assert split_thought(text) == (content, thought, closed)


@QUICK
@given(st.text().map(str.strip).filter(lambda t: "think>" not in t), st.text().map(str.strip))
def test_a_thought_comes_back(thought: str, content: str) -> None:
    found = split_thought(f"<think>\n{thought}\n</think>\n\n{content}")
    assert found == (content, thought or None, True)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({"content": "c", "reasoning_content": "t"}, ("c", "t", False)),
        ({"content": "c", "reasoning": "t"}, ("c", "t", False)),
        ({"content": "<think>t</think>c", "reasoning": None}, ("c", "t", False)),
        ({"content": "<think>t</think>c", "reasoning_content": "t"}, ("c", "t", False)),
        ({"content": None, "reasoning_content": "t"}, ("", "t", True)),
        ({"content": "<think>t"}, ("", "t", True)),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ("ab", None, False)),
        ({"content": None}, ("", None, False)),
        ({"content": "half a pair: \ud800"}, ("half a pair: ?", None, False)),
    ],
)
def test_messages(message: dict[str, object], found: tuple[str, str | None, bool]) -> None:
    assert read_message(message) == found


def body(finish: object = "stop", usage: object = None, **message: object) -> str:
    usage = {"prompt_tokens": 3, "completion_tokens": 4} if usage is None else usage
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": usage, "model": "m"})


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (body(content="yes"), ANSWER),
        ("\n\n \n" + body(content="yes"), ANSWER),
        (body("eos", content="yes"), ANSWER),
        (body("length", content=""), replace(ANSWER, content="", finish_reason="length")),
        (
            body("stop", content="<think>hm"),
            replace(ANSWER, content="", reasoning_content="hm", finish_reason="length"),
        ),
        (body(content=" "), "empty"),
        (body("content_filter", content="yes"), "content_filter"),
        (body("insufficient_system_resource", content="ye"), "interrupted"),
        (body(None, content="ye"), "interrupted"),
        (body(content="yes", usage={}), "no_usage"),
        (body(content="yes", usage={"prompt_tokens": -1, "completion_tokens": True}), "no_usage"),
        (body(content="yes", usage={"prompt_tokens": 10**20, "completion_tokens": 1}), "no_usage"),
        (body(["stop"], content="yes"), "interrupted"),
        ("[" * 50_000, "malformed"),
        (body(content="yes")[:50], "malformed"),
        ("<html>", "malformed"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ('{"choices": []}', "malformed"),
        ('{"choices": [{"message": null}]}', "malformed"),
        ('{"error": {"message": "busy"}}', "malformed"),
    ],
)
def test_bodies(text: str, outcome: Outcome | str) -> None:
    found = read_body(text).outcome
    assert (found.reason if isinstance(found, Failure) else found) == outcome


COUNTS = st.integers(0, 10**7)
PRICES = st.decimals(0, 100, places=4)


@QUICK
@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=8), PRICES, PRICES)
def test_money_is_rounded_up_and_sums_are_exact(calls: list[tuple[int, int]], per_in: object, per_out: object) -> None:
    price = Price(float(str(per_in)), float(str(per_out)))
    exact = sum(Fraction(str(per_in)) * p + Fraction(str(per_out)) * c for p, c in calls) / 10**6 * 10**9
    total = sum((price.of(*call) for call in calls), Amount())
    assert 0 <= total.nano - exact < len(calls)
    assert total.tokens == sum(p + c for p, c in calls)
    assert total - price.of(*calls[0]) == sum((price.of(*call) for call in calls[1:]), Amount())
    assert Budget(tokens=total.tokens).holds(total)
    assert not Budget(tokens=total.tokens - 1).holds(total)


def test_a_budget_is_held_to_the_last_billionth() -> None:
    assert Budget(cost=0.3).holds(Amount(nano=300_000_000))
    assert not Budget(cost=0.3).holds(Amount(nano=300_000_001))
    assert Budget().holds(Amount(10**12, 10**12, 10**18))


@QUICK
@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_no_prompt_has_more_tokens_than_the_bound(text: str) -> None:
    request = Request("p", 0, ({"role": "user", "content": text},), "m", Sampling())
    assert prompt_bound(request) >= len(text.encode()) + 64


def test_the_limiter_grows_halves_once_and_never_lets_more_in() -> None:
    async def scenario() -> None:
        limiter = Limiter(16, start=4)
        tickets = [await limiter.acquire() for _ in range(4)]
        blocked = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        assert not blocked.done()
        for ticket in tickets:
            limiter.release(ticket, congested=False, answered=True)
        assert limiter.limit > 4
        tickets = [await blocked]
        for _ in range(200):
            while limiter.in_flight < int(limiter.limit):
                tickets.append(await limiter.acquire())
            limiter.release(tickets.pop(), congested=False, answered=True)
        assert limiter.limit == 16
        while limiter.in_flight < 16:
            tickets.append(await limiter.acquire())
        for ticket in tickets[:8]:  # one congestion, seen eight times
            limiter.release(ticket, congested=True, answered=False)
        assert (limiter.limit, limiter.in_flight) == (8, 8)
        fresh = asyncio.ensure_future(limiter.acquire())
        await asyncio.sleep(0)
        assert not fresh.done()
        limiter.release(tickets[8], congested=False, answered=True)
        limiter.release(await fresh, congested=True, answered=False)
        assert limiter.limit == pytest.approx(4, abs=0.2)

    asyncio.run(scenario())


def test_a_pause_holds_all() -> None:
    async def scenario() -> float:
        limiter = Limiter(4)
        limiter.pause(0.05)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(limiter.acquire() for _ in range(4)))
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(scenario()) >= 0.05


def test_a_paid_answer_cannot_be_overwritten() -> None:
    with Ledger() as ledger:
        ledger.reserve("k", Amount(1, 2, 3)).result()
        ledger.settle("k", ANSWER, Charge(spent=Amount(3, 4, 5), received=True)).result()
        with pytest.raises(ArtifactError, match="answered already"):
            ledger.reserve("k", Amount(1, 2, 3)).result()
        with pytest.raises(ArtifactError, match="answered already"):
            ledger.settle("k", Failure("timeout"), Charge()).result()
        assert ledger.totals().spent == Amount(3, 4, 5)
        assert ledger.entries(["k", "other"])["k"].outcome == ANSWER


class Here:
    """A generator of this process."""

    name = "here"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answer(self, requests: Sequence[Request], done: Callable[[Request, Outcome], None]) -> None:
        """Every third prompt is too long."""
        for request in requests:
            self.asked.append(request.key)
            done(request, Failure("too_long") if int(request.id[1:]) % 3 == 0 else ANSWER)


def test_models_of_this_process_share_ledger_and_budget() -> None:
    asked, model = requests(12), Here()
    worst = Price().worst(asked[0]).tokens
    with Ledger() as ledger:
        first = generate(model, [*asked, *asked], ledger, budget=Budget(tokens=2 * worst + 10))
        assert len(first) == 12
        assert ledger.counts() == {"done": 8, "too_long": 4}
        assert ledger.totals().spent == Amount(24, 32, 0)
        assert generate(model, asked, ledger) == first
        assert sorted(model.asked) == sorted(request.key for request in asked)
        more = generate(model, requests(14), ledger, budget=Budget(tokens=50))
        assert [o.reason for o in more.values() if isinstance(o, Failure)].count("budget") == 2


def test_a_ledger_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()
    with pytest.raises(ArtifactError, match="cannot be opened"):
        Ledger(tmp_path / "ledger.sqlite")


def test_extra_fields_are_part_of_the_bound() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "word " * 1000}}]
    plain = Request("a", 0, ({"role": "user", "content": "?"},), "m")
    assert prompt_bound(replace(plain, sampling=Sampling(extra={"tools": tools}))) >= prompt_bound(plain) + 5000


def test_the_key_is_what_decides_the_answer() -> None:
    plain = Request("a", 0, ({"role": "user", "content": "?"},), "m", address="https://one/v1")
    assert replace(plain, id="b", written=True).key == plain.key
    fields = ({"address": "https://two/v1"}, {"address": ""}, {"model": "n"}, {"seed": 1}, {"sample": 1})
    others = [replace(plain, **each) for each in fields]
    assert len({plain.key, *(other.key for other in others)}) == 1 + len(others)
