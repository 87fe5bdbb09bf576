"""`recipes/ship.yaml` in one command, with tiny models, and then a question to its server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import limbeck
from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.cli.test_serve import started
from tests.pipeline.recipes import QUICK
from tests.pipeline.test_recipes import without_downloads

httpx = pytest.importorskip("httpx")
RECIPE = Path(__file__).parents[2] / "recipes" / "ship.yaml"


@pytest.mark.slow
def test_from_a_teacher_to_an_answer(tmp_path: Path) -> None:
    settings = [f"output={tmp_path}/run", "compress.tolerance={drop: 1.0}", "stages.distil.max_steps=4"]
    settings += ["teacher.finetune.max_steps=4", "teacher.finetune.global_batch_size=4"]
    settings += [f"evaluate.{name}={json.dumps(value)}" for name, value in QUICK.items()]
    result = limbeck.run(RECIPE, [*settings, *without_downloads(tmp_path, small=True)])
    small = load_student(tmp_path / "run" / "compress")
    assert result.report is not None
    assert (small.card.format, small.card.precision) == ("onnx", "int8")
    texts = [f"it is {i} today" for i in range(4)]
    wanted = small.predict([Sample(text, {"text": text}, "") for text in texts])
    with started(str(tmp_path / "run"), "--name", "intents") as (_, said):
        assert said["intents"].endswith("onnxruntime, int8")
        given = httpx.post(f"{said['http']}/predict", json={"inputs": [{"text": text} for text in texts]}, timeout=60)
        assert given.status_code == 200, given.text
        found = given.json()["predictions"]
    assert [each["label"] for each in found] == [answer.label for answer in wanted]
    confident = [each["confidence"] for each in found]
    assert confident == pytest.approx([answer.confidence for answer in wanted], abs=1e-3)
