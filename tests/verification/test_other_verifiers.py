"""JSON schemas, a judging model, equations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest

from limbeck.core.errors import DataError, LimbeckError
from limbeck.verification.arithmetic import equations
from limbeck.verification.types import Messages
from tests.verification.cases import candidate, verdict, verifier

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"n": 3}', "right"),
        ('Here:\n```json\n{"n": 3}\n```\n', "right"),
        ('<think>{"n": 1}</think>{"n": 3}', "right"),
        ('{"n": "three"}', "misfit"),
        ("{}", "misfit"),
        ("n = 3", "no_json"),
        ('```python\nn = 3\n```\nThat is:\n```json\n{"n": 3}\n```', "right"),
        ('{"n": 3, "m": NaN}', "no_json"),
        ("[" * 50_000, "no_json"),
    ],
)
def test_json_schema(content: str, reason: str) -> None:
    assert verdict({"type": "json_schema", "schema": SCHEMA}, content).reason == reason
    assert verdict("json_schema", content, SCHEMA).reason == reason


def test_json_schema_refuses_what_is_none() -> None:
    with pytest.raises(ValueError, match="no JSON schema"):
        verifier({"type": "json_schema", "schema": {"type": "nothing"}})
    with pytest.raises(DataError):
        verdict("json_schema", "{}", "not json")


def test_a_recipe_schema_of_dates_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no JSON schema"):
        verifier({"type": "json_schema", "schema": {"const": date(2026, 1, 1)}})


def test_a_schema_that_never_ends_is_stopped() -> None:
    patient = {"type": "json_schema", "schema": {"pattern": "(a+)+$"}, "timeout": 0.3}
    told = verifier(patient).verify([candidate(f'"{"a" * 60}!"'), candidate('"aaa"')])
    assert [each.reason for each in told] == ["timeout", "right"]


@pytest.mark.parametrize("schema", [{"$ref": "http://localhost/other"}, {"pattern": "("}, "[" * 100_000, "[]"])
def test_a_rows_schema_that_cannot_be_used_is_named(schema: object) -> None:
    with pytest.raises(DataError, match=r"JSON schema of prompt p "):
        verdict("json_schema", "{}", schema)


def test_json_that_is_nested_too_deeply_for_a_schema_is_a_misfit() -> None:
    nested = {"type": "json_schema", "schema": {"type": "array", "items": {"$ref": "#"}}}
    assert [verdict(nested, "[" * n + "]" * n).reason for n in (20, 300)] == ["right", "misfit"]


@pytest.mark.parametrize("model", [{"endpoint": {"base_url": "http://x/v1"}}, {"modle": "x"}])
def test_a_judge_that_cannot_be_asked_is_refused_at_once(model: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"model|modle"):
        verifier({"type": "judge", "model": model})


def test_judge_asks_and_reads_the_last_line() -> None:
    asked: list[Messages] = []

    def ask(conversations: Sequence[Messages]) -> list[str | None]:
        asked.extend(conversations)
        replies = ["It fits.\nVERDICT: RIGHT", "**VERDICT: WRONG**", "VERDICT: RIGHT? Hard to say.", None]
        return [*replies]

    given = [candidate("4", 4, question="2+2?"), candidate("5"), candidate("VERDICT: RIGHT"), candidate("6")]
    told = verifier("judge").asking(ask).verify(given)
    assert [each.reason for each in told] == ["right", "wrong", "no_verdict", "judge_failed"]
    assert "2+2?" in asked[0][1]["content"]
    assert "REFERENCE\n4" in asked[0][1]["content"]
    assert "REFERENCE" not in asked[1][1]["content"]
    with pytest.raises(LimbeckError, match="needs a model"):
        verifier("judge").verify(given)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("64+5=69. 69+25=94.", [True, True]),
        ("2 x 3 = 7", [False]),
        ("so 9 * 2 = $<<9*2=18>>18", [True, True]),
        ("so 9 * 2 = $<<9*2=17>>18", [False, True]),
        (r"$\frac{3}{4} = 0.75$", [True]),
        (r"\(2 \times 3 = 6\)", [True]),
        ("1 - 1/4 = 3/4 = 75%", [True, True]),
        ("10/3 = 3", [False]),
        ("10/3 = 3.33", [True]),
        ("10/3 = 3.34", [False]),
        ("1.87*9 = 16.830000000000002", [True]),
        ("0.1 + 0.2 = 0.3", [True]),
        ("20/100*100 = 20%", [True]),
        ("100 * (1 + 5%) = 105", [True]),
        ("1,000 + 1 = 1,001", [True]),
        ("2^10 = 1024", [True]),
        ("1/0 = 3", []),
        ("9^9^9 = 3", []),
        ("3x + 4 = 7", []),
        ("5 apples + 3 apples = 9 apples", []),
        ("17 mod 5 + 1 = 9", []),
        ("√(9*2) = 4.24", []),
        ("5! + 1 = 2", []),
        ("2+2 = 5 + 1", []),
        ("if 2 + 2 == 5", []),
        ("we get d (2/99) = 3", []),
        ("rows 4-6 = 0", []),
        ("12:30 - 2 = 10", []),
        ("Total: 30 - 2 = 28", [True]),
        ("(((9^64)^64)^64)^64 = 3", []),
        ("9" * 5000 + " + 1 = 3", []),
        ("1 +" + " " * 20000 + "1 = 3", []),
        ("then he has 4-6 = 0", [False]),
        ("300/ 1.6666666666666667 = 180", [True]),
    ],
)
def test_equations(text: str, holds: list[bool]) -> None:
    assert [each.holds() for each in equations(text)] == holds


def test_step_equations() -> None:
    told = verdict("step_equations", "64+5=69. 69+25=95. #### 95")
    assert (told.ok, told.reason, told.found) == (False, "wrong_equation", "step 2: 69+25 = 95")
    assert verdict("step_equations", "64+5=69. 69+25=94. #### 94").ok
    assert verdict({"type": "step_equations", "rounded": False}, "10/3=3.33.").reason == "wrong_equation"
    assert verdict({"type": "step_equations", "least": 1}, "It is 4.").reason == "too_few_equations"
    assert verdict("step_equations", "It is 4.", reasoning_content="2+2=5").ok
    assert not verdict({"type": "step_equations", "thought": True}, "It is 4.", reasoning_content="2+2=5").ok
