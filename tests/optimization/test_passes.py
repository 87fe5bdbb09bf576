"""Each pass: for whom it is, what it changes, and that the answers stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.parts import build, names
from limbeck.core.recipe import Model
from limbeck.models.load import load_model
from limbeck.optimization import Optimization
from limbeck.optimization._base import Subject, decoding_by
from limbeck.optimization._forms import GraphForm, executed, in_batches
from limbeck.optimization._language import LanguageForm, held
from limbeck.runtime.student import task_in
from tests.optimization.students import KINDS, graph_student, made
from tests.runtime.students import STEPS, rows

CPU = torch.device("cpu")


def named(name: str, **fields: Any) -> Optimization:
    return build("optimization", {"type": name, **fields})  # type: ignore[return-value]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """Students by kind, each made once."""
    known: dict[str, Subject] = {}

    def subject(kind: str) -> Subject:
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            card = made(folder, kind)
            model = load_model(Model(model=str(folder)), task_in(card).auto_class, settings={}).eval()
            known[kind] = Subject(folder, card, model, kind == "language", CPU)
        return known[kind]

    return subject


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("fuse_qkv", "text", None),
        ("fuse_qkv", "language", None),
        ("fuse_qkv", "picture", "no query, key and value projections"),
        ("fuse_mlp", "text", "no gate and up projections"),
        ("fuse_mlp", "language", None),
        ("fuse_attention", "text", None),
        ("fuse_attention", "picture", "no attention that can be exported"),
        ("fuse_attention", "language", "run in torch"),
        ("fuse_norms", "text", None),
        ("fuse_norms", "language", "run in torch"),
        ("static_cache", "text", "keeps no keys and values"),
        ("static_cache", "language", None),
        ("quantized_cache", "language", None),
        ("compile", "picture", "keeps no keys and values"),
        ("cuda_graphs", "language", "no CUDA device"),
    ],
)
def test_a_pass_says_for_whom_it_is(subjects: Callable[[str], Subject], name: str, kind: str, why: str | None) -> None:
    refused = named(name).refusal(subjects(kind))
    assert refused is None if why is None else why in str(refused)


def test_every_pass_is_for_someone_and_not_for_all() -> None:
    assert set(names("optimization")) == {
        *("fuse_norms", "fuse_qkv", "fuse_mlp", "fuse_attention"),
        *("static_cache", "quantized_cache", "compile", "cuda_graphs"),
    }


def test_a_graph_has_nothing_left_to_merge(subjects: Callable[[str], Subject]) -> None:
    graph = replace(subjects("text"), model=None)
    for name in ("fuse_qkv", "fuse_mlp", "fuse_attention"):
        assert "is a graph already" in str(named(name).refusal(graph))


def test_what_a_cache_cannot_do_is_told(subjects: Callable[[str], Subject]) -> None:
    language = subjects("language")
    assert "takes no bits" in str(named("quantized_cache", bits=4).refusal(language))
    steps = replace(language, card=replace(language.card, task={**STEPS, "mask": "steps"}))
    assert "loop of its own" in str(named("static_cache").refusal(steps))


def test_a_package_that_is_missing_is_named(
    subjects: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused = named("quantized_cache", backend="quanto").refusal(subjects("language"))
    assert refused == "optimum-quanto is not installed: pip install optimum-quanto"


def test_a_compiler_that_is_missing_is_told(
    subjects: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert named("compile").refusal(subjects("language")) == "there is no C++ compiler here"
    cuda = replace(subjects("language"), device=torch.device("cuda"))
    assert named("compile").refusal(cuda) is None
    assert named("cuda_graphs").refusal(cuda) is None


def test_the_last_cache_counts() -> None:
    static, quantized, compiled = named("static_cache", room=64), named("quantized_cache"), named("compile")
    assert decoding_by([static, quantized]).cache == "quantized"
    both = decoding_by([named("fuse_qkv"), named("fuse_mlp"), static, compiled])
    assert (both.fused, both.cache, both.room, both.compile) == (("qkv", "gate_up"), "static", 64, "default")
    assert decoding_by([compiled, quantized]).compile is None
    assert decoding_by([named("cuda_graphs")]).compile == "reduce-overhead"


@pytest.fixture(scope="module")
def drawn_graph(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A student that is a graph, without any export."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("graph")
    return Subject(folder, graph_student(folder), None, False, CPU)


def test_sums_and_norms_are_merged_by_onnx_runtimes_tool(drawn_graph: Subject, tmp_path: Path) -> None:
    import onnx

    each = named("fuse_norms")
    before, after = (GraphForm(drawn_graph, some, tmp_path / str(len(some))) for some in ((), (each,)))
    some = before.readable(rows(drawn_graph.card.task, 6), 4)
    used = [node.op_type for node in onnx.load(after.path).graph.node]
    assert used.count("SkipLayerNormalization") == 2
    assert used.count("BiasGelu") == 1
    assert after.likeness(before, some).passes(each)


@pytest.mark.slow
def test_an_exported_graph_says_the_same(subjects: Callable[[str], Subject], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    import onnx

    subject, passes = subjects("text"), [named("fuse_qkv"), named("fuse_attention")]
    before, after = (GraphForm(subject, some, tmp_path / str(len(some))) for some in ((), passes))
    some = before.readable(rows(subject.card.task, 6), 4)
    used = [node.op_type for node in onnx.load(after.path).graph.node]
    assert (used.count("Split"), used.count("Attention"), after.opset) == (2, 2, 23)
    assert executed(after.path, "cpu") < executed(before.path, "cpu")
    assert all(after.likeness(before, some).passes(each) for each in passes)


def test_a_language_model_says_the_same(subjects: Callable[[str], Subject]) -> None:
    subject = subjects("language")
    before = LanguageForm(subject, (), 6)
    drawn = before.readable(rows(subject.card.task, 4), 3)
    assert len(drawn) == 3
    costs = {}
    ends = before.codec.processor.eos_token_id
    told = [before.answers([row], 6).sequences[0, -6:].tolist() for row in drawn]
    compared = sum(tokens.index(ends) + 1 if ends in tokens else 6 for tokens in told)
    for name in ("fuse_qkv", "fuse_mlp", "static_cache"):
        after = LanguageForm(subject, (named(name),), 6, before)
        assert (after.model is before.model) == (name == "static_cache")
        likeness = after.likeness(before, drawn)
        assert (likeness.answers, likeness.same_answers) == (compared, 1.0), name
        assert likeness.relative < 1e-5
        costs[name] = after.cost(drawn)
    plain = before.cost(drawn)
    assert plain.launches is None
    assert plain.cache_bytes is not None
    assert costs["fuse_qkv"].operators is not None
    assert plain.operators is not None
    assert costs["fuse_qkv"].operators < plain.operators
    assert costs["fuse_qkv"].cache_bytes == plain.cache_bytes


def test_a_rounded_cache_is_smaller_and_nearly_the_same(subjects: Callable[[str], Subject]) -> None:
    subject, each = subjects("language"), named("quantized_cache")
    before, after = LanguageForm(subject, (), 6), LanguageForm(subject, (each,), 6)
    drawn = before.readable(rows(subject.card.task, 4), 3)
    small, whole = after.cost(drawn).cache_bytes, before.cost(drawn).cache_bytes
    assert small is not None
    assert whole is not None
    assert small < whole / 3
    found = after.likeness(before, drawn)
    assert 0 < found.relative < 0.5  # it is rounded, and not something else


def test_what_a_cache_holds_is_counted_once() -> None:
    class Layer:
        def __init__(self) -> None:
            self.keys = torch.zeros(2, 4)
            self.view, self.pair, self.told = self.keys[:1], (self.keys, torch.zeros(3)), {"scale": torch.zeros(5)}

    class Cache:
        layers = (Layer(),)

    assert held(Cache()) == 4 * (8 + 3 + 5)


def test_other_answers_are_seen(subjects: Callable[[str], Subject], tmp_path: Path) -> None:
    subject = subjects("language")
    other = made(tmp_path, "language")
    model = load_model(Model(model=str(tmp_path)), "AutoModelForCausalLM", settings={})
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight))
    model.save_pretrained(tmp_path)
    before, after = LanguageForm(subject, (), 4), LanguageForm(replace(subject, folder=tmp_path, card=other), (), 4)
    likeness = after.likeness(before, before.readable(rows(subject.card.task, 4), 3))
    assert likeness.same_answers < 0.9
    assert not likeness.passes(named("fuse_qkv"))
    assert not likeness.passes(named("quantized_cache"))
    assert likeness.passes(named("quantized_cache", same_answers=0))


def test_batches_begin_again_from_the_first_row() -> None:
    drawn = rows(KINDS["text"][0], 3)
    found = [[row.id for row in batch] for batch in in_batches(drawn, 2)]
    assert found == [["r0", "r1"], ["r2", "r0"]]
    assert [len(batch) for batch in in_batches(drawn, 7)] == [7]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("name", ["compile", "cuda_graphs"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_steps_on_a_gpu_say_the_same_with_fewer_launches(
    subjects: Callable[[str], Subject], name: str
) -> None:
    subject = replace(subjects("language"), device=torch.device("cuda"))
    before, after = LanguageForm(subject, (), 8), LanguageForm(subject, (named(name),), 8)
    drawn = before.readable(rows(subject.card.task, 4), 3)
    assert after.likeness(before, drawn).same_answers == 1
    fewer, launches = after.cost(drawn).launches, before.cost(drawn).launches
    assert fewer is not None
    assert launches is not None
    assert fewer < launches


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
def test_compiled_steps_say_the_same(subjects: Callable[[str], Subject]) -> None:
    subject = subjects("language")
    if (refused := named("compile").refusal(subject)) is not None:
        pytest.skip(refused)
    before, after = LanguageForm(subject, (), 6), LanguageForm(subject, (named("compile"),), 6)
    drawn = before.readable(rows(subject.card.task, 4), 2)
    assert after.decoding.room == 40
    likeness = after.likeness(before, drawn)
    assert likeness.same_answers == 1
    assert likeness.relative < 1e-4
