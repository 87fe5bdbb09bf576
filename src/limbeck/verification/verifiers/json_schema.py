"""Answers that are JSON of a given form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from pydantic import field_validator

from limbeck.core.errors import DataError, MissingExtra
from limbeck.core.parts import part
from limbeck.verification.answers import fenced, without_thought
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of


@part
class JsonSchema(Verifier):
    """The answer is JSON that fits a JSON schema: the last fenced block, or the whole answer.

    The schema is given in the recipe, or is each row's reference (a mapping, or its text). Nothing is fetched: a
    reference within a schema has to lie in the schema itself.

    Reasons: `right`, `no_json`, `misfit` (found says where and why).
    """

    schema: dict[str, Any] | None = None
    """The schema of all rows; left out, each row's reference is its own."""

    @field_validator("schema")
    @classmethod
    def _is_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            _validator(value)
        return value

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        shared = None if self.schema is None else _validator(self.schema)
        return [_verdict(each, shared or _validator(self._reference(each))) for each in candidates]

    def _reference(self, candidate: Candidate) -> Mapping[str, Any]:
        value = reference_of(candidate, self.type())
        try:
            found = json.loads(value) if isinstance(value, str) else value
            if isinstance(found, Mapping):
                _validator(found)
                return found
        except ValueError:
            pass
        raise DataError(f"the reference of prompt {candidate.prompt} is no JSON schema", got=repr(value)[:200])


def _validator(schema: Mapping[str, Any]) -> Any:
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
        from referencing import Registry
    except ImportError as error:
        raise MissingExtra("the verifier 'json_schema'", "generate") from error
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON schema: {error.message}") from error
    return kind(schema, registry=Registry())


def _verdict(candidate: Candidate, validator: Any) -> Verdict:
    rest = without_thought(candidate.content) or ""
    blocks = fenced(rest, ("", "json"))
    from jsonschema.exceptions import best_match

    try:
        value = json.loads(blocks[-1] if blocks else rest, parse_constant=_no_number)
        error = best_match(validator.iter_errors(value))
        if error is None:
            return Verdict(True, "right", json.dumps(value, ensure_ascii=False, sort_keys=True))
    except (ValueError, RecursionError):
        return Verdict(False, "no_json")
    return Verdict(False, "misfit", f"{error.json_path}: {error.message}"[:300])


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # Python reads NaN and Infinity, nobody else does
