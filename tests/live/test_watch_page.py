"""The page of `limbeck watch`, asked as a browser asks: what it shows, in which words, and what it leaves alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from limbeck.live import curves
from limbeck.live.figures import figures, words
from limbeck.live.folder import Folder
from limbeck.live.server import Door
from limbeck.live.watch import watch_app
from tests.live.watching import add, answered, done, evaluated, held, row, run, under_way


def client(path: Path) -> TestClient:
    return TestClient(watch_app(Folder(path), Door.checked("127.0.0.1", 0)), base_url="http://127.0.0.1:8642")


def parts(browser: TestClient, query: str = "") -> dict[str, str]:
    answer = browser.get(f"/parts{query}")
    assert answer.status_code == 200
    return {id: part["html"] for id, part in answer.json().items()}


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).replace("\u00a0", " ").split())


def test_the_page_shows_all_without_a_script(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    with held(path):
        page = client(path).get("/").text
    shown = text(page)
    for told in (
        "Under way: train the student",
        "prepare the teacher done · 1 min 2 s",
        "train the baseline waiting",
        "Stage distil (2 of 2)",
        "Step 10 of 20",
        "Speed 200 tokens/s",
        "Time left of this training 5 s",
        "Memory 700 MB, 3.0 GB on the GPU at most",
        "Loss 0.300",
        "Learning rate 0.0100",
        "Gradient norm 1.50",
        "Validation Loss 0.100 at step 10",
        "After step 10 of the stage distil",
        "What is 1+1?",
        "1+1=2. 1+1=3.",
        "The row's own answer It is 2.",
        f"Read from the folder {path}",
    ):
        assert told in shown.replace("&#39;", "'"), told
    assert page.count("<svg viewBox") + page.count("<svg class") >= 4
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page


def test_nothing_inline_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    """The content security policy of the server holds back what is inline."""
    path = under_way(tmp_path / "run")
    page = client(path).get("/").text
    assert not re.search(r"\sstyle=|\son\w+=|<style", page)
    assert re.findall(r"<script[^>]*>", page) == ['<script src="/assets/watch.js" defer>']
    addresses = re.findall(r"(?:src|href)=\"([^\"#]+)", page)
    assert {a for a in addresses if not a.startswith(("/assets/", "?"))} == {"data:,"}
    browser = client(path)
    for asset in re.findall(r"/assets/[\w.]+", page):
        assert browser.get(asset).status_code == 200


def test_only_what_has_changed_is_sent(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    browser = client(path)
    first = browser.get("/parts").json()
    known = ",".join(part["version"] for part in first.values())
    assert browser.get("/parts", params={"known": known}).json() == {}
    add(path / ".train.partial" / "steps.jsonl", [row(11)])
    changed = browser.get("/parts", params={"known": known}).json()
    assert set(changed) == {"figures", "curves"}
    assert all(changed[id]["html"] != first[id]["html"] for id in changed)
    gone = browser.get("/parts", params={"known": known, "training": "teacher"}).json()
    assert gone["answers"]["html"] == ""  # as empty as another part that is known


def test_a_run_that_is_removed_is_said_to_be(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    browser = client(path)
    assert browser.get("/").status_code == 200
    shutil.rmtree(path)
    told = f"{path} is no run: there is no recipe.json."
    assert (browser.get("/parts").status_code, browser.get("/parts").json()) == (400, {"error": told})
    assert browser.get("/", headers={"Accept": "text/html"}).text == told


def test_curves_are_drawn_when_there_is_more_to_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = curves.loss_plot

    def counted(facts: Any) -> Any:
        drawn.append(len(facts.steps))
        return real(facts)

    monkeypatch.setattr(curves, "loss_plot", counted)
    path = under_way(tmp_path / "run")
    with held(path):
        browser = client(path)
        for _ in range(3):
            parts(browser)
        assert drawn == [10]
        add(path / ".train.partial" / "steps.jsonl", [row(11)])
        parts(browser)
        assert drawn == [10]  # it rests: drawing takes a share of the time, no more
        monkeypatch.setattr("limbeck.live.curves.time.monotonic", lambda: 1e9)
        parts(browser)
        assert drawn == [10, 11]
    done(path, "train")
    add(path / "train" / "steps.jsonl", [row(12)])
    monkeypatch.undo()
    assert "to step 12" in parts(browser)["curves"]  # at its end a training is drawn whole


def test_another_training_and_an_earlier_validation(tmp_path: Path) -> None:
    browser = client(under_way(tmp_path / "run"))
    now = parts(browser)
    assert 'data-look="training-student" aria-current="true"' in now["trainings"]
    assert "Step 4 of 4" in text(parts(browser, "?training=teacher")["figures"])
    assert parts(browser, "?training=teacher")["answers"] == ""
    link = re.search(r'href="([^"]+)" data-look="earlier"', now["answers"])
    assert link is not None
    earlier = parts(browser, link[1].replace("&amp;", "&"))["answers"]
    assert "1+1=11." in earlier
    assert "After step 5" in earlier
    assert 'data-look="latest"' in earlier
    assert parts(browser, "?training=nobody&step=999") == now
    assert browser.get("/?step=x").status_code == 422


def test_text_of_models_is_shown_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
    path = under_way(tmp_path / "run")
    told = answered(11, hostile, hostile, prompt=hostile, id=hostile, reference=hostile, finished=False)
    add(path / ".train.partial" / "generations.jsonl", [{**told, "stage": hostile}])
    add(path / ".train.partial" / "steps.jsonl", [row(11, hostile, terms={hostile: 1.0})])
    add(path / ".train.partial" / "evals.jsonl", [{**evaluated(11), "metrics": {hostile: 0.5}, "stage": hostile}])
    run(path, report={"title": hostile, "language": "en"})
    browser = client(path)
    page = browser.get("/").text + "".join(parts(browser).values())
    assert "<script>" not in page
    assert "<img" not in page
    assert not {"\x1b", "\u202e"} & set(page)
    assert "Cut at the length limit." in page


def test_a_student_without_a_teacher_that_writes_is_shown_beside_the_rows_own_answer(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    add(path / ".train.partial" / "generations.jsonl", [answered(11, teacher=None)])
    shown = text(parts(client(path))["answers"])
    assert "The row's own answer Student It is 2. 1+1=3." in shown.replace("&#39;", "'")


def test_answers_of_empty_lines_take_no_room(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    add(path / ".train.partial" / "generations.jsonl", [answered(11, "\n" * 128 + "3" + "\n" * 128, "\n" * 128)])
    assert "\n" * 9 not in parts(client(path))["answers"]


def test_a_stopped_and_a_finished_run(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    browser = client(path)
    assert "Stopped in the step “train the student”" in parts(browser)["phase"]
    assert "Time left" not in parts(browser)["figures"]
    done(path, "train", "baseline", "evaluate", "report")
    told = parts(browser)["phase"]
    assert "All steps are done" in told
    assert str(path / "report" / "index.html") in told


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    path = run(tmp_path / "run")
    with held(path):
        told = parts(client(path))
    assert "Under way: reading rows and models" in told["phase"]
    assert "No training has begun." in told["trainings"]
    assert {told[id] for id in ("curves", "answers", "evals")} <= {"", '<div class="several">\n</div>'}


def test_chinese(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    run(path, report={"title": "加法", "language": "zh"})
    with held(path):
        page = client(path).get("/").text
    assert '<html lang="zh">' in page
    assert "进行中：训练学生模型" in page  # noqa: RUF001
    seen = text(re.sub(r"<(script|noscript|title|desc)[ >].*?</\1>", "", page, flags=re.S))
    own = {
        "kl",
        "cross",
        "entropy",
        "warm",
        "distil",
        "row",
        "What",
        "is",
        "It",
        "run",
        "h",
        "s",
        "min",
        "MB",
        "GB",
        "GPU",
    }
    left = set(re.findall(r"[A-Za-z]+", seen.replace(str(path), ""))) - own
    assert left == set()


def test_plots_tell_what_they_show(tmp_path: Path) -> None:
    html = parts(client(under_way(tmp_path / "run")))["curves"]
    plots = re.findall(r"<svg [^>]*?role=\"img\".*?</svg>", html, re.S)
    assert len(re.findall("<figure", html)) == 4
    assert len(plots) >= 4
    for svg in plots:
        root = ElementTree.fromstring(svg)
        title, description = root.find("title"), root.find("desc")
        assert title is not None
        assert title.text
        assert description is not None
        assert len(description.text or "") > 15
        assert not [each for each in root.iter() if "style" in each.attrib]
        assert [each.attrib["stroke"] for each in root.iter() if each.attrib.get("stroke", "").startswith("var(--")]
    roles = re.findall(r'data-role="([\w-]+)"', html)
    assert roles == ["ink", "term-1", "term-2", "teacher", "student"]


def test_a_name_without_a_number_is_left_out(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    add(path / ".train.partial" / "steps.jsonl", [row(11, loss=float("nan"), grad_norm=None)])
    state = Folder(path).state()
    assert state.current is not None
    names: list[Any] = [figure.name for figure in figures(state.current, words("en"))]
    assert "Loss" not in names
    assert "Gradient norm" not in names
    assert "Learning rate" in names
