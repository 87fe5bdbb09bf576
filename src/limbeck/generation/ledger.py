"""The ledger: every answer that was paid for, and every call that may have been.

One row a request and scope (a stage's name), by the sha256 of all that decides the answer:

    reserved   a call is under way; `held` is what it can cost at most
    done       the answer is here and is never bought again, by no scope
    failed     quarantined; asked again by a later run unless the reason is a permanent one

A row adds up what its calls cost (`spent`), and what calls may have cost of which no answer came (`lost`): those under
way when a process was killed, and those whose connection broke. SQLite in WAL mode with `synchronous=FULL`: what is
committed outlives a kill and a power cut. One thread writes; what waits for it shares one commit.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from limbeck.core.errors import ArtifactError
from limbeck.generation.budget import Amount
from limbeck.generation.types import PERMANENT, Completion, Failure, Outcome

T = TypeVar("T")

_VERSION = 1
_MONEY = [f"{kind}_{part}" for kind in ("spent", "held", "lost") for part in ("prompt", "completion", "nano")]
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS requests (
    key TEXT NOT NULL, scope TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('reserved', 'done', 'failed')),
    final INTEGER NOT NULL DEFAULT 0, reason TEXT, detail TEXT, model TEXT, finish_reason TEXT, answer TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, received INTEGER NOT NULL DEFAULT 0,
    {", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in _MONEY)},
    created REAL NOT NULL, updated REAL NOT NULL, PRIMARY KEY (key, scope)
);
CREATE INDEX IF NOT EXISTS by_scope ON requests (scope, state);
"""
_RECOVER = """
UPDATE requests SET state = 'failed', reason = 'killed', detail = 'the process ended while the call was under way',
    lost_prompt = lost_prompt + held_prompt, lost_completion = lost_completion + held_completion,
    lost_nano = lost_nano + held_nano, held_prompt = 0, held_completion = 0, held_nano = 0
WHERE state = 'reserved'
"""
_RESERVE = """
INSERT INTO requests (key, scope, state, attempts, held_prompt, held_completion, held_nano, created, updated)
VALUES (:key, :scope, 'reserved', 1, :prompt, :completion, :nano, :now, :now)
ON CONFLICT (key, scope) DO UPDATE SET state = 'reserved', attempts = attempts + 1,
    held_prompt = :prompt, held_completion = :completion, held_nano = :nano, updated = :now
WHERE state != 'done'
"""
_SETTLE = """
INSERT INTO requests (key, scope, state, final, reason, detail, model, finish_reason, answer, attempts, received,
    spent_prompt, spent_completion, spent_nano, lost_prompt, lost_completion, lost_nano, created, updated)
VALUES (:key, :scope, :state, :final, :reason, :detail, :model, :finish_reason, :answer, 1, :received,
    :spent_prompt, :spent_completion, :spent_nano, :lost_prompt, :lost_completion, :lost_nano, :now, :now)
ON CONFLICT (key, scope) DO UPDATE SET state = :state, final = :final, reason = :reason, detail = :detail,
    model = :model, finish_reason = :finish_reason, answer = :answer, received = received + :received,
    spent_prompt = spent_prompt + :spent_prompt, spent_completion = spent_completion + :spent_completion,
    spent_nano = spent_nano + :spent_nano, lost_prompt = lost_prompt * :keep_lost + :lost_prompt,
    lost_completion = lost_completion * :keep_lost + :lost_completion,
    lost_nano = lost_nano * :keep_lost + :lost_nano,
    held_prompt = 0, held_completion = 0, held_nano = 0, updated = :now
WHERE state != 'done'
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of a request.

    Attributes:
        outcome: its answer, or why there is none; None while a call is under way.
        is_final: it is not to be asked again: answered, or failed for good.
        received: answers that came, were paid for and could not be used.
        lost: what calls of this scope may have cost of which no answer came.
    """

    outcome: Outcome | None
    is_final: bool
    received: int
    lost: Amount


