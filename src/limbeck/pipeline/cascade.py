"""cascade: the student answers where it is sure, and larger models the rest; the threshold keeps the recipe's promise.

cascade/threshold.json   the threshold, what it promises, and the models: all that a server needs
cascade/curve.json       accuracy against the share of rows that come to the last model, on fitted and on test rows
cascade/scores.json      figures of the cascade on the test rows, with intervals

A part of the validation rows gives the temperatures, the others the threshold: the promise holds for a confidence that
was fixed before it.

Shapes: N rows, M models from the smallest to the largest, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax
from scipy.stats import t as student_t

from limbeck.core.artifacts import Artifact, write_json
from limbeck.core.errors import DataError, RecipeError
from limbeck.core.parts import config_of
from limbeck.core.progress import say
from limbeck.core.recipe import dump_recipe
from limbeck.core.recipe.cascade import Cascade, Rung
from limbeck.core.types import Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.cascade import Costs, Fitted, Point, Rows, answered_by, constant, curve_of, fit
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.evaluation.statistics import difference, mean, share_interval
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._members import Said, check_cascade, evaluated_as, members, said
from limbeck.pipeline.evaluate import evaluated
from limbeck.runtime.cascade import Member, Plan, write_plan
from limbeck.runtime.student import calibrated

TEMPERED = 5
"""One of so many validation rows is for the temperatures."""


def cascade(job: RunJob, made: Mapping[str, Artifact]) -> Artifact | None:
    """The artifact `cascade`; None where the recipe has none.

    Args:
        job: the run.
        made: the artifacts so far, `train` and `evaluate` among them.

    Raises:
        BudgetError: no threshold keeps the promise; nothing is left behind.
        RecipeError: the models cannot stand behind each other, or what is promised is not known of them.
    """
    section = job.recipe.cascade
    if section is None:
        return None
    check_cascade(job.recipe)
    parents = {name: made[name] for name in ("prepare", "train", "evaluate", "compress") if name in made}
    found = members(job, section, parents)
    inputs = {"cascade": dump_recipe(section), "members": [asdict(each) for each in found]}
    inputs |= job.data_inputs(training=False)
    return job.step("cascade", inputs, parents, lambda folder: _work(job, section, found, parents, folder))


def _work(
    job: RunJob, section: Cascade, found: Sequence[Member], made: Mapping[str, Artifact], folder: Path
) -> Mapping[str, Any]:
    on_test = job.recipe.evaluate.split == "test"
    held = evaluated(job, "validation")
    table = "predictions-{}-validation.parquet" if on_test else "predictions-{}.parquet"
    told = [said(job, section, each, made, held, table) for each in found]
    for_temperature, for_threshold = _parted(len(held), job.recipe.data.seed)
    targets = _targets(job, held)
    found = [
        each if one.logs is None else replace(each, temperature=_temperature(one, targets, for_temperature))
        for each, one in zip(found, told, strict=True)
    ]
    rows = rows_of(found, told, for_threshold)
    promise, target = section.promise.given
    costs, beside = _costs(section, found, told, made["evaluate"])
    fitted = fit(rows, promise, target, level=section.level, costs=_of(costs, for_threshold), beside=beside)
    plan = Plan(
        threshold=fitted.point.threshold,
        promise=promise,
        target=target,
        level=section.level,
        n=fitted.n,
        temperature_rows=len(for_temperature),
        task=config_of(job.task),
        labels=job.label_names or (),
        members=tuple(found),
        timeout=section.timeout,
        max_waiting=section.max_waiting,
        budget=section.budget.model_dump(),
    )
    write_plan(plan, folder)
    curve: dict[str, Any] = {"models": [each.name for each in found], "chosen": asdict(fitted.point)}
    curve["costs"] = None if costs is None else costs.means
    curve |= {"promise": promise, "target": target, "level": section.level, "n": fitted.n}
    curve["fit"] = [asdict(point) for point in fitted.curve]
    book = Book(job.recipe.evaluate)
    if on_test:
        samples = evaluated(job, "test")
        words = [said(job, section, each, made, samples, "predictions-{}.parquet") for each in found]
        curve["test"] = _judged(book, found, words, fitted, _costs(section, found, words, made["evaluate"])[0])
    write_json(folder / "curve.json", curve)
    write_json(folder / "scores.json", book.rows())
    missed = {each.name: dict(one.reasons) for each, one in zip(found, told, strict=True) if one.reasons}
    _tell(fitted, curve)
    return {"counts": {"rows": fitted.n, "temperature_rows": len(for_temperature), "unanswered": missed}}


def _parted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the rows for the temperatures, and of those for the threshold."""
    if n < 2:
        raise DataError("a cascade is fitted on validation rows", got=f"{n} rows", fix="data.validation=...")
    drawn = np.random.default_rng(seed).permutation(n)
    first = max(1, n // TEMPERED)
    return np.sort(drawn[:first]), np.sort(drawn[first:])


def _targets(job: RunJob, samples: Sequence[Sample]) -> np.ndarray:
    place = {name: i for i, name in enumerate(job.label_names or ())}
    return np.array([place[sample.target] for sample in samples])


def _temperature(one: Said, targets: np.ndarray, places: np.ndarray) -> float:
    """A model's temperature."""
    assert one.logs is not None
    return temperature_of(softmax(one.logs[places], axis=1), targets[places])


def rows_of(found: Sequence[Member], told: Sequence[Said], places: np.ndarray | None = None) -> Rows:
    """Confidence and correctness of all models, as a server would have them.

    What a model does not answer is answered by the one before it. An endpoint is as sure as can be, for it gives no
    confidence.

    Args:
        found: the models, with their temperatures.
        told: what they say.
        places: of the rows; None: all.
    """
    confidence: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for member, one in zip(found, told, strict=True):
        now, missed = one.right, np.zeros(len(one.right), dtype=bool) if one.missed is None else one.missed
        right.append(np.where(missed, right[-1], now) if right else now)
        if one.logs is None:
            confidence.append((~missed).astype(float))
        else:
            confidence.append(calibrated(one.logs.astype(np.float32), member.temperature).max(1).astype(float))
    chosen = slice(None) if places is None else places
    return Rows(np.clip(np.stack(confidence[:-1])[:, chosen], 0, 1), np.stack(right)[:, chosen])


def _costs(
    section: Cascade, found: Sequence[Member], told: Sequence[Said], evaluate: Artifact
) -> tuple[Costs | None, float]:
    """What each model takes for each row, where that is promised; and the chance that it is more.

    Money is counted row by row, and the student costs nothing. Milliseconds are those of the recipe, or an upper bound
    of the mean of those that `evaluate` has measured; half of what may go wrong is left for that.

    Raises:
        RecipeError: it is not known of one of them.
    """
    promise, _ = section.promise.given
    n = len(told[0].right)
    if promise == "cost":
        later = [_price(rung, one, n) for rung, one in zip(section.to, told[1:], strict=True)]
        return Costs(0.0, np.stack([each for each, _ in later]), np.array([most for _, most in later])), 0.0
    if promise != "latency":
        return None, 0.0
    given = [section.latency, *(rung.latency for rung in section.to)]
    unknown, beside = given.count(None), (1 - section.level) / 2
    took = [
        _bound(section, member, evaluate, beside / unknown) if value is None else value
        for member, value in zip(found, given, strict=True)
    ]
    return constant(took, n), beside if unknown else 0.0


def _price(rung: Rung, one: Said, n: int) -> tuple[np.ndarray, float]:
    """What a model costs for each row, and at most."""
    if rung.cost is not None:
        return np.full(n, rung.cost), rung.cost
    assert one.cost is not None
    assert one.most is not None
    return one.cost, one.most


def _bound(section: Cascade, member: Member, evaluate: Artifact, chance: float) -> float:
    """What the mean of a model's milliseconds is above with no more than that chance: Student's, as of a normal mean.

    Raises:
        RecipeError: they were not measured.
    """
    name, fix = "details/latencies.json", "give its `latency` in `cascade`, or limbeck evaluate RECIPE --force"
    there = name in evaluate.manifest["files"]
    times = json.loads(evaluate.file(name).read_text(encoding="utf-8")) if there else {}
    took = np.asarray(times.get(evaluated_as(section, member) or "", ()))
    if len(took) < 2:
        raise RecipeError(f"the latency of `{member.name}` is not known", got=f"{len(took)} requests", fix=fix)
    return float(took.mean() + student_t.isf(chance, len(took) - 1) * took.std(ddof=1) / np.sqrt(len(took)))


def _of(costs: Costs | None, places: np.ndarray) -> Costs | None:
    """Those of some rows."""
    return None if costs is None else replace(costs, later=costs.later[:, places])


def _judged(
    book: Book, found: Sequence[Member], told: Sequence[Said], fitted: Fitted, costs: Costs | None
) -> dict[str, Any]:
    """The cascade on rows that nothing was chosen by."""
    rows = rows_of(found, told)
    n = rows.right.shape[1]
    by = answered_by(rows.confidence, fitted.point.threshold)
    right, last = rows.right[by, np.arange(n)], rows.right[-1]
    took = "cascade", "accuracy"
    book.estimate(*took, "accuracy", "share", mean, right.astype(float))
    book.estimate(*took, "excess_errors", "share", mean, (~right & last).astype(float))
    for place, member in enumerate(found):
        book.estimate(member.name, "accuracy", "accuracy", "share", mean, rows.right[place].astype(float))
        if place:
            book.estimate("cascade", "efficiency", f"asked_{member.name}", "share", mean, (by >= place).astype(float))
    book.estimate("cascade", "efficiency", "teacher_share", "share", mean, (by == len(found) - 1).astype(float))
    compared = "accuracy_minus_last_model", "points"
    book.estimate("cascade", "comparison", *compared, difference, right.astype(float), last.astype(float))
    level = book.plan.confidence
    curve = [_shown(point, n, level) for point in curve_of(rows, costs)]
    chosen = next(point for point in curve if point["threshold"] == fitted.point.threshold)
    value = chosen["expense"] if costs is not None else chosen[fitted.promise]
    kept = value >= fitted.target if fitted.promise == "accuracy" else value <= fitted.target
    return {"n": n, "confidence": level, "points": curve, "chosen": chosen, "kept": bool(kept)}


def _shown(point: Point, n: int, level: float) -> dict[str, Any]:
    """A point as JSON values, with the intervals of its accuracy and of the last model's share."""
    low, high = share_interval(round(point.accuracy * n), n, level)
    share_low, share_high = share_interval(round(point.teacher_share * n), n, level)
    return {**asdict(point), "low": low, "high": high, "share_low": share_low, "share_high": share_high}


def _tell(fitted: Fitted, curve: Mapping[str, Any]) -> None:
    bound = ">=" if fitted.promise == "accuracy" else "<="
    say(f"  threshold {fitted.point.threshold:.4f}: {fitted.promise} {bound} {fitted.target:g} at {fitted.level:.0%}")
    if "test" in curve:
        chosen, n = curve["test"]["chosen"], curve["test"]["n"]
        interval = f"[{chosen['low']:.2%}, {chosen['high']:.2%}]"
        share = f"{chosen['teacher_share']:.1%} of the rows come to {curve['models'][-1]}"
        say(f"  test rows ({n}): accuracy {chosen['accuracy']:.2%} {interval}, {share}")
