"""What a folder for onnxruntime-genai may name: files of its own, and no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError
from limbeck.runtime.genai import CONFIG, files_of

MADE: dict[str, Any] = {
    "model": {
        "bos_token_id": 1,
        "context_length": 128,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": [{"cuda": {"enable": "0"}}]},
            "filename": "model.onnx",
            "inputs": {"input_ids": "input_ids", "past_key_names": "past_key_values.%d.key"},
        },
        "type": "qwen3",
    },
    "search": {"do_sample": False, "max_length": 128},
}
"""As its builder writes it, in short."""


def folder_with(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"")
    (folder.parent / "secret.onnx").write_bytes(b"")
    (folder / CONFIG).write_text(text)
    return folder


def changed(part: str, name: str, value: Any) -> str:
    told = json.loads(json.dumps(MADE))
    place = told["model"]["decoder"]
    (place if part == "decoder" else place[part])[name] = value
    return json.dumps(told)


def test_what_the_builder_writes_is_read(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", json.dumps(MADE))

    assert files_of(folder) == [folder.resolve() / "model.onnx"]
    told = json.loads(json.dumps(MADE)) | {"vision": {"filename": "model.onnx"}}
    (folder / CONFIG).write_text(json.dumps(told))
    assert len(files_of(folder)) == 2


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("decoder", "filename", "../secret.onnx", "outside of its folder"),
        ("decoder", "filename", "/etc/hostname", "outside of its folder"),
        ("decoder", "filename", 3, "outside of its folder"),
        ("decoder", "config_filename", "../secret.onnx", "outside of its folder"),
        ("decoder", "adapter_filename", "nowhere.onnx", "not there"),
        ("session_options", "custom_ops_library", "evil.so", "sets `custom_ops_library`"),
        ("session_options", "optimized_model_filepath", "/tmp/out", "sets `optimized_model_filepath`"),
        ("session_options", "enable_profiling", "out", "sets `enable_profiling`"),
        ("session_options", "session.model_external_initializers_file_folder_path", "/", "sets `session.model_ext"),
        ("session_options", "provider_options", [{"qnn": {"backend_path": "evil.so"}}], "sets `backend_path`"),
        ("session_options", "provider_options", [{"openvino": {"cache_dir": "/tmp"}}], "sets `cache_dir`"),
    ],
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, part: str, name: str, value: Any, said: str) -> None:
    folder = folder_with(tmp_path / "m", changed(part, name, value))

    with pytest.raises(ModelError, match=said):
        files_of(folder)


def test_a_name_that_is_there_twice_counts_twice(tmp_path: Path) -> None:
    twice = '{"model": {"decoder": {"filename": "../secret.onnx", "filename": "model.onnx"}}}'

    with pytest.raises(ModelError, match="outside of its folder"):
        files_of(folder_with(tmp_path / "m", twice))


@pytest.mark.parametrize("text", ["{", "[" * 9999, "\ud800"])
def test_settings_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    folder = folder_with(tmp_path / "m", "")
    (folder / CONFIG).write_bytes(text.encode(errors="surrogatepass"))

    with pytest.raises(ModelError, match="cannot be read"):
        files_of(folder)
