"""Answers that are JSON of a given form."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from limbeck.core.errors import DataError, MissingExtra
from limbeck.core.parts import part
from limbeck.verification.answers import fenced, without_thought
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of
from limbeck.verification.workers import Result, workers


@part
class JsonSchema(Verifier):
    """The answer is JSON that fits a JSON schema: the last fenced block, or the whole answer.

    The schema is given in the recipe, or is each row's reference (a mapping, or its text). Nothing is fetched: a
    reference within a schema has to lie in the schema itself. Answers are checked in a process that is killed after
    `timeout`, since a schema's patterns never end on some texts.

    Reasons: `right`, `no_json`, `misfit` (found says where and why), `timeout`, `crashed`.
    """

    schema: dict[str, Any] | None = None
    """The schema of all rows; left out, each row's reference is its own."""
    timeout: float = Field(default=5.0, gt=0)
    """Seconds that one answer may take."""

    @field_validator("schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            _check(value)
        return value

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        if importlib.util.find_spec("jsonschema") is None:
            raise _missing()
        schemas = [self._reference(each) if self.schema is None else self.schema for each in candidates]
        tasks = [{"schema": s, "text": _json_of(each)} for s, each in zip(schemas, candidates, strict=True)]
        results = workers("schema", 1).map(tasks, self.timeout)
        return [_verdict(each, result) for each, result in zip(candidates, results, strict=True)]

    def _reference(self, candidate: Candidate) -> Mapping[str, Any]:
        value = reference_of(candidate, self.type())
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, Mapping):
            raise _no_schema(candidate, repr(value)[:200])
        return found


def _missing() -> MissingExtra:
    return MissingExtra("the verifier 'json_schema'", "generate")


def _no_schema(candidate: Candidate, got: str) -> DataError:
    return DataError(f"the JSON schema of prompt {candidate.prompt} cannot be used", got=got)


def _check(schema: Mapping[str, Any]) -> None:
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise _missing() from error
    try:
        json.dumps(schema)
        validator_for(schema).check_schema(schema)
    except (SchemaError, TypeError) as error:  # YAML knows dates, which JSON does not
        raise ValueError(f"no JSON schema: {getattr(error, 'message', error)}") from error


def _json_of(candidate: Candidate) -> str:
    rest = without_thought(candidate.content) or ""
    blocks = fenced(rest, ("", "json"))
    return blocks[-1] if blocks else rest


def _verdict(candidate: Candidate, result: Result) -> Verdict:
    if result.failure is not None:
        return Verdict(False, "timeout" if result.failure == "timeout" else "crashed", result.detail or None)
    reason, found = result.value
    if reason == "no_schema":
        raise _no_schema(candidate, found)
    return Verdict(reason == "right", reason, found)
