"""What a worker process does: one task a line on its input, one answer a line on its output.

Run as `python -m limbeck.verification.worker <job>`. It says `ready` once its libraries are loaded, and ends when its
input does. If its parent cannot stop it any more, an alarm ends it: twice its time after a task began.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

Job = Callable[[dict[str, Any]], Any]


def _math() -> Job:
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # it warns that its timeouts are off; the parent process has a harder one
    read: dict[str, Any] = {}

    def parsed(text: str) -> Any:
        if len(read) > 1000:
            read.clear()
        if text not in read:
            read[text] = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
        return read[text]

    def compare(task: dict[str, Any]) -> str:
        right, found = parsed(task["reference"]), parsed(task["found"])
        if not right:
            return "no_reference"
        if not found:
            return "unreadable"
        return "right" if verify(right, found, timeout_seconds=None) else "wrong"

    return compare


def _regex() -> Job:
    def search(task: dict[str, Any]) -> dict[str, Any] | None:
        last = deque(re.finditer(task["pattern"], task["text"]), maxlen=1)
        if not last:
            return None
        return {"text": last[0][0], "group": last[0][1] if last[0].re.groups else None}

    return search


def _schema() -> Job:
    from jsonschema import SchemaError
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    def fit(task: dict[str, Any]) -> tuple[str, str | None]:
        try:
            value = json.loads(task["text"], parse_constant=_no_number)
        except (ValueError, RecursionError):
            return "no_json", None
        kind = validator_for(task["schema"])
        try:
            kind.check_schema(task["schema"])
            # Nothing is fetched: what the schema refers to has to lie in it.
            error = best_match(kind(task["schema"], registry=Registry()).iter_errors(value))
        except (SchemaError, Unresolvable) as wrong:
            return "no_schema", str(getattr(wrong, "message", wrong))
        except RecursionError:
            return "misfit", "nested too deeply"
        if error is not None:
            return "misfit", f"{error.json_path}: {error.message}"[:300]
        return "right", json.dumps(value, ensure_ascii=False, sort_keys=True)

    return fit


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # Python reads NaN and Infinity, nobody else does


JOBS: dict[str, Callable[[], Job]] = {"math": _math, "regex": _regex, "schema": _schema}


def main(job: str) -> None:
    """Serve a job until the input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    do = JOBS[job]()
    out.write('"ready"\n')
    out.flush()
    for line in sys.stdin:
        task = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, 2 * task["timeout"])
        try:
            answer = {"value": do(task)}
        except (Exception, RecursionError) as error:  # whatever a library throws is an answer that it cannot read
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
