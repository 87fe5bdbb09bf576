"""A generating process is killed again and again; and ten thousand calls, of which a third go wrong."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from limbeck.generation.budget import Amount, Budget
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Completion, Failure
from tests.generation.server import FAULTS, Server, serving
from tests.generation.test_endpoint import PRICE, billed, endpoint, requests
from tests.processes import FORKS

CONCURRENCY = 8
KILL_FAULTS = dict.fromkeys([kind for kind in FAULTS if kind != "hang"], 0.02)


def work(url: str, path: Path, count: int, idempotent: bool, budget: Budget) -> None:
    """What the killed process does."""
    generator = endpoint(Server(url=url), idempotent=idempotent, concurrency=CONCURRENCY)
    with Ledger(path) as ledger:
        generate(generator, requests(count), ledger, budget=budget)


def rows(path: Path) -> tuple[dict[str, str], int]:
    """Committed answers, and calls that were under way, as a stranger reads them."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        try:
            found = db.execute("SELECT key, state, answer FROM requests").fetchall()
        except sqlite3.OperationalError:  # killed before the tables were made
            return {}, 0
    assert len({key for key, _, _ in found}) == len(found)
    return {key: answer for key, state, answer in found if state == "done"}, [s for _, s, _ in found].count("reserved")


def kill_often(path: Path, kills: int, count: int, server: Server, budget: Budget) -> int:
    """Run the work and kill it after a random number of calls; returns how many kills met a process at work."""
    draw, met = random.Random(0), 0
    done: dict[str, str] = {}
    for _ in range(kills):
        asked = Counter(server.seen)
        process = FORKS.Process(target=work, args=(server.url, path, count, server.idempotent, budget))
        process.start()
        until = server.calls.total() + draw.randint(1, max(2, 3 * count // kills))
        while server.calls.total() < until and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.random() * 0.01)
        met += process.is_alive()
        process.kill()
        process.join()
        now, reserved = rows(path) if path.exists() else ({}, 0)
        assert done.items() <= now.items()  # nothing is lost, nothing is changed
        assert all(server.seen[key] == asked[key] for key in done)  # nothing is bought again
        assert reserved <= CONCURRENCY
        done = now
    return met


def check_kills(tmp_path: Path, kills: int, count: int, idempotent: bool, budget: Budget) -> None:
    path = tmp_path / "ledger.sqlite"
    with serving(Server(KILL_FAULTS, idempotent=idempotent, delay=0.002)) as server:
        assert kill_often(path, kills, count, server, budget) >= kills // 2
        paid, _ = rows(path)
        asked = Counter(server.seen)
        with Ledger(path) as ledger:
            lost = ledger.totals().lost
            outcomes = generate(endpoint(server, idempotent=idempotent), requests(count), ledger, budget=budget)
            totals, counts = ledger.totals(), ledger.counts()
    assert all(server.seen[key] == asked[key] for key in paid)
    assert set(outcomes) == {request.key for request in requests(count)}
    assert totals.held == Amount()
    assert budget.holds(totals.spent + totals.lost)
    assert budget.holds(PRICE.of(*billed(server)))
    if idempotent:
        assert counts == {"done": count}
        assert (totals.spent.prompt, totals.spent.completion) == billed(server)
    else:
        assert lost.tokens > 0  # what was under way at the kills is priced
        assert totals.spent.completion + totals.lost.completion >= billed(server)[1] >= totals.spent.completion
        left = Counter(o.reason for o in outcomes.values() if isinstance(o, Failure))
        assert sum(isinstance(o, Completion) for o in outcomes.values()) == count - left.total()


@pytest.mark.parametrize(("idempotent", "budget"), [(True, Budget()), (False, Budget(tokens=12_000))])
def test_killed_runs_go_on_and_buy_nothing_twice(tmp_path: Path, idempotent: bool, budget: Budget) -> None:
    check_kills(tmp_path, 4, 60, idempotent, budget)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    check_kills(tmp_path, 50, 750, False, Budget(tokens=150_000))


@pytest.mark.torture
@pytest.mark.parametrize(("idempotent", "budget"), [(True, Budget()), (False, Budget(tokens=300_000))])
def test_a_hundred_kills(tmp_path: Path, idempotent: bool, budget: Budget) -> None:
    check_kills(tmp_path, 100, 1500, idempotent, budget)


@pytest.mark.torture
@pytest.mark.parametrize("idempotent", [True, False])
def test_ten_thousand_calls_with_a_third_gone_wrong(tmp_path: Path, idempotent: bool) -> None:
    asked = requests(8000)
    faults = dict.fromkeys(FAULTS, 0.298 / (len(FAULTS) - 1)) | {"hang": 0.002}
    with serving(Server(faults, seed=1, idempotent=idempotent)) as server, Ledger(tmp_path / "l.sqlite") as ledger:
        generator = endpoint(server, idempotent=idempotent, timeout=30, concurrency=32, attempts=12)
        budget = Budget(cost=1.5 if not idempotent else None)
        outcomes = generate(generator, asked, ledger, budget=budget)
        totals, calls, again = ledger.totals(), server.calls.total(), generate(generator, asked, ledger, budget=budget)
        assert server.calls.total() == calls
    assert calls >= 10_000
    assert again == outcomes
    assert {type(outcome) for outcome in outcomes.values()} == {Completion}
    assert budget.holds(totals.spent + totals.lost)
    known = [a - b for a, b in zip(billed(server), billed(server, unknown=True), strict=True)]
    expected = list(billed(server)) if idempotent else known
    assert [totals.spent.prompt, totals.spent.completion] == expected
    assert (totals.lost == Amount()) == idempotent
    assert totals.held == Amount()
