"""A page in a real browser, looked at as its readers do: by eye, by key, on a phone, in the dark, on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 240_000
"""Milliseconds; browsers are slow to start on a busy machine."""

_PLOTS = """() => [...document.querySelectorAll('svg[role=img]')].filter(svg => svg.getBoundingClientRect().height)
.map(svg => ({
    title: svg.querySelector('title').textContent, desc: svg.querySelector('desc').textContent,
    axes: [...svg.querySelectorAll('.axis')].map(g => g.textContent.trim()),
    tall: svg.getBoundingClientRect().height,
    texts: [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
        .filter(([text, box]) => text.trim() && box.width).map(([text, b]) => [text, b.left, b.top, b.right, b.bottom])
}))"""
_FOCUSABLE = "summary, [tabindex='0'], a[href]"
_UNREACHED = """wanted => [...document.querySelectorAll('*')].filter(e => !e.matches(wanted) && e.clientWidth &&
    e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'auto').length"""


@contextmanager
def started() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is driven")
    if BROWSER is None:
        pytest.skip("chromium is not installed: no page is driven")
    with api.sync_playwright() as made:
        browser = made.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"], timeout=PATIENCE
        )
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = 1100, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """A page, and what it did that it should not: words on the console, errors, requests other than for itself."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    did: list[str] = []
    page.on("console", lambda message: did.append(message.text))
    page.on("pageerror", lambda error: did.append(str(error)))
    own = (path.as_uri(), "data:image/png;base64,")
    page.on("request", lambda request: None if request.url.startswith(own) else did.append(request.url))
    page.goto(path.as_uri())
    yield page, did
    page.close()


def plots(page: Any) -> list[dict[str, Any]]:
    """Every plot that is seen: each has a title, a description, and names at both axes; no writing covers another."""
    found: list[dict[str, Any]] = page.evaluate(_PLOTS)
    width = page.evaluate("() => document.documentElement.clientWidth")
    for plot in found:
        assert plot["title"]
        assert len(plot["desc"]) > 20, plot["title"]
        assert len(plot["axes"]) == 2
        assert all(plot["axes"]), plot["title"]
        assert plot["tall"] > 30
        boxes = [(text, *box) for text, *box in plot["texts"]]
        assert all(left >= -1 and right <= width + 1 for _, left, _, right, _ in boxes), plot["title"]
        covered = [(a[0], b[0]) for i, a in enumerate(boxes) for b in boxes[:i] if _overlap(a, b)]
        assert covered == [], f"{plot['title']}: {covered}"
    return found


def _overlap(a: tuple[Any, ...], b: tuple[Any, ...], least: float = 2.0) -> bool:
    """Whether two boxes (text, left, top, right, bottom) share more than `least` pixels each way."""
    return min(a[3], b[3]) - max(a[1], b[1]) > least and min(a[4], b[4]) - max(a[2], b[2]) > least


def walk(page: Any) -> int:
    """Go through the page by Tab and open what opens: everything that opens, scrolls or leads away is reached."""
    assert page.evaluate(_UNREACHED, _FOCUSABLE) == 0, "something scrolls that no key reaches"
    page.evaluate(f'() => document.querySelectorAll("{_FOCUSABLE}").forEach((e, i) => e.dataset.place = i)')
    seen: set[str] = set()
    while True:
        page.keyboard.press("Tab")
        at, tag = page.evaluate("() => [document.activeElement.dataset.place ?? '', document.activeElement.tagName]")
        if not at or at in seen:
            break
        seen.add(at)
        if tag == "SUMMARY":
            page.keyboard.press("Enter")
    reached = page.locator(_FOCUSABLE).count()
    assert len(seen) == reached
    assert page.locator("details[open]").count() == page.locator("details").count()
    return reached


def sideways(page: Any) -> int:
    """By how many pixels the page is wider than its window."""
    wide: int = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wide
