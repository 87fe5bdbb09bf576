"""The playground: what models say there is what they say elsewhere, and nothing gets in or out that should not."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ArtifactError, LimbeckError, RecipeError
from limbeck.core.types import Sample

pytest.importorskip("fastapi", reason="fastapi is not installed")
from starlette.testclient import TestClient

from limbeck.evaluation.predict import answer, classify
from limbeck.live import models
from limbeck.live.asking import Answered, Part, ask_all, compare
from limbeck.live.desk import Desk, Full
from limbeck.live.models import Answer, Asked, Classifier, Plan, Writer, calibrated
from limbeck.live.opened import Opened
from limbeck.live.play import play_app
from limbeck.live.question import Question
from limbeck.live.server import Door
from limbeck.live.words import words
from limbeck.tasks.causal_lm import CausalLM
from tests.live.playing import KINDS, Loud, Runs, client, events, opened


def row_of(page: TestClient) -> dict[str, Any]:
    row = page.get("/row").json()
    return {k: v for k, v in row.items() if k in ("row", "text", "prompt")} | {"max_new_tokens": 8}


@pytest.mark.parametrize("kind", KINDS)
def test_models_say_what_they_say_elsewhere(runs: Runs, kind: str) -> None:
    run = runs[kind]
    assert [each.name for each in run.models] == ["teacher", "student"]
    for each in run.models:
        for sample in run.rows[:3]:
            said = each.answer(sample, Plan(max_new_tokens=8), lambda _: False)
            if isinstance(each, Classifier):
                known = classify(each.model, each.codec, each.codec.encode([sample]).features, 1, None)
                best = sorted(known["probabilities"][0], reverse=True)[:5]
                assert [chance for _, chance in said.top] == pytest.approx(best)
                assert said.top[0][0] == said.prediction
            else:
                assert isinstance(each, Writer)
                known = answer(each.model, each.codec, [sample], batch_size=1, max_new_tokens=8, title=None)
                assert (said.text, said.new_tokens) == (known["text"][0], known["new_tokens"][0])
                assert said.finished == known["finished"][0]
            assert said.prediction == known["prediction"][0]
    assert run.models[0].median is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_row_is_drawn_asked_and_graded(runs: Runs, kind: str) -> None:
    run = runs[kind]
    page = client(run)
    fields = row_of(page)
    told = events(page, **fields)
    done = [each for each in told if each["event"] == "answered"]
    assert [each["model"] for each in done] == ["teacher", "student"]
    assert told[-1] == {"event": "end", "row": run.rows[fields["row"]].id, "target": run.rows[fields["row"]].target}
    assert [each["event"] for each in told if each["event"] != "part"][2:] == ["compared", "end"]
    if kind.endswith("classification"):
        right = [each["prediction"] == told[-1]["target"] for each in done]
        assert right == ["mark better" in each["html"] for each in done]


def test_other_words_than_the_row_s_have_no_target(runs: Runs) -> None:
    page = client(runs["text-classification"])
    fields = row_of(page)
    assert events(page, **fields)[-1]["target"] is not None
    assert events(page, **{**fields, "text": "something else"})[-1] == {"event": "end", "row": "asked", "target": None}


def test_a_pair_of_texts_is_asked_as_a_pair(runs: Runs) -> None:
    run = runs["text-classification"]
    each = run.models[1]
    assert isinstance(each, Classifier)
    sample = Sample("asked", {"text": "it is 1 today", "text_pair": "it is 3"}, each.labels[0])
    known = classify(each.model, each.codec, each.codec.encode([sample]).features, 1, None)
    told = events(client(run), text="it is 1 today", text_pair="it is 3")
    assert [e["prediction"] for e in told if e.get("model") == "student" and e["event"] == "answered"] == (
        known["prediction"]
    )
    assert each.codec.encode([sample]).features[0].length > 8


def test_texts_come_while_they_are_written_and_can_be_stopped(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_PATIENCE", 0.0)
    each = runs["causal-lm"].models[0]
    heard: list[str] = []

    def slow(text: str) -> bool:
        heard.append(text)
        return len(heard) == 3

    asked = Sample("asked", {"messages": [{"role": "user", "content": "1 + 1"}]}, "")
    said = each.answer(asked, Plan(max_new_tokens=50), slow)
    assert len(heard) == 3
    assert said.new_tokens == 3
    assert not said.finished
    assert said.text is not None
    assert said.text.startswith(heard[1])


@pytest.mark.parametrize("kind", ["causal-lm", "structured-reasoning"])
def test_a_temperature_draws_and_a_seed_repeats(runs: Runs, kind: str) -> None:
    each = runs[kind].models[1]
    asked = Sample("asked", {"messages": [{"role": "user", "content": "1 + 1"}]}, "")
    plans = [Plan(24, 0.0, 1), Plan(24, 1.5, 1), Plan(24, 1.5, 1), Plan(24, 1.5, 2)]
    greedy, one, again, other = (each.answer(asked, plan, lambda _: False).text for plan in plans)
    assert one == again
    assert len({greedy, one, other}) == 3


def test_a_question_without_room_for_its_answer_is_a_sentence(runs: Runs) -> None:
    told = events(client(runs["causal-lm"]), prompt="1 + 1", max_new_tokens=2000)
    wrong = [each for each in told if each["event"] == "answered"]
    assert len(wrong) == 2
    assert all("has too few positions for the longest question with its answer" in each["html"] for each in wrong)
    assert all("prediction" not in each for each in wrong)


def test_steps_that_differ_are_marked() -> None:
    texts = {"teacher": "2+2=4. So it is 4.\n#### 4", "student": "2+2=5. So it is 5.\n#### 5"}
    found = compare([Answer(name, text[-1], 1.0, text=text) for name, text in texts.items()], "What is 2+2?")
    assert found is not None
    assert found.same == {"student": False}
    changes = [(p.text, p.change) for pair in found.pairs for side in (pair.teacher, pair.student) for p in side]
    assert ("4", "del") in changes
    assert ("5", "ins") in changes


def test_one_answer_has_nothing_to_be_compared_with() -> None:
    assert compare([Answer("student", "a", 1.0)]) is None


def test_calibration_divides_the_logits() -> None:
    import torch

    logits = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    assert calibrated(logits.softmax(0).tolist(), 1.7) == pytest.approx((logits / 1.7).softmax(0).tolist())
    assert calibrated([0.25, 0.75], None) == [0.25, 0.75]


def test_a_recorded_temperature_is_used_and_said(runs: Runs, tmp_path: Path) -> None:
    run, copy = runs["text-classification"], tmp_path / "run"
    shutil.copytree(run.recipe.output, copy)
    details = copy / "evaluate" / "details"
    details.mkdir(parents=True)
    (details / "reliability.json").write_text(json.dumps({"student": {"bins": [], "temperature": 4.0}}))
    again = opened(copy)
    plain, warm = run.models[1], again.models[1]
    sample = run.rows[0]
    first, second = (each.answer(sample, Plan(), lambda _: False) for each in (plain, warm))
    names, chances = zip(*first.top, strict=True)
    assert dict(second.top) == pytest.approx(dict(zip(names, calibrated(chances, 4.0), strict=True)))
    told = events(client(again), text="it is 1 today")
    html = {each["model"]: each["html"] for each in told if each["event"] == "answered"}
    assert "logits divided by 4" in html["student"]
    assert "not calibrated" in html["teacher"]


def test_another_run_s_student_can_be_asked_too(runs: Runs) -> None:
    run = runs["image-classification"].recipe.output
    both = opened(run, earlier=str(run))
    assert [each.name for each in both.models] == ["teacher", "student", "earlier"]
    sample = both.rows[0]
    one, same = (both.models[i].answer(sample, Plan(), lambda _: False) for i in (1, 2))
    assert one.top == same.top
    with pytest.raises(RecipeError, match="named `student` already"):
        opened(run, student=str(run))


def test_a_run_that_was_moved_still_opens(runs: Runs, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.symlink_to(runs["image-classification"].recipe.output, target_is_directory=True)
    assert opened(moved).recipe.output == moved


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no trained student"):
        opened(tmp_path)


def told_by(*models: Asked, paid: bool = False, stopped: Any = lambda: False) -> list[Any]:
    question, told = Question(Sample("asked", {}, ""), Plan(), None, paid), list[Any]()
    ask_all(models, question, CausalLM(), told.append, stopped)
    return told


def test_a_model_that_fails_leaves_the_others_their_turn(capsys: pytest.CaptureFixture[str]) -> None:
    told = told_by(
        Loud("a", LimbeckError("it is broken", got="a wire", fix="--mend")), Loud("b", ValueError("oh")), Loud("c")
    )
    done = [each for each in told if isinstance(each, Answered)]
    assert [each.error for each in done] == ["It is broken: a wire.", None, None]
    assert [each.answer is None for each in done] == [True, True, False]
    assert "ValueError: oh" in capsys.readouterr().err


def test_who_costs_something_is_asked_only_where_that_is_wanted() -> None:
    cheap, dear = Loud("student"), Loud("teacher", paid=True)
    assert {each.asked.name for each in told_by(dear, cheap) if isinstance(each, Part)} == {"student"}
    assert not dear.begun.is_set()
    assert {each.asked.name for each in told_by(dear, cheap, paid=True) if isinstance(each, Part)} == {
        "student",
        "teacher",
    }


def test_nobody_is_asked_once_nobody_waits() -> None:
    one, other = Loud("a"), Loud("b")
    told = told_by(one, other, stopped=one.begun.is_set)
    assert one.begun.is_set()
    assert not other.begun.is_set()
    assert [type(each) for each in told] == [Part, Part, Answered]


def test_who_hangs_up_stops_the_work(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    run, slow = runs["text-classification"], Loud("student")
    slow.may.clear()
    monkeypatch.setattr(run, "models", [slow, never := Loud("baseline")])
    desk = Desk(room=1)
    server = uvicorn.Server(uvicorn.Config(play_app(run, Door(), desk), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        try:
            asked = http.client.HTTPConnection(*taken.getsockname(), timeout=60)
            asked.request("POST", "/ask", json.dumps({"text": "a"}))
            answer = asked.getresponse()
            assert json.loads(answer.readline()) == {"event": "part", "model": "student", "text": ""}
            answer.close()
            asked.close()
            again = http.client.HTTPConnection(*taken.getsockname(), timeout=60)
            again.request("GET", "/row")  # by now the server has seen that the first one is gone
            with again.getresponse() as refused:
                assert refused.status == 429
            again.close()
            time.sleep(0.3)
            slow.may.set()
            desk.close(60)
        finally:
            server.should_exit = True
            thread.join(60)
    assert slow.stopped is True
    assert not never.begun.is_set()


class TestDesk:
    def test_one_at_a_time_and_only_a_few_wait(self) -> None:
        desk, go, done = Desk(room=2), threading.Event(), list[int]()
        first = desk.enter(lambda: go.wait(30) and done.append(1))
        second = desk.enter(lambda: done.append(2))
        with pytest.raises(Full):
            desk.enter(lambda: None)
        assert done == []
        go.set()
        second.result(30)
        assert (first.done(), done) == (True, [1, 2])
        for _ in range(5):  # who has failed has left too
            assert isinstance(desk.enter(lambda: [][0]).exception(30), IndexError)
        assert desk.enter(lambda: 7).result(30) == 7

    def test_what_does_not_end_is_left_behind(self) -> None:
        desk, go = Desk(), threading.Event()
        stuck = desk.enter(lambda: go.wait(30))
        begun = time.monotonic()
        desk.close(0.1)
        assert time.monotonic() - begun < 10
        assert not stuck.done()
        go.set()
        assert stuck.result(30)

    def test_who_went_away_is_passed_over(self) -> None:
        desk, go = Desk(room=2), threading.Event()
        first = desk.enter(lambda: go.wait(30))
        gone = desk.enter(lambda: pytest.fail("nobody waits for it"))
        assert gone.cancel()
        go.set()
        assert first.result(30)
        desk.close(30)
        assert gone.cancelled()

    def test_what_nobody_foresaw_reaches_the_terminal(self, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("limbeck.live.play.ask_all", broken)
        with pytest.raises(ZeroDivisionError):
            client(runs["text-classification"]).post("/ask", json={"text": "a"})

    def test_a_page_that_asks_too_much_is_told(self, runs: Runs) -> None:
        desk, go = Desk(room=1), threading.Event()
        page = client(runs["text-classification"], desk=desk)
        busy = desk.enter(lambda: go.wait(30))
        try:
            for said in (page.post("/ask", json={"text": "a"}), page.get("/row")):
                assert (said.status_code, said.json()["error"][:22]) == (429, "Too many questions are")
            plain = page.post("/", data={"text": "a"})
            assert (plain.status_code, "Too many questions are" in plain.text) == (429, True)
        finally:
            go.set()
            busy.result(30)
        assert page.post("/ask", json={"text": "a"}).status_code == 200


@pytest.fixture(params=KINDS)
def plain(request: pytest.FixtureRequest, runs: Runs) -> tuple[TestClient, Opened]:
    return client(runs[request.param]), runs[request.param]


def test_the_page_works_without_script(plain: tuple[TestClient, Opened]) -> None:
    page, run = plain
    assert 'method="post"' in page.get("/").text
    shown = page.post("/", data={"draw": "1", "max_new_tokens": "8"})
    assert shown.status_code == 200
    assert shown.text.count('class="muted">') >= len(run.models)
    assert words("en")("play.same", first="Teacher") in shown.text or "another answer" in shown.text
    wrong = page.post("/", data={"text": ""})
    assert wrong.status_code == 400
    assert 'role="alert">' in wrong.text


def test_nothing_of_a_question_is_kept(runs: Runs) -> None:
    run = runs["text-classification"]
    before = {path: path.stat().st_mtime_ns for path in run.recipe.output.rglob("*")}
    events(client(run), text="kept nowhere")
    assert {path: path.stat().st_mtime_ns for path in run.recipe.output.rglob("*")} == before


def test_the_page_speaks_the_recipe_s_language_or_the_one_asked_for(runs: Runs) -> None:
    run = runs["text-classification"]
    assert '<html lang="en">' in client(run).get("/").text
    chinese = client(run, language="zh").get("/").text
    assert '<html lang="zh">' in chinese
    assert "提问" in chinese
