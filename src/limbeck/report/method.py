"""What the report is about, and how its figures were taken, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report.facts import Facts, finite, section


def where_from(facts: Facts) -> str:
    """Which rows the figures are from."""
    splits, say = facts.splits(), facts.say
    if not splits:
        return ""
    row = facts.find(facts.students[0], facts.primary) if facts.primary else None
    rows = say("method.rows", n=row["n"]) if row and finite(row.get("n")) else ""
    text = say("method.split", split=splits[0], rows=rows)
    return text + say("method.other_splits", splits=say.some(splits[1:])) if len(splits) > 1 else text


def caution(facts: Facts) -> str:
    """A warning where models have seen the very rows that the figures are from."""
    split, say, told = next(iter(facts.splits()), ""), facts.say, []
    if facts.runs:
        found = {run: caution(each) for run, each in facts.runs.items()}
        return say("list.sentence").join(f"{run}: {text}" for run, text in found.items() if text)
    if split == "validation" and any(evals for _, _, evals in facts.trainings):
        told.append(say("method.chosen_here"))
    seen = section(section(facts.manifests, "evaluate"), "counts").get("rows_also_trained_on")
    if finite(seen) and seen > 0:
        told.append(say("method.seen_one") if seen == 1 else say("method.seen", n=seen))
    return say("list.sentence").join(told)


def method(facts: Facts) -> list[str]:
    """How the figures were taken, a sentence or two each; what is not known is not said."""
    settings, say, told = section(facts.recipe, "evaluate"), facts.say, []
    if where := where_from(facts):
        trained = [log for _, *logs in facts.trainings for log in logs]
        apart = any(trained) and "validation" not in facts.splits()
        chosen = say("method.chosen_on_validation") if apart else ""
        told.append(say("list.sentence").join(filter(None, (where, chosen, caution(facts)))))
    told += _intervals(facts, settings)
    if any(r["name"].startswith("latency") for r in facts.scores):
        told.append(_latency(facts, settings))
    if facts.has_baseline:
        told.append(say("method.baseline", start=say("method.baseline_start") if _other_start(facts) else ""))
    seed = facts.recipe.get("seed")
    if any(steps for _, steps, _ in facts.trainings):
        told.append(say("method.once", seed=say("method.seed", seed=seed) if finite(seed) else ""))
    return told


def _latency(facts: Facts, settings: Mapping[str, Any]) -> str:
    say, runs = facts.say, settings.get("latency_runs")
    many = say("method.runs", n=runs) if finite(runs) else ""
    if asked := section(facts.manifests, "evaluate").get("request"):
        many += f" ({asked})"
    hardware = section(section(facts.manifests, "evaluate"), "hardware")
    machine = f" ({', '.join(f'{name} {value}' for name, value in hardware.items())})" if hardware else ""
    return say("method.latency", many=many, machine=machine)


def _other_start(facts: Facts) -> bool:
    """True where the baseline started from other weights than the student did."""
    teacher, student = section(facts.recipe, "teacher"), section(facts.recipe, "student")
    return student.get("model") == "from-teacher" and bool(teacher.get("finetune"))


def _intervals(facts: Facts, settings: Mapping[str, Any]) -> list[str]:
    """Level and making of the intervals, where there are any."""
    if not any(finite(r.get("low")) for r in facts.scores):
        return []
    say, level, draws = facts.say, settings.get("confidence"), settings.get("resamples")
    at = say("method.level", level=f"{100 * level:g}") if finite(level) else ""
    told = [say("method.intervals", level=at, draws=say("method.draws", n=draws) if finite(draws) else "")]
    if any(r["axis"] == "comparison" and finite(r.get("low")) for r in facts.scores):
        told.append(say("method.paired"))
    if any(r.get("unit") == "p" for r in facts.scores):
        told.append(say("method.holm"))
    return told


def about(facts: Facts) -> list[tuple[str, str]]:
    """Task, models and data by name, as the recipe has them."""
    recipe, say = facts.recipe, facts.say
    data = section(recipe, "data")
    entries = [
        ("task", _typed(recipe.get("task"))),
        ("teacher", _recorded(facts, "prepare") or _model(facts, section(recipe, "teacher"))),
        ("student", _recorded(facts, "train") or _model(facts, section(recipe, "student"))),
        ("data", _typed(data.get("train"))),
        ("date", _date(facts)),
    ]
    return [(say(f"about.{name}"), text) for name, text in entries if text]


def _typed(value: Any) -> str:
    """A part of the recipe by its type and the fields that say which one."""
    if not isinstance(value, Mapping):
        return str(value) if value else ""
    named = [str(value[k]) for k in ("name", "path", "dataset", "folder", "file") if isinstance(value.get(k), str)]
    return " ".join([str(value.get("type", "")), *named]).strip()


def _model(facts: Facts, model: Mapping[str, Any]) -> str:
    say = facts.say
    if model.get("model"):
        layers = model.get("layers")
        if model["model"] == "from-teacher" and isinstance(layers, list):
            return say("about.layers", layers=", ".join(map(str, layers)))
        return str(model["model"])
    config = section(model, "config")
    return say("about.new", type=config["model_type"]) if "model_type" in config else ""


def _recorded(facts: Facts, step: str) -> str:
    """A model as its artifact names it, with its licence."""
    model = section(section(facts.manifests, step), "model")
    licence = facts.say("about.licence", licence=model["licence"]) if model.get("licence") else ""
    return f"{model['name']}{licence}" if model.get("name") else ""


def _date(facts: Facts) -> str:
    """The day of the scores."""
    return str(section(facts.manifests, "evaluate").get("created") or "")[:10]
