"""The Batch interface's files, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from limbeck.core.errors import LimbeckError
from limbeck.generation import batch_files
from limbeck.generation.account import Account
from limbeck.generation.batch_files import batch_price, read_batch, write_batch
from limbeck.generation.budget import Budget, Price
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Completion
from tests.generation.server import answer
from tests.generation.test_endpoint import requests

PRICE = batch_price(Price(0.28, 0.42), 0.5)


def result(line: str) -> str:
    call = json.loads(line)
    body = json.loads(answer(call["custom_id"], call["body"], "answer")[1])
    return json.dumps({"custom_id": call["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 8)
    asked = requests(20)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        account = Account(ledger, price=PRICE)
        paths = write_batch(tmp_path / "batch", asked, account)
        assert [path.name for path in paths] == ["requests-0001.jsonl", "requests-0002.jsonl", "requests-0003.jsonl"]
        lines = [line for path in paths for line in path.read_text().splitlines()]
        assert [json.loads(line)["custom_id"] for line in lines] == [request.key for request in asked]
        results = [result(line) for line in reversed(lines[:15])]
        results.append(json.dumps({"custom_id": asked[15].key, "response": None, "error": {"code": "batch_expired"}}))
        results.append(json.dumps({"custom_id": asked[16].key, "response": {"status_code": 400, "body": {}}}))
        results += [results[0].replace(asked[14].key, "f" * 64), results[0][:40]]
        (tmp_path / "results.jsonl").write_text("\n".join(results))
        counts = read_batch(tmp_path / "results.jsonl", asked, account)
        assert counts == {"done": 15, "batch_error": 1, "rejected": 1, "unknown": 1, "malformed": 1}
        spent = ledger.totals().spent
        assert spent == account.spent
        entries = ledger.entries(request.key for request in asked)
        done = [entry.outcome for entry in entries.values() if isinstance(entry.outcome, Completion)]
        assert spent.tokens == sum(o.prompt_tokens + o.completion_tokens for o in done) > 0
        assert spent.nano == sum(PRICE.of(o.prompt_tokens, o.completion_tokens).nano for o in done)
        again = read_batch(tmp_path / "results.jsonl", asked, account)
        assert (again["known"], again["done"], ledger.totals().spent) == (17, 0, spent)
        (rest,) = write_batch(tmp_path / "rest", asked, account)
        assert [json.loads(line)["custom_id"] for line in rest.read_text().splitlines()] == [
            request.key for request in (asked[15], *asked[17:])
        ]


def test_a_batch_beyond_the_budget_is_not_written(tmp_path: Path) -> None:
    with Ledger() as ledger, pytest.raises(LimbeckError, match="does not hold"):
        write_batch(tmp_path, requests(20), Account(ledger, Budget(tokens=100), PRICE))
    assert not list(tmp_path.iterdir())


def test_a_failure_that_is_read_twice_is_paid_for_once(tmp_path: Path) -> None:
    (asked,) = requests(1)
    body = {
        "choices": [{"message": {"content": "a"}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7},
    }
    line = {"custom_id": asked.key, "response": {"status_code": 200, "body": body}}
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(line) + "\n" + "[" * 50_000)
    with Ledger() as ledger:
        account = Account(ledger, price=PRICE)
        assert read_batch(path, [asked], account) == {"interrupted": 1, "malformed": 1}
        assert read_batch(path, [asked], account) == {"known": 1, "malformed": 1}
        assert ledger.totals().spent.tokens == 12
        path.write_text(json.dumps({**line, "id": "another"}))
        assert read_batch(path, [asked], account) == {"interrupted": 1}
        assert ledger.totals().spent.tokens == 24


def test_files_of_an_earlier_call_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 1)
    with Ledger() as ledger:
        account = Account(ledger, price=PRICE)
        assert len(write_batch(tmp_path, requests(3), account)) == 3
        (left,) = write_batch(tmp_path, requests(1), account)
        assert list(tmp_path.iterdir()) == [left]
