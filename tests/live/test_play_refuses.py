"""What is sent to the playground is bounded, and what is wrong with it is said plainly."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="fastapi is not installed")

from limbeck.live.asking import Answered, compare
from limbeck.live.models import Answer
from limbeck.live.question import CHARACTERS, PIXELS
from limbeck.live.server import rendered
from limbeck.live.words import words
from limbeck.report import formats
from tests.live.playing import Loud, Runs, client, events

HOSTILE = "</textarea><script>document.title = 'taken'</script>"


def sent(image: Image.Image) -> str:
    kept = io.BytesIO()
    image.save(kept, "PNG")
    return "data:image/png;base64," + base64.b64encode(kept.getvalue()).decode()


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("text-classification", {"text": "  "}, "Write something first."),
        ("text-classification", {}, "Write something first."),
        ("text-classification", {"text": ["a"]}, "Write something first."),
        ("text-classification", {"text": "x" * (CHARACTERS + 1)}, "at most 20,000 are read"),
        ("text-classification", {"text": "a", "row": "10000000"}, "no such test row"),
        ("text-classification", {"text": "a", "row": "../1"}, "no such test row"),
        ("text-classification", {"text": "a", "row": -1}, "no such test row"),
        ("causal-lm", {"prompt": "a", "max_new_tokens": 0}, "must be a number from 1 to 2048"),
        ("causal-lm", {"prompt": "a", "max_new_tokens": "nan"}, "must be a number from 1 to 2048"),
        ("causal-lm", {"prompt": "a", "max_new_tokens": [1]}, "must be a number from 1 to 2048"),
        ("causal-lm", {"prompt": "a", "temperature": -0.1}, "must be a number from 0 to 2"),
        ("causal-lm", {"prompt": "a", "seed": 10**400}, "Seed must be a number from 0 to 2147483647"),
        ("causal-lm", {"prompt": "a", "seed": -1}, "Seed must be a number from 0 to 2147483647"),
        ("causal-lm", {"prompt": "a", "temperature": True}, "must be a number from 0 to 2"),
        ("image-classification", {}, "Choose a picture first"),
        ("image-classification", {"image": 7}, "no picture that can be read"),
        ("image-classification", {"image": "data:image/png;base64,AAAA"}, "no picture that can be read"),
        ("image-classification", {"image": "data:image/png;base64,A"}, "no picture that can be read"),
        ("image-classification", {"image": "data:text/html;base64,AAAA"}, "no picture that can be read"),
    ],
)
def test_what_is_wrong_is_said_plainly(runs: Runs, kind: str, fields: dict[str, Any], sentence: str) -> None:
    said = client(runs[kind]).post("/ask", json=fields)
    assert said.status_code == 400
    assert sentence in said.json()["error"]


def test_a_text_that_is_too_long_is_not_cut_by_the_browser(runs: Runs) -> None:
    assert "maxlength" not in client(runs["text-classification"]).get("/").text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"7", b"[" * 100_000])
def test_what_is_no_question_is_refused(runs: Runs, body: bytes) -> None:
    said = client(runs["text-classification"]).post("/ask", content=body)
    assert (said.status_code, said.json()["error"]) == (400, "This request cannot be read.")


def test_a_picture_is_read_and_its_size_is_known_before_it_is_unpacked(runs: Runs) -> None:
    page, run = client(runs["image-classification"]), runs["image-classification"]
    small = sent(Image.new("RGB", (40, 30), (200, 10, 10)))
    assert [e["event"] for e in events(page, image=small)].count("answered") == len(run.models)
    side = int(PIXELS**0.5) + 1
    said = page.post("/ask", json={"image": sent(Image.new("1", (side, side)))})
    assert (said.status_code, said.json()["error"]) == (
        400,
        "This picture has too many pixels; at most 24 million are read.",
    )


def test_halves_of_characters_are_read(runs: Runs) -> None:
    said = client(runs["text-classification"]).post("/ask", content=rb'{"text": "a \ud800 b"}')
    assert said.status_code == 200


def test_an_answer_of_nothing_is_said_to_be(runs: Runs) -> None:
    asked = Answered(Loud("student"), Answer("student", None, 1.0, text="\n" * 100, new_tokens=100, finished=False))
    html = rendered("answer.html.j2", words("en"), found=asked, answer=asked.answer, formats=formats)
    assert 'class="text"' not in html
    assert '<p class="muted">nothing</p>' in html


def test_hostile_text_stays_text(runs: Runs) -> None:
    page = client(runs["text-classification"])
    shown = page.post("/", data={"text": HOSTILE}).text
    assert "<script>document" not in shown
    assert "&lt;/textarea&gt;&lt;script&gt;" in shown
    asked = Answered(Loud("student"), Answer("student", HOSTILE, 1.0, ((HOSTILE, 1.0),), text=HOSTILE), right=False)
    found = compare([Answer(name, None, 1.0, text=HOSTILE + name) for name in ("teacher", "student")])
    assert found is not None
    assert found.pairs
    for html in (
        rendered("answer.html.j2", words("en"), found=asked, answer=asked.answer, formats=formats),
        rendered("compared.html.j2", words("en"), found=found),
    ):
        assert "&lt;" in html
        assert "<script" not in html
