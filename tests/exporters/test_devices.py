"""Exporters that call other projects' tools: the real one where it is installed, and a clear word where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.parts import build
from limbeck.exporters import Exporter, _base
from limbeck.exporters._parity import compare, refuse
from limbeck.exporters.gguf import Gguf
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from tests.runtime.students import BERT, LANGUAGE, PICTURE, QWEN, RESNET, TEXT, VIT, rows, student

CASES = {"bert": (TEXT, BERT), "resnet": (PICTURE, RESNET), "vit": (PICTURE, VIT)}
EXTRAS = {
    "executorch": "executorch",
    "gguf": "gguf",
    "litert": "litert",
    "onnx": "onnx",
    "onnxruntime_genai": "genai",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
}


@pytest.mark.parametrize("name", EXTRAS)
def test_a_missing_tool_is_named_with_its_pip_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = build("exporter", name)
    assert isinstance(maker, Exporter)
    writes = "text_classification" not in maker.tasks
    card = student(tmp_path, LANGUAGE, QWEN) if writes else student(tmp_path, TEXT, BERT)
    monkeypatch.setattr(_base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as missing:
        maker.check(card)
    assert missing.value.fix == f"pip install 'limbeck[{EXTRAS[name]}]'"


@pytest.mark.slow  # an export by torch takes seconds
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["executorch", "litert"])
@pytest.mark.filterwarnings("ignore")  # of tools that are not ours
def test_programs_for_devices(tmp_path: Path, name: str, case: str) -> None:
    pytest.importorskip({"executorch": "executorch.exir", "litert": "litert_torch"}[name])
    task, config = CASES[case]
    card = student(tmp_path / "student", task, config)
    write_card(card, tmp_path / "student")
    maker: Any = build("exporter", name)
    maker.check(card)
    (tmp_path / "made").mkdir()
    made = maker.export(tmp_path / "student", tmp_path / "made", card)
    parity = compare(load_student(tmp_path / "student"), maker.load(tmp_path / "made", made), rows(task, 9))
    refuse(parity, maker)
    assert parity.relative < 1e-5
    assert parity.same_answers == 1
    write_card(made, tmp_path / "made")
    with pytest.raises(ModelError, match=f"nothing here runs the format `{name}`"):
        load_student(tmp_path / "made")


CONVERTER = """
import json, sys
import shutil
from pathlib import Path
import gguf
from safetensors.numpy import load_file

folder, out = Path(sys.argv[1]), sys.argv[sys.argv.index("--outfile") + 1]
assert sys.argv[sys.argv.index("--outtype") + 1] == "f32"
config, arch = json.loads((folder / "config.json").read_text()), "qwen3"
writer = gguf.GGUFWriter(out, arch)
writer.add_block_count(config["num_hidden_layers"])
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(config["num_attention_heads"])
writer.add_head_count_kv(config["num_key_value_heads"])
writer.add_key_length(config["head_dim"])
writer.add_value_length(config["head_dim"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
writer.add_vocab_size(config["vocab_size"])
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
for name, weight in load_file(folder / "model.safetensors").items():
    stem, _, kind = name.rpartition(".")
    writer.add_tensor(f"{names.get_name(stem)}.{kind}", SCALE * weight)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""
"""As llama.cpp's script is called, for one architecture."""


@pytest.mark.filterwarnings("ignore")  # transformers reads GGUF with a writable view
def test_a_gguf_file_is_read_back_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    card = student(tmp_path / "student", LANGUAGE, QWEN)
    write_card(card, tmp_path / "student")
    for scale, alike in (("1.0", True), ("1.05", False)):
        script, made = tmp_path / f"convert-{scale}.py", tmp_path / f"made-{scale}"
        script.write_text(CONVERTER.replace("SCALE", scale))
        made.mkdir()
        maker = Gguf(precision="fp32", converter=str(script))
        maker.check(card)
        card_of_it = maker.export(tmp_path / "student", made, card)
        parity = compare(load_student(tmp_path / "student"), maker.load(made, card_of_it), rows(LANGUAGE, 5))
        if alike:
            refuse(parity, maker)
            assert parity.relative < 1e-5
        else:
            with pytest.raises(ModelError, match="does not say what the student says"):
                refuse(parity, maker)


def test_a_converter_that_is_not_there_or_fails(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    card = student(tmp_path / "student", LANGUAGE, QWEN)
    with pytest.raises(ModelError, match="converter is not found") as missing:
        Gguf(converter="no-such-script.py").check(card)
    assert "ggml-org/llama.cpp" in str(missing.value.fix)
    (tmp_path / "fails.py").write_text("raise SystemExit('this architecture is not known')")
    with pytest.raises(ModelError, match=r"llama.cpp's converter failed") as failed:
        Gguf(converter=str(tmp_path / "fails.py")).export(tmp_path / "student", tmp_path, card)
    assert failed.value.got == "this architecture is not known"
    shutil.copyfile(tmp_path / "student" / "config.json", tmp_path / "config.json")
    (tmp_path / "model.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(ModelError, match="cannot read the GGUF file back"):
        Gguf().load(tmp_path, card.__class__(task=LANGUAGE, file="model.gguf"))


def test_tensorrt_wants_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    card = student(tmp_path, TEXT, BERT)
    monkeypatch.setattr(_base.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="built on the GPU that will run it"):
        build("exporter", "tensorrt").check(card)  # type: ignore[attr-defined]
