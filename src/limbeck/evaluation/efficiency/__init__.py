"""What a model costs: its size, its operations, time, memory, money and energy of requests.

What cannot be measured on a machine is left out, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from limbeck.core.recipe.evaluate import Speed
from limbeck.core.types import Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.efficiency.energy import joules, meters
from limbeck.evaluation.efficiency.latency import Watched, latencies, paces
from limbeck.evaluation.efficiency.memory import NotMeasured, held_bytes, peak_bytes
from limbeck.evaluation.efficiency.requests import NEW_TOKENS, Requests
from limbeck.evaluation.efficiency.work import flops, stored_bytes, uncounted, weight_bytes
from limbeck.evaluation.served import ServedModel
from limbeck.evaluation.statistics import mean, median_ratio
from limbeck.models.load import parameters
from limbeck.tasks import Codec

if TYPE_CHECKING:
    from limbeck.evaluation.predict import Measured

__all__ = ["NEW_TOKENS", "latencies", "measure", "weight_bytes"]

TEACHER = "teacher"
"""The model that others are compared with."""
AXIS = "efficiency"


@torch.inference_mode()
def measure(
    models: Mapping[str, tuple[Measured, Codec]],
    samples: Sequence[Sample],
    plan: Speed,
    book: Book,
    *,
    runs: int,
) -> list[str]:
    """Write down what models cost: scores, and the detail `speed`.

    A request is one row through a classifier, or `NEW_TOKENS` new tokens of a language model.

    Args:
        models: by name, each in evaluation mode and with its codec.
        samples: rows to ask about; the first ones that all models can read are used.
        plan: batch sizes, time and price.
        book: takes the figures.
        runs: timed single requests per model, in turns.

    Returns:
        What could not be measured, a line each.
    """
    few = _readable(models, samples)[: max(runs, *plan.batch_sizes)]
    asked = {name: Requests(model, codec, few) for name, (model, codec) in models.items()}
    notes: list[str] = []
    for name, requests in asked.items():
        notes += _size(name, requests, book)
    times = _latency(asked, plan, runs, book)
    _compare(asked, times, book)
    notes += _throughput(asked, plan, book)
    for name, requests in asked.items():
        notes += _memory(name, requests, book)
    return notes + _energy(asked, plan, book)


def _readable(models: Mapping[str, tuple[Any, Codec]], samples: Sequence[Sample]) -> list[Sample]:
    """The rows that no model finds too long."""
    read = [{feature.id for feature in codec.encode(samples).features} for _, codec in models.values()]
    return [sample for sample in samples if all(sample.id in ids for ids in read)]


def _size(name: str, requests: Requests, book: Book) -> list[str]:
    model, notes = requests.model, list[str]()
    if (stored := stored_bytes(model)) is None:
        notes.append(f"bytes on disk of {name}: the files that it was read from are not known")
    else:
        book.exact(name, AXIS, "bytes_on_disk", "bytes", stored, 1)
    if isinstance(model, ServedModel):
        return [*notes, f"parameters and operations of {name}: {model.engine} does not tell them"]
    book.exact(name, AXIS, "parameters", "parameters", parameters(model), 1)
    book.exact(name, AXIS, "bytes", "bytes", weight_bytes(model), 1)
    if unseen := uncounted(model):
        notes.append(f"operations of {name}: attention of the kind {', '.join(unseen)} cannot be counted")
    else:
        book.exact(name, AXIS, "flops_per_row", "operations", flops(model, requests.typical()), 1)
    return notes


def _latency(asked: Mapping[str, Requests], plan: Speed, runs: int, book: Book) -> dict[str, Any]:
    watched = {name: Watched(requests.single()) for name, requests in asked.items()}
    times = latencies(watched, runs)
    book.details["latencies"] = {name: [round(float(each), 5) for each in took] for name, took in times.items()}
    for name, milliseconds in times.items():
        for share in (50, 95, 99):
            book.exact(name, AXIS, f"latency_p{share}", "ms", float(np.percentile(milliseconds, share)), runs)
        busy = np.asarray(watched[name].cpu_seconds[-runs:])
        book.estimate(name, AXIS, "cpu_seconds_per_request", "seconds", mean, busy)
        if plan.price_per_hour is not None:
            hours = 1000 * float(np.median(milliseconds)) / 3.6e6
            book.exact(name, AXIS, "price_per_1000", plan.currency, hours * plan.price_per_hour, runs)
    return times


def _compare(asked: Mapping[str, Requests], times: Mapping[str, Any], book: Book) -> None:
    if TEACHER not in asked:
        return
    for name, requests in asked.items():
        if name != TEACHER:
            mine, its = (parameters(each.model) for each in (requests, asked[TEACHER]))
            if mine and its:
                book.exact(name, AXIS, "size_ratio", "x", its / mine, 1)
            book.estimate(name, AXIS, "speedup", "x", median_ratio, times[TEACHER], times[name])


def _throughput(asked: Mapping[str, Requests], plan: Speed, book: Book) -> list[str]:
    """The detail `speed`; the score is that of the fastest batch size."""
    rows: list[dict[str, Any]] = []
    notes, best = [], dict[str, tuple[float, int]]()
    for size in plan.batch_sizes:
        for name, pace in paces({n: r.many(size) for n, r in asked.items()}, size, plan.seconds).items():
            if not pace.fits:
                notes.append(f"throughput of {name}: {size} rows at a time do not fit into memory")
                continue
            rate = pace.rows / pace.seconds
            best[name] = max(best.get(name, (0.0, 0)), (rate, pace.rows))
            about = {"rows_per_second": rate, "cpu_seconds_per_row": pace.cpu_seconds / pace.rows}
            rows.append({"model": name, "batch_size": size, **about})
    for name, (rate, count) in best.items():
        book.exact(name, AXIS, "throughput", "rows/s", rate, count)
    if rows:
        book.details["speed"] = rows
    return notes


def _memory(name: str, requests: Requests, book: Book) -> list[str]:
    try:
        peak = held_bytes(requests.model) + peak_bytes(requests.longest(), requests.device)
    except NotMeasured as why:
        return [f"memory of {name}: {why}"]
    book.exact(name, AXIS, "peak_memory", "bytes", peak, 1)
    return []


def _energy(asked: Mapping[str, Requests], plan: Speed, book: Book) -> list[str]:
    reasons: dict[str, None] = {}
    for name, requests in asked.items():
        try:
            counters = meters(requests.device)
        except NotMeasured as why:
            reasons[f"energy not measured: {why}"] = None
            continue
        energy, count = joules(requests.single(), counters, plan.seconds)
        if energy:
            book.exact(name, AXIS, "energy_per_1000", "J", 1000 * energy / count, count)
        else:
            reasons[f"energy of {name} not measured: its counter did not move within {plan.seconds:g} s"] = None
    return list(reasons)
