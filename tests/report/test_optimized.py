"""The table of optimizations: a line for each pass, in both languages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from limbeck.report.formats import DASH
from limbeck.report.sections import sections
from limbeck.report.tables.optimized import passes
from tests.cli.test_optimize import LINES
from tests.report.made import make_facts, manifest


@pytest.mark.parametrize(
    ("language", "spread"), [("en", "0.50 ms to 0.70 ms; CPU 0.55 ms"), ("zh", "0.50 ms 至 0.70 ms")]
)
def test_every_pass_has_a_line(language: str, spread: str) -> None:
    made = make_facts()
    told = manifest("optimize", "o", {"train": "sha256:1"}, 3.0, passes=LINES, batch_size=8, engine="onnxruntime")
    facts = replace(
        made, manifests={**made.manifests, "optimize": told}, recipe={**made.recipe, "report": {"language": language}}
    )
    table = passes(facts)
    assert len(table.columns) == 12
    first, refused = table.lines
    assert first.head == "as it is"
    assert spread in first.cells[4].small.replace("\N{NO-BREAK SPACE}", " ")
    assert first.cells[2].text == "110"
    assert refused.cells[0].text == "does not apply: the model has no gate"
    assert {cell.text for cell in refused.cells[1:]} == {DASH}
    assert table in next(each for each in sections(facts) if each.id == "shipped").blocks


def test_nothing_is_shown_where_nothing_was_tried() -> None:
    assert not passes(make_facts())
