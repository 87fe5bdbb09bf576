"""What models cost, against formulas and things whose cost is known."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.core.recipe import Evaluate, Speed
from limbeck.evaluation.book import Book
from limbeck.evaluation.efficiency import energy, latencies, measure, weight_bytes
from limbeck.evaluation.efficiency.latency import Watched, answered, paces
from limbeck.evaluation.efficiency.memory import NotMeasured, held_bytes, peak_bytes
from limbeck.evaluation.efficiency.requests import Requests
from limbeck.evaluation.efficiency.work import flops, stored_bytes, uncounted
from limbeck.teachers.ensemble import EnsembleModel, EnsembleTeacher
from limbeck.teachers.local import LocalTeacher
from tests.evaluation.interpretability.rows import language, model_for, pictures, texts
from tests.evaluation.made import value

CPU = torch.device("cpu")
BRIEF = Speed(batch_sizes=[1, 4], seconds=0.001, price_per_hour=3.6, currency="EUR")


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def measured(models: Any, rows: Any, **options: Any) -> tuple[Book, list[str]]:
    book = Book(Evaluate(resamples=200))
    return book, measure(models, rows, BRIEF, book, runs=3, **options)


def test_a_matrix_of_figures_for_two_classifiers(tmp_path: Path) -> None:
    rows, codec = texts()
    models = {
        "teacher": (model_for("bert", codec, num_hidden_layers=4).eval(), codec),
        "student": (model_for("bert", codec, num_hidden_layers=1).eval(), codec),
    }
    models["teacher"][0].save_pretrained(tmp_path)
    models["teacher"] = (type(models["teacher"][0]).from_pretrained(tmp_path, dtype=torch.float64).eval(), codec)
    book, notes = measured(models, rows)
    assert "bytes on disk of student: the files that it was read from are not known" in notes
    assert value(book, "teacher", "bytes_on_disk") == (tmp_path / "model.safetensors").stat().st_size
    for name, (model, _) in models.items():
        count = sum(p.numel() for p in model.parameters())
        assert value(book, name, "parameters") == count
        assert value(book, name, "bytes") == 8 * count == weight_bytes(model)
        p50, p95, p99 = (value(book, name, f"latency_p{share}") for share in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99
        assert value(book, name, "price_per_1000") == pytest.approx(p50 / 1000)  # 0.001 a second
        assert value(book, name, "cpu_seconds_per_request") > 0
    sizes = [value(book, name, "parameters") for name in ("teacher", "student")]
    assert value(book, "student", "size_ratio") == sizes[0] / sizes[1]
    speedup = next(s for s in book.scores if s.name == "speedup")
    assert speedup.value == pytest.approx(value(book, "teacher", "latency_p50") / value(book, "student", "latency_p50"))
    assert speedup.low is not None
    assert {(r["model"], r["batch_size"]) for r in book.details["speed"]} == {(m, b) for m in models for b in (1, 4)}
    fastest = max(r["rows_per_second"] for r in book.details["speed"] if r["model"] == "student")
    assert value(book, "student", "throughput") == fastest
    assert {s.axis for s in book.scores} == {"efficiency"}


def test_language_models_and_pictures_are_measured_too() -> None:
    for kind, make in (("llama", language), ("vit", pictures)):
        rows, codec = make()
        book, _ = measured({"student": (model_for(kind, codec, num_hidden_layers=1).eval(), codec)}, rows)
        found = {s.name for s in book.scores}
        assert found >= {"flops_per_row", "latency_p99", "throughput", "cpu_seconds_per_request"}
        assert not found & {"size_ratio", "speedup"}


def test_operations_are_those_of_the_formula() -> None:
    rows, codec = language()
    model = model_for("llama", codec, num_hidden_layers=3).eval()
    batch = Requests(model, codec, rows).typical()
    T, D, heads, kv, inner, V = batch.labels.shape[1], 16, 2, 1, 24, len(codec.processor)
    size = D // heads
    projections = 2 * T * D * (heads + kv + kv + heads) * size
    attention = 2 * 2 * heads * T * T * size
    layer = projections + attention + 3 * 2 * T * D * inner
    assert flops(model, batch) == 3 * layer + 2 * T * D * V
    model.set_attn_implementation("eager")
    assert flops(model, batch) == 3 * layer + 2 * T * D * V
    assert uncounted(model) == []
    model.config._attn_implementation = "flash_attention_2"
    assert uncounted(model) == ["flash_attention_2"]


def test_percentiles_are_those_of_requests_and_models_take_turns() -> None:
    order: list[str] = []

    def request(name: str, seconds: float) -> Any:
        return lambda i: (order.append(name), time.sleep(seconds))

    times = latencies({"slow": request("slow", 0.004), "quick": request("quick", 0)}, 5)
    assert order == ["slow", "quick"] * 10
    assert {name: len(each) for name, each in times.items()} == {"slow": 5, "quick": 5}
    assert np.median(times["slow"]) >= 4
    assert np.median(times["quick"]) < np.median(times["slow"])


def test_cpu_time_is_that_of_work_not_of_waiting() -> None:
    works, waits = Watched(lambda i: busy(0.03)), Watched(lambda i: time.sleep(0.03))
    works(0)
    waits(0)
    assert works.cpu_seconds[0] >= 0.03
    assert waits.cpu_seconds[0] < 0.02


def test_throughput_stops_in_time_and_says_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []

    def request(seconds: float) -> Any:
        def send(i: int) -> None:
            asked.append((seconds, i))
            now[0] += seconds

        return send

    def full(i: int) -> None:
        raise torch.OutOfMemoryError("full")

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0] / 2)
    monkeypatch.setattr("limbeck.evaluation.efficiency.latency.time", clock)
    found = paces({"slow": request(5), "quick": request(0.25), "large": full}, batch_size=8, seconds=1)
    assert asked[:5] == [(5, 0), (0.25, 0), (5, 0), (0.25, 0), (0.25, 1)]
    assert {name: pace.batches for name, pace in found.items()} == {"slow": 1, "quick": 4, "large": 0}
    assert (found["quick"].rows, found["quick"].seconds, found["quick"].cpu_seconds) == (32, 1, 0.5)
    assert not found["large"].fits


def test_a_batch_that_alone_is_too_large_ends_the_measure_and_not_the_run() -> None:
    def request(i: int) -> None:
        if i:
            raise torch.OutOfMemoryError("full")

    found = paces({"student": request}, batch_size=8, seconds=1)["student"]
    assert (found.batches, found.fits) == (1, False)


def test_peak_memory_is_what_a_request_takes_besides() -> None:
    def request(i: int) -> None:
        one = torch.ones(40 * 2**18)  # 40 MiB
        del one
        torch.ones(8 * 2**18)

    try:
        found = peak_bytes(request, CPU)
    except NotMeasured as why:
        pytest.skip(str(why))
    assert found == pytest.approx(40 * 2**20, abs=2**20)  # the most at any time, and not the sum
    assert peak_bytes(lambda i: None, CPU) < 2**20


def test_held_memory_counts_tied_weights_once_and_buffers_too() -> None:
    model = torch.nn.Module()
    model.one = model.two = torch.nn.Linear(3, 5, bias=False)
    model.register_buffer("mean", torch.zeros(7, dtype=torch.float64))
    assert held_bytes(model) == 4 * 15 + 8 * 7
    assert weight_bytes(model) == 4 * 15


def counter(folder: Path, name: str, value: int, limit: int = 1000) -> Path:
    at = folder / name
    at.mkdir()
    (at / "energy_uj").write_text(f"{value}\n")
    (at / "max_energy_range_uj").write_text(f"{limit}\n")
    return at / "energy_uj"


def test_energy_is_read_from_every_package_once_and_counters_may_start_again(tmp_path: Path) -> None:
    one, two = counter(tmp_path, "intel-rapl:0", 900), counter(tmp_path, "intel-rapl:1", 100)
    counter(tmp_path, "intel-rapl:0:0", 5)  # the cores, part of package 0

    def request(i: int) -> None:
        one.write_text("150")
        two.write_text("400")

    found = energy.processors(tmp_path)
    assert len(found) == 2
    assert energy.joules(request, found, seconds=0) == (pytest.approx((250 + 300) / 1e6), 1)


def test_energy_that_nothing_counts_is_absent_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codec = pictures()
    model = model_for("vit", codec, num_hidden_layers=1).eval()
    models = dict.fromkeys(("teacher", "student"), (model, codec))
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    book, notes = measured(models, rows)
    assert "energy_per_1000" not in {s.name for s in book.scores}
    assert [note for note in notes if note.startswith("energy")] == [
        "energy not measured: the processor shows no energy counter (RAPL)"
    ]
    at = counter(tmp_path, "intel-rapl:0", 10)
    book, notes = measured({"student": models["student"]}, rows)
    assert "energy_per_1000" not in {s.name for s in book.scores}
    assert "energy of student not measured: its counter did not move within 0.001 s" in notes
    at.unlink()
    with pytest.raises(NotMeasured, match="by root alone"):
        energy.processors(tmp_path)


def test_energy_of_a_gpu_is_that_of_its_own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts in thousandths of a joule, and knows the GPU by another number than PyTorch does."""

    class Refusal(Exception):
        pass

    counted, asked = [5_000, 5_000, 5_000, 5_250], []
    nvml = SimpleNamespace(
        NVMLError=Refusal,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counted.pop(0) if handle == "handle" else None,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-ab"))
    counters = energy.meters(torch.device("cuda", 1))
    assert asked == ["GPU-12-ab"]
    counted.pop(0)
    assert energy.joules(lambda i: None, counters, seconds=0) == (pytest.approx(0.25), 1)

    def refuse() -> None:
        raise Refusal("no permission")

    nvml.nvmlInit = refuse
    with pytest.raises(NotMeasured, match="cannot be read: no permission"):
        energy.meters(torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotMeasured, match="nvidia-ml-py, which is not installed"):
        energy.meters(torch.device("cuda"))


def test_peak_memory_of_a_gpu_is_what_pytorch_has_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"now": 700, "peak": 9_999}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: given["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: given["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: given.update(peak=given["now"]))
    request = lambda i: given.update(peak=max(given["peak"], given["now"] + 300))  # noqa: E731
    assert peak_bytes(request, torch.device("cuda")) == 300
    with pytest.raises(NotMeasured, match="type mps"):
        peak_bytes(request, torch.device("mps"))


