"""Files of the OpenAI Batch interface: requests out, results in, both by the key of the request.

A batch is sent by other means (`openai api`, a provider's page); it is cheaper than single calls, and slower.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import write_atomically
from limbeck.core.errors import LimbeckError
from limbeck.generation.account import Account
from limbeck.generation.budget import Amount, Price
from limbeck.generation.calls import body_of
from limbeck.generation.ledger import Charge
from limbeck.generation.reply import Reply, clip, read_body
from limbeck.generation.types import Completion, Failure, Outcome, Request

MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
"""What one file of the Batch interface may hold."""


def write_batch(folder: Path, requests: Sequence[Request], account: Account) -> list[Path]:
    """Write what the ledger cannot answer as `requests-0001.jsonl` and so on; a batch is billed as a whole.

    Args:
        folder: where the files are put; it is made if there is none.
        requests: what is wanted.
        account: ledger, budget and price (that of a batch).

    Returns:
        The files; none if everything is answered.

    Raises:
        LimbeckError: the budget does not hold the worst case.
    """
    unique = {request.key: request for request in requests}
    known = account.look_up(unique)
    rest = [request for key, request in unique.items() if not (key in known and known[key].is_final)]
    worst = Amount()
    for request in rest:
        worst += account.price.worst(request)
    if not account.fits(worst):
        got = f"{worst.tokens:,} tokens, {worst.cost:,.4f} at most, beside what is spent"
        raise LimbeckError("the budget does not hold this batch", got=got, fix="raise it, or ask for less")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, lines in enumerate(_files(rest), start=1):
        paths.append(folder / f"requests-{number:04}.jsonl")
        write_atomically(paths[-1], "".join(lines))
    for old in set(folder.glob("requests-[0-9][0-9][0-9][0-9].jsonl")) - set(paths):
        old.unlink()  # of an earlier call: what it asks may be answered by now
    return paths


def read_batch(path: Path, requests: Sequence[Request], account: Account) -> Counter[str]:
    """Put a file of results, or of errors, into the ledger; one that was read before changes nothing.

    Args:
        path: the file as the provider gives it.
        requests: what was wanted; results of others are not taken.
        account: ledger and price (that of a batch). What it cost is counted even if that is over the budget.

    Returns:
        Lines by what became of them: `done`, a reason of failure, `known` (in the ledger before), `unknown` (none of
        the requests), `malformed` (no line of results).
    """
    wanted = {request.key for request in requests}
    known = account.look_up(wanted)
    counts: Counter[str] = Counter()
    final = {key for key, entry in known.items() if entry.is_final}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in filter(str.strip, file):
            key, reply = _read(line)
            if key is None or key not in wanted:
                counts["malformed" if key is None else "unknown"] += 1
                continue
            outcome = _marked(reply.outcome, line)
            if key in final or (key in known and known[key].outcome == outcome):
                counts["known"] += 1
                continue
            spent = account.price.of(*reply.usage) if reply.usage else Amount()
            charge = Charge(spent=spent, received=reply.usage is not None)
            account.spent += spent
            account.ledger.settle(key, outcome, charge, account.scope).result()
            final.add(key)
            counts["done" if isinstance(reply.outcome, Completion) else reply.outcome.reason] += 1
    return counts


def batch_price(price: Price, discount: float) -> Price:
    """The price of a batch.

    Args:
        price: that of single calls.
        discount: what a batch is cheaper by, 0.5 for half the price.
    """
    return Price(price.input * (1 - discount), price.output * (1 - discount))


def _files(requests: Sequence[Request]) -> Iterator[list[str]]:
    lines: list[str] = []
    size = 0
    for request in requests:
        call = {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body_of(request)}
        line = json.dumps(call, ensure_ascii=False) + "\n"
        if lines and (len(lines) == MOST_REQUESTS or size + len(line.encode()) > MOST_BYTES):
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line.encode())
    if lines:
        yield lines


def _marked(outcome: Outcome, line: str) -> Outcome:
    """A failure that tells its line from others, so that a file that is read again is not paid for again."""
    if isinstance(outcome, Completion):
        return outcome
    mark = hashlib.sha256(line.strip().encode()).hexdigest()[:12]
    return Failure(outcome.reason, f"{outcome.detail} (line {mark})")


def _read(line: str) -> tuple[str | None, Reply]:
    """Key and answer of a line; the key is None where the line is none of results."""
    try:
        result: Any = json.loads(line)
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict) or not isinstance(result.get("custom_id"), str):
        return None, Reply(Failure("malformed", clip(line)), None)
    key, response = result["custom_id"], result.get("response")
    if isinstance(response, dict) and response.get("status_code") == 200:
        return key, read_body(json.dumps(response.get("body")))
    status = response.get("status_code") if isinstance(response, dict) else None
    told = clip(json.dumps(result.get("error") or response, ensure_ascii=False))
    reason = "rejected" if status in (400, 413, 422) else "batch_error"
    return key, Reply(Failure(reason, told), None)
