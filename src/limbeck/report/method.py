"""What the report is about, and how its figures were taken, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import formats
from limbeck.report.facts import Facts, finite, section


def where_from(facts: Facts) -> str:
    """Which rows the figures are from."""
    splits = facts.splits()
    if not splits:
        return ""
    row = facts.find("student", facts.primary) if facts.primary else None
    rows = f", {row['n']:,} rows" if row and finite(row.get("n")) else ""
    text = f"Figures are from the {splits[0]} split{rows}."
    if len(splits) > 1:
        text += f" Some are from the {' and '.join(splits[1:])} split; the tables say which."
    return text


def caution(facts: Facts) -> str:
    """A warning where models have seen the very rows that the figures are from."""
    split, told = next(iter(facts.splits()), ""), []
    if split == "validation" and (facts.evals or facts.baseline_evals):
        told.append("Checkpoints were chosen on the same split, so these figures flatter the trained models a little.")
    seen = section(section(facts.manifests, "evaluate"), "counts").get("rows_also_trained_on")
    if finite(seen) and seen > 0:
        rows = "1 of these rows has" if seen == 1 else f"{seen:,} of these rows have"
        told.append(f"{rows} the same inputs as a row that a model was trained on.")
    return " ".join(told)


def method(facts: Facts) -> list[str]:
    """How the figures were taken, a sentence or two each; what is not known is not said."""
    settings, told = section(facts.recipe, "evaluate"), []
    if where := where_from(facts):
        chosen = "Checkpoints were chosen on the validation split." if facts.evals and "validation" not in where else ""
        told.append(" ".join(filter(None, (where, chosen, caution(facts)))))
    told += _intervals(facts, settings)
    if any(r["name"].startswith("latency") for r in facts.scores):
        runs = settings.get("latency_runs")
        many = f" of {runs:,} single requests a model" if finite(runs) else ""
        if asked := section(facts.manifests, "evaluate").get("request"):
            many += f" ({asked})"
        told.append(f"Latency is the time{many}, the models taken in turns on the same machine{_hardware(facts)}.")
    if facts.has_baseline:
        told.append(f"The baseline is the same student, trained the same way on the labels alone{_start(facts)}.")
    seed = facts.recipe.get("seed")
    if facts.steps:
        once = f"Each model was trained once (seed {seed})" if finite(seed) else "Each model was trained once"
        told.append(f"{once}; how much scores vary between trainings is not part of any interval.")
    return told


def _start(facts: Facts) -> str:
    """Where the baseline started, if not where the student did."""
    teacher, student = section(facts.recipe, "teacher"), section(facts.recipe, "student")
    if student.get("model") != "from-teacher" or not teacher.get("finetune"):
        return ""
    return "; its layers are the teacher's as they were before fine-tuning"


def _hardware(facts: Facts) -> str:
    """What the scores were taken on, as far as the artifact says."""
    hardware = section(section(facts.manifests, "evaluate"), "hardware")
    return f" ({', '.join(f'{name} {value}' for name, value in hardware.items())})" if hardware else ""


def _intervals(facts: Facts, settings: Mapping[str, Any]) -> list[str]:
    """Level and making of the intervals, where there are any."""
    if not any(finite(r.get("low")) for r in facts.scores):
        return []
    level = settings.get("confidence")
    draws = settings.get("resamples")
    text = "Intervals, in brackets, are " + (f"{100 * level:g}{formats.NBSP}% " if finite(level) else "")
    text += "bootstrap intervals" + (f" from {draws:,} resamples" if finite(draws) else "") + "."
    told = [text]
    if any(r["axis"] == "comparison" and finite(r.get("low")) for r in facts.scores):
        told.append(
            "Differences and ratios are paired: both models answered the same rows, and every resample draws the same "
            "rows for both. A difference is called one only where its interval leaves out zero."
        )
    return told


def about(facts: Facts) -> list[tuple[str, str]]:
    """Task, models and data by name, as the recipe has them."""
    recipe = facts.recipe
    data = section(recipe, "data")
    entries = [
        ("Task", _typed(recipe.get("task"))),
        ("Teacher", _recorded(facts, "prepare") or _model(section(recipe, "teacher"))),
        ("Student", _recorded(facts, "train") or _model(section(recipe, "student"))),
        ("Data", _typed(data.get("train"))),
        ("Evaluated", _date(facts)),
    ]
    return [(name, text) for name, text in entries if text]


def _typed(value: Any) -> str:
    """A part of the recipe by its type and the fields that say which one."""
    if not isinstance(value, Mapping):
        return str(value) if value else ""
    named = [str(value[k]) for k in ("name", "path", "dataset", "folder", "file") if isinstance(value.get(k), str)]
    return " ".join([str(value.get("type", "")), *named]).strip()


def _model(model: Mapping[str, Any]) -> str:
    if model.get("model"):
        layers = model.get("layers")
        if model["model"] == "from-teacher" and isinstance(layers, list):
            return f"layers {', '.join(map(str, layers))} of the teacher"
        return str(model["model"])
    config = section(model, "config")
    return f"new {config['model_type']}" if "model_type" in config else ""


def _recorded(facts: Facts, step: str) -> str:
    """A model as its artifact names it, with its licence."""
    model = section(section(facts.manifests, step), "model")
    licence = f" (licence: {model['licence']})" if model.get("licence") else ""
    return f"{model['name']}{licence}" if model.get("name") else ""


def _date(facts: Facts) -> str:
    """The day of the scores."""
    return str(section(facts.manifests, "evaluate").get("created") or "")[:10]