def test_an_accelerator_is_waited_for_before_the_clock_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("waited"))
    answered(lambda i: order.append(f"sent {i}"), 3)
    assert order == ["sent 3", "waited"]


def test_operations_of_bert_and_of_convolutions() -> None:
    """Counted by hand: products of matrices and convolutions, an addition and a multiplication as two."""
    rows, codec = texts()
    model = model_for("bert", codec, num_hidden_layers=3).eval()
    batch = Requests(model, codec, rows).typical()
    T, D, inner = batch.inputs["input_ids"].shape[1], 16, 24
    layer = 4 * 2 * T * D * D + 2 * 2 * T * T * D + 2 * 2 * T * D * inner
    assert flops(model, batch) == 3 * layer + 2 * D * D + 2 * D * 2  # pooler and head read one position
    rows, codec = pictures(side=16)
    model = model_for("resnet", codec).eval()
    batch = Requests(model, codec, rows).typical()
    sides = {name: 0 for name, part in model.named_modules() if isinstance(part, torch.nn.Conv2d)}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda part, given, out, name=name: sides.update({name: out.shape[-1]})
        )
        for name in sides
    ]
    flops(model, batch)
    for hook in hooks:
        hook.remove()
    assert sides["resnet.embedder.embedder.convolution"] == 8  # a stride of two
    wanted = 2 * 8 * 2  # the head: 8 channels to 2 classes
    for name, side in sides.items():
        weight = model.get_submodule(name).weight
        wanted += 2 * side * side * weight.numel()
    assert flops(model, batch) == wanted


def test_bytes_on_disk_of_shards_of_members_and_of_new_models(tmp_path: Path) -> None:
    _, codec = texts()
    model = model_for("bert", codec)
    assert stored_bytes(model) is None
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    shards = list(tmp_path.glob("model-*.safetensors"))
    (tmp_path / "consolidated.safetensors").write_bytes(b"x" * 7)  # not what transformers reads
    stored = type(model).from_pretrained(tmp_path).eval()
    assert len(shards) > 1
    assert stored_bytes(stored) == sum(file.stat().st_size for file in shards)
    members = [LocalTeacher(each, CPU) for each in (stored, stored)]
    assert stored_bytes(EnsembleModel(EnsembleTeacher(members))) == 2 * stored_bytes(stored)
    stored.name_or_path = "nobody/has-this"
    assert stored_bytes(stored) is None
