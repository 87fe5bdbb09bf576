"""What engines are told, which of them is taken, and what is made of their answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.types import Sample
from limbeck.runtime.card import read_card, write_card
from limbeck.serving.errors import BadRequest, Failed, Overloaded
from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.engines import ENGINES, Genai, Sglang, TooLong, TransformersServe, Vllm, choose
from limbeck.serving.language.model import Drawing, is_language_model
from limbeck.serving.language.relay import Tally, gathered, shaped
from limbeck.serving.language.schema import ChatAsked, TextAsked
from limbeck.serving.language.shapes import Shape
from limbeck.serving.language.slots import Slots
from limbeck.serving.language.stops import Stops
from limbeck.serving.language.view import make_view
from tests.runtime.students import LANGUAGE, STEPS
from tests.serving.language.serving import CHATML, make_language, opened
from tests.serving.serving import make_text

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language(tmp_path_factory.mktemp("models") / "student")


def chat(*texts: str, **fields: Any) -> ChatAsked:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return ChatAsked.model_validate({"model": "tiny", "messages": turns, **fields})


# --- folders


def test_language_models_are_told_from_others(folder: Path, tmp_path: Path) -> None:
    assert is_language_model(str(folder))
    assert is_language_model(f"name={folder}")
    assert not is_language_model(str(make_text(tmp_path / "text")))
    assert not is_language_model(str(tmp_path / "nothing"))


def test_auto_takes_what_fits_the_machine_and_the_folder(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for kind in ENGINES.values():
        monkeypatch.setattr(kind, "installed", classmethod(lambda cls: True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose(str(folder), "auto", Bounds()).name == "transformers"
    other = make_language(tmp_path / "run/export/onnxruntime_genai")
    (other.parents[1] / "recipe.json").write_text("{}")
    make_language(other.parents[1] / "train/student")
    write_card(replace(read_card(other), format="onnxruntime-genai", facts={"positions": 64}), other)
    chosen = choose(f"mine={other.parents[1]}", "auto", Bounds(context=100))
    assert (chosen.name, chosen.model.name, chosen.model.context, chosen.slots) == ("genai", "mine", 64, 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose(str(other.parents[1]), "auto", Bounds(running=7)).slots == 7
    assert choose(str(folder), "auto", Bounds()).name == "vllm"
    monkeypatch.setattr(Vllm, "installed", classmethod(lambda cls: False))
    assert choose(str(folder), "auto", Bounds()).name == "sglang"
    with pytest.raises(MissingExtra, match="serving by vllm"):
        choose(str(folder), "vllm", Bounds())
    with pytest.raises(ModelError, match="genai does not serve this"):
        choose(str(folder), "genai", Bounds())
    with pytest.raises(ModelError, match="no engine of this name") as refused:
        choose(str(folder), "vlm", Bounds())
    assert refused.value.fix == "--engine vllm"


def test_answers_in_steps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="mask"):
        choose(str(make_language(tmp_path, STEPS)), "transformers", Bounds())


@pytest.mark.parametrize("template", ["plain", "auto"])
@pytest.mark.parametrize("separator", ["\n", " -> ", "\\'\t"])
def test_a_view_spells_prompts_as_in_training(tmp_path: Path, template: str, separator: str) -> None:
    from transformers import AutoTokenizer

    task = {**LANGUAGE, "template": template, "separator": separator}
    folder = make_language(tmp_path / "student", task)
    (folder / "modeling_own.py").write_text("raise SystemExit")
    (folder / "chat_template.jinja").write_text(CHATML)
    (tmp_path / "place").mkdir()
    view = make_view(opened(folder), tmp_path / "place")
    turns = [message.plain() for message in chat("one", "two", "three\n").messages]
    told = AutoTokenizer.from_pretrained(view).apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert told == opened(folder).codec.prompt_ids(Sample("x", {"messages": turns}))
    assert not (view / "modeling_own.py").exists()


def test_how_tokens_are_drawn_where_nobody_says_so(folder: Path) -> None:
    model = opened(folder)
    assert model.drawing == Drawing(0.0, 1.0, 0)
    told = {"do_sample": True, "temperature": 0.7, "top_k": 20}
    assert replace(model, generation=told).drawing == Drawing(0.7, 1.0, 20)


# --- what engines are told


def test_gpu_engines_are_started_with_what_the_folder_tells(folder: Path, tmp_path: Path) -> None:
    model = replace(opened(folder), config={"quantization_config": {"quant_method": "awq"}})
    words = Vllm(model, Bounds(running=9)).start(tmp_path, 1).words
    assert words[:3] == ["vllm.entrypoints.cli.main", "serve", "student"]
    told = dict(word.removeprefix("--").split("=") for word in words if "=" in word)
    assert told["uds"] == str(tmp_path / "engine-1.sock")
    assert (told["served-model-name"], told["max-model-len"], told["max-num-seqs"]) == ("tiny", "128", "9")
    assert (told["dtype"], told["quantization"]) == ("float32", "awq")
    start = Sglang(model, Bounds()).start(tmp_path, 2)
    plan = json.loads((tmp_path / "engine-2.yaml").read_text())
    assert (plan["host"], plan["port"], plan["api-key"]) == ("127.0.0.1", start.address.port, start.address.key)
    assert (tmp_path / "engine-2.yaml").stat().st_mode & 0o077 == 0
    assert str(start.address.key) not in f"{start}"
    assert not any("remote" in word for word in [*words, *plan])


def test_transformers_serve_is_told_how_to_draw(folder: Path) -> None:
    engine = TransformersServe(replace(opened(folder), generation={"eos_token_id": 250, "do_sample": True}), Bounds())
    drawn = engine.request(chat("hello", temperature=0.5, top_p=0.9, seed=3, stop="x"))
    plan = json.loads(drawn.pop("generation_config"))
    assert drawn == {"prompt": "hello\n", "seed": 3, "stop": ["x"], "stream": True}
    assert engine.route(chat("hello")) == "/v1/completions"
    prompt = len(engine.model.codec.prompt_ids(Sample("x", {"messages": [{"role": "user", "content": "hello"}]})))
    most = 128 - prompt
    sampled = {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 0}
    ends = [engine.model.codec.processor.eos_token_id, 250]
    assert plan == {"eos_token_id": ends, **sampled, "max_new_tokens": most}
    greedy = json.loads(engine.request(chat("hello", temperature=0))["generation_config"])
    assert greedy == {"eos_token_id": ends, "do_sample": False, "max_new_tokens": most}
    with pytest.raises(TooLong):
        engine.request(chat("hello", max_tokens=most + 1))
    with pytest.raises(BadRequest, match="no tokens"):
        engine.request(TextAsked(model="tiny", prompt=""))


def test_transformers_serve_reads_prompts_as_in_training(tmp_path: Path) -> None:
    """It puts the opening token before any text; a template has put it there already."""
    from tokenizers.processors import TemplateProcessing

    folder = make_language(tmp_path, {**LANGUAGE, "template": "auto"})
    codec = opened(folder).codec
    tokenizer = codec.processor
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    opens = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=opens)
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    tokenizer.save_pretrained(folder)
    engine = TransformersServe(opened(folder), Bounds())
    assert engine.request(chat("hello"))["prompt"] == "<user>hello<assistant>"
    engine.model.codec.processor.chat_template = "{{ bos_token }}{{ bos_token }}" + CHATML
    assert engine.request(chat("hello"))["prompt"] == "<s><user>hello<assistant>"
    engine.model.codec.processor.chat_template = CHATML
    with pytest.raises(BadRequest, match="otherwise"):
        engine.request(chat("hello"))


def test_fields_that_an_engine_lacks_may_be_there_if_they_change_nothing(folder: Path) -> None:
    small, large = Genai(opened(folder), Bounds()), Vllm(opened(folder), Bounds())
    nothing = {"n": 1, "logprobs": False, "presence_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}}
    assert "n" not in small.request(chat("x", **nothing))
    for name, value in {"n": 2, "logprobs": True, "top_k": 3, "logit_bias": {"5": 1.0}}.items():
        with pytest.raises(BadRequest, match=name):
            small.request(chat("x", **{name: value}))
        assert large.request(chat("x", **{name: value}))[name] == value
    with pytest.raises(BadRequest, match="logprobs"):
        small.request(TextAsked(model="tiny", prompt="x", logprobs=0))


# --- what is made of answers


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
def test_stop_strings_however_pieces_are_cut(cut: int) -> None:
    text = "one ENE END two"
    for words, shown in ((["END"], "one ENE "), (["two", " END"], "one ENE"), (["TWO"], text), ([], text)):
        stops = Stops(words)
        told = "".join(stops.feed(text[i : i + cut]) for i in range(0, len(text), cut)) + stops.rest()
        assert (told, stops.found) == (shown, shown != text)


def sent(*events: Any) -> AsyncIterator[bytes]:
    """A stream of `transformers serve`, in parts of 7 bytes."""
    whole = b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events)

    async def parts() -> AsyncIterator[bytes]:
        for i in range(0, len(whole), 7):
            yield whole[i : i + 7]

    return parts()


def said(text: str, finish: str | None = None, usage: Any = None) -> dict[str, Any]:
    return {"model": "student@main", "choices": [{"text": text, "finish_reason": finish}], "usage": usage}


USAGE = {"prompt_tokens": 2, "completion_tokens": 5}
ANSWER = (said("one "), said("ST"), said("OP two"), said("", "length", USAGE))


def test_what_transformers_serve_streams_is_shaped_anew() -> None:
    async def run(**fields: Any) -> list[Any]:
        parts = [p async for p in shaped(sent(*ANSWER), chat("x", **fields), Shape(True, "tiny"), Tally())]
        return [e.removeprefix("data: ") for e in b"".join(parts).decode().split("\n\n") if e]

    *chunks, end = asyncio.run(run(stop="STOP", stream_options={"include_usage": True}))
    told = [json.loads(chunk) for chunk in chunks]
    assert end == "[DONE]"
    assert {chunk["model"] for chunk in told} == {"tiny"}
    assert len({chunk["id"] for chunk in told}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in told[:-1]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "one "}, {}]
    assert told[-2]["choices"][0]["finish_reason"] == "stop"
    assert (told[-1]["choices"], told[-1]["usage"]["total_tokens"]) == ([], 7)
    assert json.loads(asyncio.run(run())[-2])["choices"][0]["finish_reason"] == "length"


def test_what_transformers_serve_streams_as_one_answer() -> None:
    def whole(*events: Any) -> Any:
        return json.loads(asyncio.run(gathered(sent(*events), chat("x"), Shape(True, "tiny"), Tally())))

    told = whole(*ANSWER)
    message = {"role": "assistant", "content": "one STOP two"}
    assert (told["choices"][0]["message"], told["usage"]["completion_tokens"]) == (message, 5)
    for broken in (ANSWER[:-1], (ANSWER[0], {"error": "at /home"}), (ANSWER[0], b'{"error": "a "quoted" word"}')):
        with pytest.raises(Failed) as failed:
            whole(*broken)
        assert "home" not in str(failed.value)


# --- places


def test_places_go_to_the_first_who_came() -> None:
    async def run() -> list[int]:
        slots, done = Slots(1, 3), list[int]()

        async def one(number: int) -> None:
            async with slots.taken():
                await asyncio.sleep(0)
                done.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await one(4)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (slots.running, slots.waiting) == (0, 0)
        return done

    assert asyncio.run(run()) == [0, 2, 3]


@pytest.mark.parametrize("turns", range(6))
def test_a_place_is_never_lost(turns: int) -> None:
    async def run() -> None:
        slots = Slots(1, 3)

        async def one() -> None:
            async with slots.taken():
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (slots.running, slots.waiting) == (0, 0)

    asyncio.run(run())


def test_engines_do_not_read_code_from_where_they_run() -> None:
    from limbeck.serving.language.child import Child

    assert Child(["x"], {}, Path())._words[:2] == [sys.executable, "-P"]
