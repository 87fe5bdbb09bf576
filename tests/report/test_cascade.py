"""The cascade in the report: its curve, its promise, and whether the test rows bear it out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.evaluation.cascade import Rows, curve_of, fit
from limbeck.pipeline.cascade import _shown
from limbeck.report.render import write_report
from tests.report.made import NO_LOGS, RECIPE, make_facts


def curve(**changes: Any) -> dict[str, Any]:
    """As `cascade/curve.json` has it."""
    draw = np.random.default_rng(0)
    sure = draw.uniform(0.3, 1, 800)
    rows = Rows(sure[None], np.stack([draw.uniform(size=800) < sure, draw.uniform(size=800) < 0.96]))
    fitted = fit(rows, "accuracy", 0.9)
    points = [_shown(point, 800, 0.95) for point in fitted.curve]
    chosen = next(p for p in points if p["threshold"] == fitted.point.threshold)
    found = {"models": ["student", "teacher"], "promise": "accuracy", "target": 0.9, "level": 0.95, "n": 800}
    found |= {"costs": None, "chosen": asdict(fitted.point), "fit": [asdict(p) for p in curve_of(rows)]}
    found["test"] = {"n": 800, "confidence": 0.95, "points": points, "chosen": chosen, "kept": True}
    return found | changes


def page(folder: Path, found: dict[str, Any], language: str = "en") -> str:
    recipe = {**RECIPE, "report": {"language": language}}
    write_report(make_facts(details={"cascade": found}, recipe=recipe, **NO_LOGS), folder)
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("accuracy of at least 90", "The test rows bear it out", "Teacher alone", "(chosen)")),
        ("zh", ("准确率不低于 90", "测试数据证实了这一承诺", "仅教师模型", "选定的阈值")),
    ],
)
def test_page_tells_promise_and_curve(tmp_path: Path, language: str, words: tuple[str, ...]) -> None:
    found = page(tmp_path, curve(), language)

    assert 'aria-labelledby="cascade-t cascade-d"' in found
    for each in words:
        assert each in found
    assert f"{curve()['chosen']['threshold']:.4f}" in found


def test_broken_promise_and_missing_test_rows_are_told(tmp_path: Path) -> None:
    found = curve()

    assert "promise is not kept" in page(tmp_path / "a", {**found, "test": {**found["test"], "kept": False}})
    alone = page(tmp_path / "b", {k: v for k, v in found.items() if k != "test"})
    assert "there are no test rows" in alone
    assert "bear it out" not in alone


def test_without_a_cascade_there_is_no_section(tmp_path: Path) -> None:
    write_report(make_facts(details={}, **NO_LOGS), tmp_path)

    assert 'id="cascade"' not in (tmp_path / "index.html").read_text(encoding="utf-8")
