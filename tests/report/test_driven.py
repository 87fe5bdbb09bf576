"""Reports of the three kinds of runs, driven in a real browser: pictures, texts by class, worked answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.report.render import write_report
from tests.report.details import make_details, worked
from tests.report.drive import opened, plots, sideways, started, walk
from tests.report.kinds import KINDS
from tests.report.made import make_facts

SEEN = {"quickstart": 9, "banking77": 11, "reasoning": 10}
"""Plots of each kind of report."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started() as made:
        yield made


@pytest.fixture(scope="module", params=list(KINDS))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A kind of run, and its report."""
    return request.param, write_report(KINDS[request.param](), tmp_path_factory.mktemp(request.param))[0]


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")], ids=["desk", "phone"])
def test_the_page_is_quiet_and_its_plots_can_be_read(
    browser: Any, written: tuple[str, Path], width: int, scheme: str
) -> None:
    kind, path = written
    with opened(browser, path, width, scheme) as (page, did):
        assert len(plots(page)) == SEEN[kind]
        assert sideways(page) <= 0
        assert page.locator("script").count() == 0
        assert page.locator("img").count() == (10 if kind == "quickstart" else 0)
        assert page.evaluate("() => [...document.images].every(i => i.naturalWidth > 0 && i.alt)")
        assert did == []


def test_everything_is_reached_by_key(browser: Any, written: tuple[str, Path]) -> None:
    with opened(browser, written[1], 390) as (page, did):
        assert walk(page) > 10
        assert sideways(page) <= 0
        assert did == []


def test_paper_shows_what_is_folded(browser: Any, written: tuple[str, Path]) -> None:
    with opened(browser, written[1]) as (page, _):
        page.emulate_media(media="print")
        folded = page.locator("details > :not(summary)")
        assert folded.count() >= 3
        assert all(each.bounding_box()["height"] > 20 for each in folded.all())
        assert len(page.pdf(format="A4")) > 20_000


def test_chinese(browser: Any, written: tuple[str, Path], tmp_path: Path) -> None:
    kind, _ = written
    facts = KINDS[kind]()
    facts = replace(facts, recipe={**facts.recipe, "report": {"language": "zh"}})
    with opened(browser, write_report(facts, tmp_path)[0], 390) as (page, did):
        assert len(plots(page)) == SEEN[kind]
        heads = page.locator("h2, caption, th[scope=col]").all_text_contents()
        known = ("AUROC", "F1", "p", *facts.manifests)
        latin = [head for head in heads if not any("\u4e00" <= sign <= "\u9fff" for sign in head)]
        assert [head for head in latin if not any(name in head for name in known)] == []
        assert did == []


def test_hostile_answers_do_nothing(browser: Any, tmp_path: Path) -> None:
    text = "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> 1+1=2."
    said = {"prediction": "x", "text": text}
    example = worked("row-1", "lost", teacher=said, student={**said, "text": "<b>1+1=3.</b>" + "long" * 900})
    away = {"id": "r", "kind": "lost", "image": "https://example.org/x.png", "teacher": {}, "student": {}}
    path = write_report(make_facts(details=make_details(examples=[example, away])), tmp_path)[0]
    with opened(browser, path, 390) as (page, did):
        assert page.title() == "banking77: MiniLM, six layers into two"
        assert page.locator("script, img").count() == 0
        assert sideways(page) <= 0
        assert did == []
