"""onnxruntime-genai: a language model built by its own tool writes what transformers writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError
from limbeck.exporters._parity import compare, refuse
from limbeck.exporters._tool import run_tool
from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from limbeck.runtime.writer import load_writer
from tests.runtime.students import BERT, LANGUAGE, QWEN, TEXT, rows, student

WIDER = {**QWEN, "hidden_size": 64, "intermediate_size": 64, "head_dim": 32}
"""Weights are quantized in blocks of 32."""


@pytest.mark.slow  # its builder takes seconds to start
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_the_round_trip(tmp_path: Path, precision: Any) -> None:
    pytest.importorskip("onnxruntime_genai")
    folder, built = tmp_path / "student", tmp_path / "built"
    card = student(folder, LANGUAGE, WIDER)
    write_card(card, folder)
    built.mkdir()
    maker = OnnxruntimeGenai(precision=precision)
    maker.check(card)
    made = maker.export(folder, built, card)
    write_card(made, built)
    samples = rows(LANGUAGE, 8)
    parity = compare(load_student(folder), maker.load(built, made), samples)
    if precision == "fp32":
        refuse(parity, maker)
        assert parity.relative < 1e-4
    else:  # weights at random have answers that hang on the last digit
        assert parity.relative < (0.1 if precision == "int8" else 0.5)
        assert parity.same_answers > 0.6
    before, after = load_writer(folder), load_writer(built)
    assert after.engine == "onnxruntime-genai"
    for sample in samples[:3]:
        whole = after.write([sample], 12)[0]
        assert whole.tokens <= 12
        assert "".join(after.stream(sample, 12)) == whole.text
        if precision == "fp32":
            assert whole == before.write([sample], 12)[0]
    with pytest.raises(ModelError, match="cannot read this prompt"):
        after.write(samples[:1], 4000)
    with pytest.raises(ModelError, match="nothing here runs the format"):
        load_student(built)


def test_classifiers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="onnxruntime_genai takes no text_classification students"):
        OnnxruntimeGenai().check(student(tmp_path, TEXT, BERT))


def test_a_tool_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    code = "import os, sys; print('x', file=sys.stderr); sys.exit(os.environ['HF_HUB_OFFLINE'] + ' no such layer')"
    with pytest.raises(ModelError, match="the builder failed") as refused:
        run_tool("the builder", [sys.executable, "-c", code], tmp_path, 60)
    assert refused.value.got == "1 no such layer"
    with pytest.raises(ModelError, match="took too long"):
        run_tool("the builder", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.5)
