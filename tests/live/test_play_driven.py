"""The playground in a real browser, on runs that were really trained: typed into, clicked, and asked of nobody else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="fastapi is not installed")

from limbeck.core.recipe import load_recipe
from limbeck.data.dataset import load_splits
from limbeck.live.desk import Desk
from limbeck.live.opened import Opened
from limbeck.live.play import play_app
from limbeck.live.server import Door
from limbeck.pipeline.run import run_recipe
from limbeck.tasks.causal_lm import CausalLM
from tests.live.playing import Runs
from tests.live.playing import opened as opened_run
from tests.live.served import served
from tests.pipeline.recipes import language, qwen
from tests.report.drive import PATIENCE

pytestmark = pytest.mark.timeout(900)

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"


@contextmanager
def played(run: Opened, language: str | None = None) -> Iterator[str]:
    """The address of the run's page; the command itself is started in `test_play_paid.py`."""
    desk = Desk()
    with served(play_app(run, Door(), desk, language=language)) as address:
        yield address
    desk.close()


@contextmanager
def opened(browser: Any, address: str, **look: Any) -> Iterator[Any]:
    """The page; nothing is said to the console, and nobody but this address is asked."""
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **look})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.goto(address)
    yield page
    assert said == []
    assert asked - {""} == {urlsplit(address).netloc}  # data: has none
    context.close()


def texts(page: Any, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def test_a_language_model_is_typed_to_stopped_and_asked_again(browser: Any, tmp_path: Path) -> None:
    made = language(tmp_path / "run")
    for role, width in (("teacher", 16), ("student", 8)):
        made[role] |= {"config": {**qwen(width), "max_position_embeddings": 4096}}
    run = run_recipe(load_recipe(made), until="train").output
    with played(opened_run(run)) as address, opened(browser, address) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.keyboard.type("Ann has 3 pens. She buys 4. How many?")
        page.fill("[name=max_new_tokens]", "2000")
        page.focus("#prompt")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("[data-model=teacher] .text:not(:empty)")
        early = page.inner_text("[data-model=teacher] .text")
        page.click("#stop")
        page.wait_for_selector("#state:text('Stopped.')")
        assert page.inner_text("[data-model=teacher] .text").startswith(early[:5])
        assert page.locator("[data-model=student] .text").count() == 0
        assert page.evaluate("document.activeElement.id") == "ask"

        page.fill("[name=max_new_tokens]", "8")
        page.click("#ask")  # the answer that was stopped is out of the way
        page.wait_for_selector("#history li:nth-child(2)")
        assert all(" · 8 tokens · " in each for each in texts(page, ".result"))
        assert "answer" in page.inner_text("#verdict")
        assert page.locator("#verdict td").count() >= 2

        page.click("#clear")
        assert page.is_hidden("#history")

        page.click("#draw")
        page.wait_for_selector("#ask:focus")
        page.keyboard.press("Enter")
        page.wait_for_selector("#history li")
        page.click("#history button")  # ask again
        page.wait_for_selector("#history li:nth-child(2)")
        page.select_option("#history li:nth-child(2) select", label="not named")
        page.select_option("#history li:nth-child(2) select", label="the test row\u2019s")
        with page.expect_download() as download:
            page.click("#download")
        download.value.save_as(tmp_path / "questions.jsonl")
        shown = page.inner_text("#target b")
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [list(row["answers"]) for row in rows] == [["teacher", "student"]] * 2
    source = str(tmp_path / "questions.jsonl")
    data = load_recipe({**made, "data": {"train": source, "validation": source}}).data
    known = load_splits(data, CausalLM(answer_pattern=None), need_test=False)
    assert [sample.target for sample in known.train] == [shown, shown]


def test_a_classifier_speaks_chinese_on_a_phone_and_shows_text_as_text(browser: Any, runs: Runs) -> None:
    look = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    with played(runs["text-classification"], "zh") as address, opened(browser, address, **look) as page:
        assert page.inner_text("#ask") == "提问"
        page.click("#ask")
        page.wait_for_selector("#wrong:text('请先输入内容。')")
        page.fill("#text", HOSTILE)
        page.click("#ask")
        page.wait_for_selector("#history li")
        assert page.is_hidden("#wrong")
        assert page.inner_text("#history .asked") == HOSTILE
        assert page.title() != "taken"
        for shown in texts(page, ".top"):
            assert sum(float(value) for value in re.findall(r"([\d.]+) %", shown)) == pytest.approx(100, abs=0.2)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 23, 27)"
        page.fill("#text", "")
        page.click("#draw")
        page.wait_for_selector("#ask:focus")
        assert re.fullmatch(r"it is \d today", page.input_value("#text"))
        page.click("#history button")
        page.wait_for_selector("#history li:nth-child(2)")
        assert page.input_value("#text") == HOSTILE


def test_pictures_are_chosen_and_rows_are_drawn_even_without_script(browser: Any, runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "three.png"
    Image.new("RGB", (20, 20), (250, 250, 250)).save(file)
    with played(runs["image-classification"]) as address:
        with opened(browser, address) as page:
            page.click("#ask")
            page.wait_for_selector("#wrong:text('Choose a picture first')")
            page.set_input_files("#file", file)
            page.wait_for_selector("#shown[src^='data:image/png']")
            page.click("#ask")
            page.wait_for_selector("#history li")
            assert page.is_hidden("#target")
            assert len(texts(page, ".said")) == 2
            page.click("#draw")
            page.wait_for_selector("#ask:focus")
            page.keyboard.press("Control+Enter")
            page.wait_for_selector("#history li:nth-child(2)")
            target = page.inner_text("#target b")
            for said in texts(page, ".said"):
                assert said.endswith("not right") == (said.split()[0] != target)
        with opened(browser, address, java_script_enabled=False) as page:
            page.click("#draw")
            page.wait_for_selector(".said >> nth=1")
            assert page.inner_text("#target b") in "0123456789"
            assert re.match(r"\d (not )?right", texts(page, ".said")[0])