@dataclass(frozen=True)
class Charge:
    """What a call cost.

    Attributes:
        spent: what it is known to cost.
        lost: what it may have cost, where no answer says so.
        received: an answer came, which was paid for.
        strike_lost: the endpoint charged once for all calls with this key, so that what seemed lost was not.
    """

    spent: Amount = field(default_factory=Amount)
    lost: Amount = field(default_factory=Amount)
    received: bool = False
    strike_lost: bool = False


@dataclass(frozen=True)
class Totals:
    """What was spent, what is held for calls under way, and what may have been spent on calls that were lost."""

    spent: Amount
    held: Amount
    lost: Amount


class Ledger:
    """The file of all answers; for one process at a time.

    Args:
        path: the file, made if there is none; None: in memory, for a run that keeps nothing.
        private: of what people send to a server: for its user's eyes alone, and without what an endpoint said of a
            failure, or thought, where it may say their texts again.

    Raises:
        ArtifactError: another process has it open, or it cannot be read.
    """

    def __init__(self, path: Path | None = None, *, private: bool = False):
        self.path, self.private = path, private
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0) if path else None
        if path and self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout:
                raise ArtifactError(f"{path} is in use by another process", fix="wait for it") from None
            if private:  # before anything is in it; what SQLite puts beside it takes its mode
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                path.chmod(0o600)
        self._jobs: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()
        try:
            self._do(_open).result()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and let the file go."""
        self._jobs.put(None)
        self._thread.join()
        if self._lock:
            self._lock.release()

    def entries(self, keys: Iterable[str], scope: str = "") -> dict[str, Entry]:
        """What is known of those of the requests that are known at all, by key; an answer may be another scope's."""
        values = {"keys": json.dumps(list(keys)), "scope": scope}
        sql = (
            "SELECT key, state, reason, detail, answer, final, received, lost_prompt * own, lost_completion * own, "
            "lost_nano * own FROM (SELECT *, scope = :scope AS own FROM requests) "
            "WHERE key IN (SELECT value FROM json_each(:keys)) ORDER BY state = 'done', own"
        )
        rows = self._do(lambda db: db.execute(sql, values).fetchall()).result()  # the last of a key is kept
        return {row[0]: Entry(_outcome(*row[1:5]), bool(row[5]), row[6], Amount(*row[7:])) for row in rows}

    def reserve(self, key: str, worst: Amount, scope: str = "") -> Future[None]:
        """Note that a call begins; it may begin once this is done."""
        values = {"key": key, "scope": scope, "now": time.time(), **asdict(worst)}
        return self._do(lambda db: _changed(db, _RESERVE, values))

    def settle(self, key: str, outcome: Outcome, charge: Charge, scope: str = "", again: bool = False) -> Future[None]:
        """Note how a call ended; it is on the disk once this is done.

        Args:
            key: the request's.
            outcome: the answer, or why there is none.
            charge: what the call cost.
            scope: what the money is counted for.
            again: the request is about to be asked once more, so that no failure is for good yet.
        """
        if self.private:
            if isinstance(outcome, Completion):
                outcome = replace(outcome, reasoning_content=None)
            else:
                outcome = Failure(outcome.reason)
        failed_for_good = isinstance(outcome, Failure) and outcome.reason in PERMANENT and not again
        values: dict[str, Any] = {
            "key": key,
            "scope": scope,
            "received": int(charge.received and not isinstance(outcome, Completion)),
            "final": int(isinstance(outcome, Completion) or failed_for_good),
            "keep_lost": int(not charge.strike_lost),
            "now": time.time(),
            **{f"spent_{name}": value for name, value in asdict(charge.spent).items()},
            **{f"lost_{name}": value for name, value in asdict(charge.lost).items()},
            **_columns(outcome),
        }
        return self._do(lambda db: _changed(db, _SETTLE, values))

    def totals(self, scope: str | None = None) -> Totals:
        """Sums over all rows, or over those of one scope."""
        sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in _MONEY)
        sql = f"SELECT {sums} FROM requests WHERE :scope IS NULL OR scope = :scope"
        row = self._do(lambda db: db.execute(sql, {"scope": scope}).fetchone()).result()
        return Totals(Amount(*row[:3]), Amount(*row[3:6]), Amount(*row[6:]))

    def counts(self, scope: str | None = None) -> dict[str, int]:
        """Rows by `done`, `reserved`, or the reason why they failed."""
        sql = (
            "SELECT CASE state WHEN 'failed' THEN reason ELSE state END AS how, COUNT(*) FROM requests "
            "WHERE :scope IS NULL OR scope = :scope GROUP BY how ORDER BY how"
        )
        return dict(self._do(lambda db: db.execute(sql, {"scope": scope}).fetchall()).result())

    def mean_usage(self, scope: str | None = None) -> tuple[float, float] | None:
        """Mean tokens of prompt and answer over the answers that are here; None without any."""
        sql = (
            "SELECT AVG(json_extract(answer, '$.prompt_tokens')), AVG(json_extract(answer, '$.completion_tokens')) "
            "FROM requests WHERE state = 'done' AND (:scope IS NULL OR scope = :scope)"
        )
        prompt, completion = self._do(lambda db: db.execute(sql, {"scope": scope}).fetchone()).result()
        return None if prompt is None else (prompt, completion)

    def _do(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who waits may give up; what is written is written all the same
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        """The one thread that touches the database."""
        try:
            db = sqlite3.connect(self.path or ":memory:", isolation_level=None, timeout=30)
        except sqlite3.Error as error:
            first = self._jobs.get()
            assert first is not None
            first[1].set_exception(ArtifactError(f"the ledger {self.path} cannot be opened", got=error))
            return
        while (job := self._jobs.get()) is not None:
            batch = [job]
            while len(batch) < 256 and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                batch.append(following)
            _commit(db, batch, self.path)
        db.close()


def _open(db: sqlite3.Connection) -> None:
    """Make the tables, and price calls that were under way when the process before this one ended."""
    db.execute("COMMIT")  # these settings are not for a transaction
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found not in (0, _VERSION):
        raise ArtifactError("the ledger was written by another version", got=found, allowed=_VERSION)
    db.executescript(_SCHEMA)
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute(_RECOVER)


def _commit(
    db: sqlite3.Connection, batch: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]], path: Path | None
) -> None:
    """Do what waits in one transaction; all of it is done, or nothing."""
    try:
        db.execute("BEGIN IMMEDIATE")
        results = [job(db) for job, _ in batch]
        db.execute("COMMIT")
    except BaseException as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            error = ArtifactError(f"the ledger {path or 'in memory'} cannot be written or read", got=error)
        for _, future in batch:
            future.set_exception(error)
        return
    for (_, future), result in zip(batch, results, strict=True):
        future.set_result(result)


def _changed(db: sqlite3.Connection, sql: str, values: dict[str, Any]) -> None:
    if db.execute(sql, values).rowcount != 1:
        raise ArtifactError(f"request {values['key']} is answered already; it must not be paid for again")


def _columns(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Completion):
        facts = {"state": "done", "reason": None, "detail": None, "answer": json.dumps(asdict(outcome))}
        return {**facts, "model": outcome.model, "finish_reason": outcome.finish_reason}
    facts = {"state": "failed", "reason": outcome.reason, "detail": outcome.detail, "answer": None}
    return {**facts, "model": None, "finish_reason": None}


def _outcome(state: str, reason: str | None, detail: str | None, answer: str | None) -> Outcome | None:
    if state == "done":
        return Completion(**json.loads(answer or "{}"))
    return Failure(reason or "", detail or "") if state == "failed" else None
