"""Logs as lines of JSON, without what callers send."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

from pydantic_core import to_json

ACCESS = logging.getLogger("limbeck.serving.access")
"""One line for every request that ended."""
_KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_request(**fields: Any) -> None:
    """Write the line of a request that ended.

    Args:
        fields: what is told of it.
    """
    if ACCESS.isEnabledFor(logging.INFO):  # not `ACCESS.info`, which would look where in the code it was called
        level = {"name": ACCESS.name, "levelno": logging.INFO, "levelname": "INFO"}
        ACCESS.handle(logging.makeLogRecord({**level, "msg": "request", **fields}))


class JsonLines(logging.Formatter):
    """A record as one line of JSON.

    Of an exception, its type and the places in the code are told, not its message: that may quote a request.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if record.exc_info and record.exc_info[0] is not None:
            frames = traceback.extract_tb(record.exc_info[2])
            line["error"] = record.exc_info[0].__name__
            line["at"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
        return to_json(line, fallback=str).decode()


def log_json(stream: TextIO | None = None) -> None:
    """Write limbeck's and the servers' logs as lines of JSON.

    Args:
        stream: left out: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("limbeck", logging.INFO), ("uvicorn.error", logging.WARNING), ("grpc", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
