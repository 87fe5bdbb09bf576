"""Several runs as one set of facts, in which each student goes by the name of its run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limbeck.report.facts import Facts, section
from limbeck.report.metrics import label, metric, size_name, value_text
from limbeck.report.plots.size import front

_BY_MODEL = ("errors", "reliability", "steps")
_ROWS = ("classes", "slices", "robustness", "speed", "lens")
_ASIDE = ("report", "output", "tune")


def together(runs: Mapping[str, Facts], title: str, language: str, details: Mapping[str, Any]) -> Facts:
    """Facts of several runs; a teacher with the same scores in all of them is told once.

    Args:
        runs: by the name of the run.
        title: of the page.
        language: of the page.
        details: tables of the comparison itself: `paired`, rows {first, second, n, difference, low, high, p, p_holm}
            of students on the same rows, and `differing`, rows {id, input, target, answers by run}.
    """
    names = _names(runs)
    evaluate = dict(section(next(iter(runs.values())).recipe, "evaluate"))
    scores = [
        {**row, "model": names[run][str(row["model"])]}
        for run, facts in runs.items()
        for row in facts.scores
        if str(row["model"]) in names[run]
    ]
    return Facts(
        title=title,
        recipe={"report": {"language": language}, "evaluate": evaluate},
        scores=[dict(row) for row in {_identity(row): row for row in scores}.values()],
        manifests={f"{run}: {step}": m for run, facts in runs.items() for step, m in facts.manifests.items()},
        details={**_details(runs, names), **details, "recipes": differing(runs)},
        students=tuple(runs),
        runs={run: _in_language(facts, language) for run, facts in runs.items()},
    )


def _in_language(facts: Facts, language: str) -> Facts:
    return replace(facts, recipe={**facts.recipe, "report": {**section(facts.recipe, "report"), "language": language}})


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["name"], row.get("split")


def _names(runs: Mapping[str, Facts]) -> dict[str, dict[str, str]]:
    """Of each run: what its models are called here. Baselines are left to the run's own report."""
    teachers = {
        run: [
            [r.get(field) for field in ("name", "value", "n", "split")]
            for r in facts.scores
            if r["model"] == "teacher" and r["axis"] == "accuracy"
        ]
        for run, facts in runs.items()
    }
    known = [rows for rows in teachers.values() if rows]
    shared = all(rows == known[0] for rows in known)
    return {run: {"student": run, "teacher": "teacher" if shared else f"{run}: teacher"} for run in runs}


def _details(runs: Mapping[str, Facts], names: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """The tables of all runs as one; of a teacher that is told once, those of the first run that has them."""
    found: dict[str, Any] = {}
    told: dict[tuple[str, str], str] = {}
    for run, facts in runs.items():
        for table in _BY_MODEL:
            for model, value in (facts.details.get(table) or {}).items():
                if model in names[run]:
                    found.setdefault(table, {}).setdefault(names[run][model], value)
        for table in _ROWS:
            for row in facts.details.get(table) or []:
                model = names[run].get(row["model"])
                if model is not None and told.setdefault((table, model), run) == run:
                    found.setdefault(table, []).append({**row, "model": model})
    if "slices" in found:
        found["slices"].sort(key=lambda row: (not (row.get("p_holm") or 1.0) < 0.05, row["difference"]))
    return found


def differing(runs: Mapping[str, Facts]) -> list[dict[str, Any]]:
    """Settings in which the recipes differ: rows {key, values by run}."""
    flat = {run: dict(_flat({k: v for k, v in facts.recipe.items() if k not in _ASIDE})) for run, facts in runs.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    rows: list[dict[str, Any]] = [{"key": key, "values": {run: flat[run].get(key) for run in runs}} for key in keys]
    return [row for row in rows if len({repr(value) for value in row["values"].values()}) > 1]


def _flat(value: Any, above: str = "") -> list[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    if pairs and value:
        return [leaf for key, each in pairs for leaf in _flat(each, f"{above}.{key}" if above else str(key))]
    return [(above, value)]


def comparison_headline(facts: Facts) -> str:
    """Which student is best, which is smallest, and which of them no other beats in both."""
    say, name, size = facts.say, facts.primary, size_name(facts)
    found = [(s, row) for s in facts.students if name and (row := facts.find(s, name))]
    if not found:
        return say("headline.none")
    sign = 1 if metric(found[0][1]).lower_is_better else -1
    top = min((row for _, row in found), key=lambda row: sign * row["value"])
    best = say.some([s for s, row in found if row["value"] == top["value"]])
    told = say("compare.best", models=best, score=label(top, say), value=value_text(top, say), n=len(facts.students))
    sizes = [(s, x, y) for s, y in found if size and (x := facts.find(s, size))]
    unbeaten = front(sizes)
    if len(unbeaten) > 1:
        told += say("compare.front", models=say.some([s for s, _, _ in unbeaten]))
    return told
