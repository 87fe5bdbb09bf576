"""Recordings: any batch reads the same, kills leave no trace, damage and strangers are refused by name."""

from __future__ import annotations

import errno
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.cache.codecs import Drawn, PlainTopK
from limbeck.cache.fit import Asked
from limbeck.cache.record import fit, record
from limbeck.cache.store import VERSION, Cache, Format
from limbeck.core import artifacts
from limbeck.core.errors import ArtifactError, DataError, ModelError, RecipeError
from limbeck.core.types import Batch, Needs, TopK
from limbeck.teachers.cached import CachedTeacher
from tests.cache.made import FACTS, LAYER, ORDER, Made, Teacher, V, batch, dense, files, packed, texts
from tests.processes import FORKS

FULL = Format(PlainTopK(V, "float32"), (LAYER,))
BOTH = Needs(True, frozenset({LAYER}))


@pytest.fixture
def made() -> Made:
    return Made(texts(), Teacher())


def same(made: Made, cache: Cache, given: Batch) -> None:
    """What the recording says of a batch is what the teacher says of it."""
    told, wanted = CachedTeacher(cache).signal(given, BOTH), made.teacher.signal(given)
    dist: Any = told.dist
    assert isinstance(dist, TopK)
    logs = torch.log_softmax(wanted.dist.hidden @ wanted.dist.weight.T, -1)  # type: ignore[union-attr]
    valid = given.labels != -100
    assert (dist.ids[~valid] == -1).all()
    torch.testing.assert_close(dist.logprobs[valid], logs[valid].gather(1, dist.ids[valid]), atol=1e-5, rtol=0)
    real = given.inputs["attention_mask"].bool()
    torch.testing.assert_close(told.features[LAYER][real], wanted.features[LAYER][real], atol=2e-2, rtol=1e-3)
    assert (told.features[LAYER][~real] == 0).all()


def test_any_batch_reads_the_same(tmp_path: Path, made: Made) -> None:
    cache = made.record(tmp_path / "cache", FULL)
    draw = random.Random(0)
    for size in (1, 3, 11, 30):
        which = draw.sample(range(30), size)
        same(made, cache, batch(made.rows, which))
        same(made, cache, batch(made.rows, which, "left", more=3))
        same(made, cache, packed(made.rows, which))
    assert cache.figures()["tokens"] == len(dense(made.teacher, batch(made.rows, range(30))))


def test_processes_and_kills_write_the_same_bytes(tmp_path: Path) -> None:
    made = Made(texts(200), Teacher())
    for name, format_ in (("top", FULL), ("drawn", Format(Drawn(order=ORDER, count=20)))):
        made.record(tmp_path / name / "one", format_)
        wanted = files(tmp_path / name / "one")
        assert len(wanted) == 8
        made.record(tmp_path / name / "two", format_, processes=2)
        assert files(tmp_path / name / "two") == wanted

        class Stop(Exception):
            pass

        for at in (1, 5, 17, 33):
            folder = tmp_path / name / f"stopped-{at}"
            seen: list[int] = []

            def stop(samples: int, seen: list[int] = seen, at: int = at) -> None:
                seen.append(samples)
                if len(seen) == at:
                    raise Stop

            with pytest.raises(Stop):
                made.record(folder, format_, on_block=stop)
            torn = sorted(folder.glob("shard-*"))[-1]  # half a record, as a kill leaves it
            torn.write_bytes(torn.read_bytes() + b"LBK1 half a record")
            made.record(folder, format_)
            assert files(folder) == wanted


def record_slowly(folder: Path, ready: Any) -> None:
    """What the killed process does."""
    folder.mkdir(exist_ok=True)
    ready.set()
    record(folder, Made(texts(200), Teacher()).source, FULL, on_block=lambda n: time.sleep(0.01))


def test_killed_for_real(tmp_path: Path) -> None:
    made, draw = Made(texts(200), Teacher()), random.Random(1)
    made.record(tmp_path / "whole", FULL)
    kills = 0
    while True:
        ready = FORKS.Event()
        process = FORKS.Process(target=record_slowly, args=(tmp_path / "killed", ready))
        process.start()
        assert ready.wait(120)
        process.join(draw.uniform(0.02, 0.3) if kills < 3 else 60)
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 2
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_recording_that_goes_on_asks_about_the_rest_alone(tmp_path: Path, made: Made) -> None:
    made.record(tmp_path / "cache", FULL)
    asked = made.teacher.asked
    made.record(tmp_path / "cache", FULL)
    assert made.teacher.asked == asked


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_damage_is_found_and_the_file_named(tmp_path: Path, made: Made, suffix: str) -> None:
    made.record(tmp_path / "cache", FULL)
    path = tmp_path / "cache" / f"shard-00000.{suffix}"
    whole, draw = path.read_bytes(), random.Random(0)
    everything = batch(made.rows, range(30))
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(20))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ArtifactError, match=f"shard-00000.{suffix} is damaged"):
            CachedTeacher(Cache(tmp_path / "cache")).signal(everything, BOTH)
    for size in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=f"shard-00000.{suffix} is damaged"):
            Cache(tmp_path / "cache")
    path.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        Cache(tmp_path / "cache")


