"""Students of every task as ONNX: the same answers for any number of rows and positions, and nothing but the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.exporters import Exporter, _base
from limbeck.exporters._parity import compare, refuse
from limbeck.exporters.onnx import Onnx
from limbeck.exporters.openvino import Openvino
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from tests.exporters.conftest import Exported, exported
from tests.runtime.students import BERT, LABELS, LANGUAGE, PICTURE, QWEN, RESNET, STEPS, TEXT, VIT, rows, student

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bert": (TEXT, BERT),
    "resnet": (PICTURE, RESNET),
    "vit": (PICTURE, VIT),
    "qwen3": (LANGUAGE, QWEN),
    "steps": (STEPS, QWEN),
}


SLOW = ("vit", "qwen3", "steps")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES])
def test_the_round_trip(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    made = exported(tmp_path, *CASES[name]) if name in SLOW else request.getfixturevalue(name)
    folder, before, after, card = made.folder, made.before, made.after, made.card
    assert (card.format, card.precision, card.file, card.temperature) == ("onnx", "fp32", "model.onnx", 1.5)
    samples = rows(CASES[name][0], 25)
    parity = compare(before, after, samples)
    assert parity.rows == 25
    assert parity.relative < 1e-5
    assert parity.same_answers == 1
    refuse(parity, Onnx())
    if card.labels is not None:
        assert json.loads((folder / "onnx" / "labels.json").read_text()) == list(LABELS)
        for ours, theirs in zip(before.predict(samples), after.predict(samples, batch_size=7), strict=True):
            assert ours.label == theirs.label
            assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-5)
    files = {path.name for path in (folder / "onnx").iterdir()}
    kept = {"preprocessor_config.json"} if "image" in CASES[name][0]["type"] else {"tokenizer.json"}
    assert files >= {"model.onnx", "config.json", "limbeck.json", *kept}
    assert not any(file.endswith((".safetensors", ".data")) for file in files)


def test_a_graph_tells_nothing_of_the_machine_that_wrote_it(bert: Exported) -> None:
    content = (bert.folder / "onnx" / "model.onnx").read_bytes()
    assert b".py" not in content
    assert b"site-packages" not in content
    assert str(bert.folder).encode() not in content
    assert bert.card.facts["opset"] == 19


def test_a_graph_is_optimised_ahead_and_halved(bert: Exported, tmp_path: Path) -> None:
    folder, before, card = bert.folder, bert.before, bert.card
    samples = rows(TEXT, 9)
    for name, maker in {"fast": Onnx(optimize=True), "half": Onnx(precision="fp16")}.items():
        (tmp_path / name).mkdir()
        made = maker.export(folder / "onnx", tmp_path / name, card)
        write_card(made, tmp_path / name)
        after = load_student(tmp_path / name, threads=1)
        parity = compare(before, after, samples)
        refuse(parity, maker)
        assert parity.same_answers == 1
        if name == "fast":
            assert made.facts["operators"] < made.facts["operators_before"]
        else:
            assert made.precision == "fp16"
            weights = onnx.load(tmp_path / name / "model.onnx").graph.initializer
            assert sum(w.data_type == onnx.TensorProto.FLOAT16 for w in weights) > 10
            assert after.logits(after.encode(samples)).dtype == np.float32


def test_a_model_that_torch_cannot_export_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no decomposition\nfor it")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(ModelError, match="cannot export BertForSequenceClassification") as refused:
        exported(tmp_path, TEXT, BERT)
    assert refused.value.got == "no decomposition"


def test_a_missing_tool_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = student(tmp_path, TEXT, BERT)
    monkeypatch.setattr(_base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'limbeck\[onnx\]'"):
        Onnx().check(card)


def test_what_it_does_not_take_is_refused(tmp_path: Path) -> None:
    card = student(tmp_path, TEXT, BERT)
    with pytest.raises(ModelError, match="does not start from a student in the format openvino"):
        Onnx().check(replace(card, format="openvino"))
    with pytest.raises(ModelError, match="takes no audio_classification students"):
        Onnx().check(replace(card, task={"type": "audio-classification"}))


@pytest.mark.parametrize("maker", [Onnx(), Openvino()])
def test_graphs_from_outside_of_the_students_folder_are_refused(tmp_path: Path, maker: Exporter) -> None:
    if maker.type() == "openvino":
        pytest.importorskip("openvino")
    card = replace(student(tmp_path / "student", TEXT, BERT), format="onnx", file="../other.onnx")
    weights = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    external = onnx.TensorProto(name="w", data_type=1, dims=[3, 2], data_location=onnx.TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="../secret.bin")
    graph = onnx.helper.make_graph([], "g", [], [], [external])
    for path in (tmp_path / "other.onnx", tmp_path / "student" / "model.onnx"):
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (tmp_path / "secret.bin").write_bytes(weights.raw_data)
    for name, culprit in (("../other.onnx", "the card"), ("model.onnx", "model.onnx")):
        (tmp_path / culprit).mkdir()
        with pytest.raises(ModelError, match=rf"{culprit}.* names a file outside of its folder"):
            maker.export(tmp_path / "student", tmp_path / culprit, replace(card, file=name))


def test_a_tokenizer_that_reads_a_text_as_one_token_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    card = student(tmp_path / "student", TEXT, BERT)
    (tmp_path / "student" / "tokenizer.json").unlink()
    whole = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        tmp_path / "student"
    )
    (tmp_path / "onnx").mkdir()

    with pytest.raises(ModelError, match="reads each text as one token"):
        Onnx().export(tmp_path / "student", tmp_path / "onnx", card)
