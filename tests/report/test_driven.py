"""The page driven in a real browser: nothing is asked of the network, everything is reached by key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limbeck.report.facts import Facts
from limbeck.report.render import write_report
from tests.report.details import make_details, worked
from tests.report.made import make_facts

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the page is not driven")
BROWSER = shutil.which("chromium")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed: the page is not driven")

PATIENCE = 240_000
"""Milliseconds; browsers are slow to start on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield made
        made.close()


def facts() -> Facts:
    hostile = {
        "prediction": "x",
        "text": "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> 1+1=2.",
    }
    example = worked("row-1", "lost", teacher=hostile, student={**hostile, "text": "<b>1+1=3.</b>" + "long" * 900})
    return make_facts(details=make_details(examples=[example]))


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str], list[str], Path]]:
    """The page of the report, what the console said, and what was asked for."""
    path = write_report(facts(), tmp_path_factory.mktemp("driven"))[0]
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page, said, asked, path
    page.close()


def test_nothing_is_said_and_nothing_is_asked(opened: Any) -> None:
    page, said, asked, path = opened
    assert said == []
    assert asked == [path.as_uri()]
    assert page.title() == "banking77: MiniLM, six layers into two"
    assert page.locator("script, img").count() == 0


def test_every_plot_tells_what_it_shows(opened: Any) -> None:
    page, *_ = opened
    told = page.evaluate(
        """() => [...document.querySelectorAll('svg[role=img]')].map(svg => ({
            title: svg.querySelector('title').textContent, desc: svg.querySelector('desc').textContent,
            axes: [...svg.querySelectorAll('.axis')].map(g => g.textContent.trim()),
            tall: svg.getBoundingClientRect().height }))"""
    )
    assert len(told) == 11
    for plot in told:
        assert plot["title"]
        assert len(plot["desc"]) > 20
        assert len(plot["axes"]) == 2
        assert all(plot["axes"])
        assert plot["tall"] > 30


def test_everything_that_opens_or_scrolls_is_reached_by_key(opened: Any) -> None:
    page, *_ = opened
    wanted = page.locator("summary").count() + page.locator("section > .scroll, .example .scroll").count()
    reached = page.evaluate("() => [...document.querySelectorAll('summary, [tabindex=\"0\"], a[href]')].length")
    assert reached >= wanted > 10
    seen, opens = set(), page.locator("summary").count()
    for _ in range(reached + 4):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "() => document.activeElement.tagName === 'SUMMARY' ? document.activeElement.textContent : ''"
        )
        if at and at not in seen:
            seen.add(at)
            page.keyboard.press("Enter")
    assert len(seen) == opens
    assert page.locator("details[open]").count() == opens


def test_a_phone_shows_it_without_scrolling_sideways(opened: Any) -> None:
    page, *_ = opened
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