def test_a_damaged_codec_is_found(tmp_path: Path, made: Made) -> None:
    made.record(tmp_path / "cache", Format(Drawn(order=ORDER, count=20)))
    for name in ("codec.json", "codec.safetensors"):
        path = tmp_path / "cache" / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"2", b"3", 1) if name.endswith("json") else whole[:-1] + b"\7")
        with pytest.raises(ArtifactError, match=name):
            Cache(tmp_path / "cache")
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [("teacher", "other"), ("tokenizer", "other"), ("template", "other"), ("vocabulary", 41), ("version", VERSION + 1)],
)
def test_a_recording_of_something_else_is_refused(tmp_path: Path, made: Made, field: str, value: Any) -> None:
    made.record(tmp_path / "cache", FULL)
    with pytest.raises(ArtifactError, match=f"another {field}"):
        Cache(tmp_path / "cache", replace(FACTS, **{field: value}))


def test_changed_samples_are_refused(tmp_path: Path, made: Made) -> None:
    teacher = CachedTeacher(made.record(tmp_path / "cache", FULL))
    given = batch(made.rows, [3, 4])
    ids = given.inputs["input_ids"].clone()
    ids[1, 0] += 1
    with pytest.raises(DataError, match=r"'row4' is not as it was.*text, template or tokens"):
        teacher.signal(replace(given, inputs={**given.inputs, "input_ids": ids}), BOTH)
    labels = given.labels.clone()
    labels[0, 0] = 5
    with pytest.raises(DataError, match=r"'row3' is not as it was.*positions of its labels"):
        teacher.signal(replace(given, labels=labels), BOTH)
    with pytest.raises(DataError, match="no sample 'new'"):
        teacher.signal(replace(given, ids=("row3", "new")), BOTH)
    with pytest.raises(RecipeError, match="augmented"):
        teacher.signal(replace(given, draws=("seed/0", None)), BOTH)
    with pytest.raises(RecipeError, match="not recorded"):
        teacher.signal(given, Needs(features=frozenset({"other"})))


@pytest.mark.parametrize("kind", ["top_k", "sampled"])
@pytest.mark.parametrize("budget", [16, 24])
def test_a_codec_is_chosen_and_measured_by_the_samples(tmp_path: Path, kind: str, budget: float) -> None:
    made = Made(texts(300), Teacher())
    found = fit(made.source, Asked(bytes_per_token=budget, type=kind))
    cache = made.record(tmp_path / "cache", Format(found.codec))
    spent = sum(len(content) for content in files(tmp_path / "cache").values()) / cache.figures()["tokens"]
    assert artifacts.load(tmp_path / "cache").manifest["cache"]["bytes_per_token"] == pytest.approx(spent)
    assert cache.figures()["bytes_per_token"] == pytest.approx(spent)
    assert 0.8 * budget < spent < 1.02 * budget
    assert found.figures["positions"] == 1024
    if kind == "top_k":
        assert 0 < found.figures["total_variation"] < found.figures["tail_mass"] + 0.05


def test_a_codec_is_chosen_by_samples_from_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a mixture lie one kind behind the other; the first ones are not all."""
    monkeypatch.setattr("limbeck.cache.record.PILOT_ROWS", 400)
    made = Made(texts(600), Teacher())
    asked: list[int] = []

    def noted(which: Sequence[int]) -> Batch:
        asked.extend(which)
        return batch(made.rows, which)

    fit(replace(made.source, batch=noted), Asked(bytes_per_token=40, type="top_k"))
    assert 60 < len(asked) < 200
    assert {i // 150 for i in asked} == {0, 1, 2, 3}


def record_without_room(folder: Path) -> None:
    """What a process does whose files cannot grow; it ends with the error's number."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        Made(texts(200), Teacher()).record(folder, FULL)
    except OSError as error:
        sys.exit(error.errno)


def test_a_file_that_cannot_grow_leaves_no_recording(tmp_path: Path) -> None:
    """As on a full disk: half a block is written. Nothing reads it, and with room again it is cut off."""
    folder, made = tmp_path / "cache", Made(texts(200), Teacher())
    made.record(tmp_path / "whole", FULL)
    wanted = files(tmp_path / "whole")
    process = FORKS.Process(target=record_without_room, args=(folder,))
    process.start()
    process.join(120)
    assert process.exitcode == errno.EFBIG
    assert 0 < len(files(folder)["shard-00000.bin"]) < len(wanted["shard-00000.bin"])
    with pytest.raises(ArtifactError, match="no finished artifact"):
        Cache(folder)
    made.record(folder, FULL)
    assert files(folder) == wanted


@pytest.mark.parametrize("codec", [PlainTopK(V), Drawn(order=ORDER, count=4)])
def test_a_teacher_without_finite_logits_is_refused(tmp_path: Path, made: Made, codec: Any) -> None:
    """A codec would record it as certain of some class."""
    made.teacher.table[10:20] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        made.record(tmp_path / "cache", Format(codec))
    with pytest.raises(ModelError, match="not finite"):
        fit(made.source, Asked(bytes_per_token=60))
