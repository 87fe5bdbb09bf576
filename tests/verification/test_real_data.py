"""The verifiers judge recorded data as it was judged before (benchmarks/evidence/verifiers.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evidence" / "verifiers.py"


def evidence() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evidence_verifiers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVIDENCE = evidence()


def needs(name: str) -> pytest.MarkDecorator:
    there = (EVIDENCE.DATA / name).is_dir()
    return pytest.mark.skipif(not there, reason=f"no data set '{name}' where LIMBECK_DATA says")


@pytest.mark.slow
@needs("r1_traces_pcmb")
def test_r1_traces_intact_ones_alone_are_kept() -> None:
    facts = EVIDENCE.r1()
    assert facts["traces"] == 413
    assert facts["intact_kept"] == facts["intact"] == 826
    assert facts["damaged_kept"] == 0
    assert facts["right_reason"] == facts["damaged"] == 413 * len(EVIDENCE.DAMAGES)


@pytest.mark.slow
@needs("farel_traces")
def test_farel_columns_are_reproduced() -> None:
    found = EVIDENCE.farel()
    for fact in found.values():
        assert fact["answers"] == 4050
        assert fact["agreement"] >= 0.995
        assert fact["boxed"]["agreement"] >= 0.995
    assert min(found["forms tag and boxed"]["by_model"].values()) >= 0.995, "the forms that the column was made by"


@pytest.mark.slow
@needs("gsm8k")
def test_gsm8k_columns_are_reproduced() -> None:
    for fact in EVIDENCE.gsm8k().values():
        assert fact["answers"] == 1319
        assert fact["agreement"] >= 0.995


@pytest.mark.slow
@needs("humaneval")
def test_humaneval_tells_right_programs_from_mutated_ones() -> None:
    for name, fact in EVIDENCE.humaneval(every=3).items():
        if name.startswith("canonical"):
            assert fact["right"] == fact["programs"], name
        else:
            # Some changes change nothing that the problem's own tests look at.
            assert fact["right"] <= 0.05 * fact["programs"], name
