"""The part of the report for the gate and the exports, in both languages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from limbeck.report.blocks import Section
from limbeck.report.facts import Facts
from limbeck.report.formats import DASH
from limbeck.report.sections import sections
from limbeck.report.tables.models import efficiency
from limbeck.report.tables.shipped import exports, gate
from tests.report.made import NO_LOGS, make_facts, manifest, score

GATE: dict[str, Any] = {
    **{"passed": True, "drop": 0.002, "upper": 0.0061, "agreement": 0.985, "n": 1000, "crossed": []},
    "limits": {"drop": 0.003, "bound": 0.01, "agreement": None, "confidence": 0.95, "max_samples": None},
}
EXPORT = {"format": "onnx", "precision": "int8", "bytes": 1_300_000, "opset": 21, "max_difference": 0.00021}
PARITY = {"same_answers": 0.9844, "answers": 64, "latency_p50": {"student": 1.2, "export": 0.4}}


def shipped(language: str = "en", **changes: Any) -> Facts:
    made = make_facts(details={}, **NO_LOGS)
    onnx = manifest("export", "c", {"compress": "sha256:1"}, 3.0, **EXPORT, **PARITY)
    pte = manifest("export", "d", {"compress": "sha256:1"}, 3.0, format="executorch", bytes=9, notes=[])
    manifests = {**made.manifests, "export/onnx": onnx, "export/phone": pte}
    recipe = {**made.recipe, "report": {"language": language}}
    return replace(made, recipe=recipe, manifests=manifests, gate=GATE, **changes)


def section(facts: Facts) -> Section:
    return next(each for each in sections(facts) if each.id == "shipped")


def test_gate_says_what_was_found_and_what_was_asked() -> None:
    ((_, told),) = gate(shipped()).items

    assert "On 1,000 validation rows" in told
    assert "is \u22120.2\u00a0points beside the student's" in told
    assert "with 95\u00a0% confidence it is worse by less than 0.6\u00a0points" in told
    assert "the student's on 98.5\u00a0% of them" in told
    assert told.endswith("Held to: a fall of at most 0.3\u00a0points and a bound of at most 1.0\u00a0point.")


def test_gate_that_asked_for_nothing() -> None:
    limits = {**GATE["limits"], "drop": None, "bound": None}
    ((_, told),) = gate(replace(shipped(), gate={**GATE, "drop": 0.0, "limits": limits})).items

    assert "is 0.0\u00a0points beside" in told
    assert "Held to" not in told


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["perplexity is 101.0\u00a0% of", "is below 101.8\u00a0% of it", "a rise of at most 2.0\u00a0%"]),
        (
            "zh",
            [
                "\u56f0\u60d1\u5ea6\u662f\u539f\u5b66\u751f\u6a21\u578b\u7684 101.0\u00a0%",
                "\u4e0a\u5347\u81f3\u591a 2.0\u00a0%",
            ],
        ),
    ],
)
def test_gate_of_answers_that_are_not_graded(language: str, said: list[str]) -> None:
    found = {**GATE, "drop": 0.01, "upper": 0.018, "score": "perplexity", "limits": {**GATE["limits"], "drop": 0.02}}
    ((_, told),) = gate(replace(shipped(language), gate=found)).items

    assert all(each in told for each in said), told


def test_exports_stand_beside_their_student() -> None:
    table = exports(shipped())

    onnx, phone = table.lines
    texts = [cell.text for cell in onnx.cells]
    assert (onnx.head, onnx.cells[0].small) == ("onnx", "int8")
    assert texts == ["onnx", "21", "1.3\u00a0MB", "0.000210", "98.4\u00a0%", "0.40\u00a0ms"]
    assert onnx.cells[-1].small == "the student's: 1.2\u00a0ms"
    assert [cell.text for cell in phone.cells][1:] == [DASH, "9\u00a0B", DASH, DASH, DASH]


def test_nothing_is_shown_where_nothing_was_shipped() -> None:
    assert "shipped" not in [each.id for each in sections(make_facts(details={}, **NO_LOGS))]


@pytest.mark.parametrize(("language", "words"), [("en", "Compressed and exported"), ("zh", "压缩与导出")])
def test_both_languages_have_the_words(language: str, words: str) -> None:
    assert section(shipped(language)).title == words


def test_compressed_student_stands_after_the_student() -> None:
    facts = shipped(scores=[*make_facts().scores, score("compressed", "efficiency", "latency_p50", 0.4, unit="ms")])

    assert list(efficiency(facts).columns)[1:4] == ["Teacher", "Student", "Compressed student"]
