"""The page in a real browser while a real run is at work: it keeps up, is used by mouse and key, and asks nobody."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")

from limbeck.core.recipe import load_recipe
from limbeck.live.folder import Folder
from limbeck.live.server import Door
from limbeck.live.watch import watch_app
from tests.live.served import served
from tests.live.watching import under_way
from tests.pipeline.recipes import language, stage
from tests.report.drive import PATIENCE

pytestmark = pytest.mark.timeout(900)

LIMBECK = [sys.executable, "-m", "limbeck"]


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen([*LIMBECK, *words], env=environment, text=True, stdout=subprocess.DEVNULL, **options)


def watched(path: Path) -> Iterator[str]:
    """The address of `limbeck watch`, which ends by itself on Ctrl-C."""
    with start("watch", str(path), "--port", "0", stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())
            assert found is not None
            yield found[0]
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()


def opened(browser: Any, address: str, **look: Any) -> tuple[Any, list[str], set[str]]:
    """The page, what the console said, and the hosts that were asked."""
    page = browser.new_page(**{"viewport": {"width": 1100, "height": 900}, **look})
    page.set_default_timeout(PATIENCE)
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.goto(address)
    return page, said, asked


def until(page: Any, holds: str, given: Any = None) -> None:
    """Wait until an expression is true; Playwright's own way evaluates in the page, whose policy forbids that."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(holds, given):
        assert time.monotonic() < deadline, holds
        page.wait_for_timeout(100)


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A run that was stopped in the middle, made by hand, and its page."""
    path = under_way(tmp_path / "run")
    with served(watch_app(Folder(path), Door())) as address:
        yield path, address


@pytest.mark.slow
def test_it_keeps_up_with_a_real_run(tmp_path: Path, browser: Any) -> None:
    plan = stage(max_steps=1200, eval_steps=60)  # long enough to be seen at work
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(load_recipe(language(tmp_path / "run", stages=[plan], baseline=True)).model_dump_json())
    run = start("run", str(recipe), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "run" / "recipe.json").exists():
            assert time.monotonic() < deadline, "the run did not begin"
            assert run.poll() is None
            time.sleep(0.1)
        for address in watched(tmp_path / "run"):
            page, said, asked = opened(browser, address)
            follow(page)
            until(page, "document.querySelectorAll('.chain .done').length === 5")
            assert "All steps are done" in page.locator("#phase").inner_text()
            assert said == []
            assert asked == {urlsplit(address).netloc}
            page.close()
        assert run.wait(timeout=120) == 0
    finally:
        run.kill()
        run.wait()


def follow(page: Any) -> None:
    """From the first step of the student on: figures move, a line is hidden, an answer is turned to."""
    until(page, "document.querySelector('[data-look=training-student][aria-current]')")
    page.locator("[data-look=training-student]").click()  # stay with it
    page.wait_for_selector('[data-plot="loss"]')
    hide = page.locator('[data-plot="loss"] .toggle[data-role="term-1"]')
    hide.click()
    before = page.locator(".now").inner_text()
    drawn = page.locator("#curves").inner_html()
    until(page, "before => document.querySelector('.now').innerText !== before", before)
    until(page, "drawn => document.getElementById('curves').innerHTML !== drawn", drawn)
    assert hide.get_attribute("aria-pressed") == "false"  # it stays hidden in the new curves
    assert page.locator('[data-plot="loss"] .gone').count() >= 1
    page.wait_for_selector("#answers .beside td")
    page.wait_for_selector("[data-look=earlier]")
    page.locator("[data-look=earlier]").click()
    page.wait_for_selector("[data-look=latest]")
    page.locator("[data-look=latest]").click()
    page.wait_for_selector("[data-look=latest]", state="detached")


@pytest.mark.slow
def test_a_pause_and_a_server_that_ends(standing: tuple[Path, str], browser: Any) -> None:
    path, address = standing
    page, said, _ = opened(browser, address)
    until(page, "document.getElementById('fresh').textContent.startsWith('Read at')")
    page.locator("#pause").click()
    assert page.locator("#fresh").inner_text() == "Paused"
    (path / ".train.partial" / "evals.jsonl").unlink()
    time.sleep(2.5)
    assert page.locator("#evals table").count() == 1
    page.locator("#pause").click()
    until(page, "document.querySelectorAll('#evals table').length === 0")
    assert said == []
    page.route("**/parts*", lambda route: route.abort())
    until(page, "document.getElementById('lost').textContent.includes('does not answer')")
    page.unroute("**/parts*")
    until(page, "document.getElementById('lost').textContent === ''")
    page.close()


def test_everything_is_reached_by_key_and_fits_a_phone(standing: tuple[Path, str], browser: Any) -> None:
    look = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    page, said, asked = opened(browser, standing[1], **look)
    until(page, "document.getElementById('fresh').textContent !== ''")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wanted = page.evaluate("document.querySelectorAll('button, a[href], [tabindex=\"0\"]').length")
    seen = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(seen) >= wanted > 8
    page.locator("[data-look=training-teacher]").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('[data-look=training-teacher][aria-current]')")
    assert page.evaluate("document.activeElement.dataset.look") == "training-teacher"  # the place is kept
    assert said == []
    assert asked == {urlsplit(standing[1]).netloc}
    page.close()


def test_it_can_be_read_without_a_script(standing: tuple[Path, str], browser: Any) -> None:
    page, *_ = opened(browser, standing[1], java_script_enabled=False)
    assert "Stopped in the step" in page.locator("#phase").inner_text()
    assert page.locator("#curves figure").count() == 4
    assert not page.locator("#pause").is_visible()
    page.locator("[data-look=earlier]").click()
    assert "1+1=11." in page.locator("#answers").inner_text()
    page.close()
