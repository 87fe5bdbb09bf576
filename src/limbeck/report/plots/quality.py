"""How far confidence can be trusted, how quality falls as the input gets worse, and whose errors they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import formats
from limbeck.report.facts import Facts, finite, in_order, model_name
from limbeck.report.metrics import perturbation_name
from limbeck.report.plots._axes import bars, keys_of, line, name_ticks, plain_ticks
from limbeck.report.svg import COLOUR, SMALL, Key, Plot, canvas, draw_for_page, name_axes
from limbeck.report.tables.details import ERRORS

_ROLES = {"both_right": "line", "mended": "term-3", "new": "term-5", "inherited": "teacher", "other_wrong": "term-2"}


def reliability_plot(facts: Facts) -> Plot | None:
    """Accuracy against confidence, a dot a bin; on the diagonal a model is as right as it is sure."""
    say, found = facts.say, facts.details.get("reliability") or {}
    bins = {
        m: [b for b in found[m].get("bins") or [] if b.get("n") and finite(b.get("accuracy"))] for m in in_order(found)
    }
    models = [m for m in bins if bins[m]]
    if not models:
        return None
    keys = keys_of(facts.models + models, say, marks=True)
    figure, axes = canvas(4.4)
    axes.plot([0, 1], [0, 1], color=COLOUR["muted"], linewidth=1.2, linestyle=(0, (2, 3)))
    told = []
    for model in models:
        rows = bins[model]
        xs, ys = [b["confidence"] for b in rows], [b["accuracy"] for b in rows]
        bars(axes, xs, [b.get("accuracy_low") for b in rows], [b.get("accuracy_high") for b in rows], keys[model].role)
        line(axes, (xs, ys), keys[model], 1.8)
        dots: Any = {"linestyle": "", "marker": keys[model].mark, "markersize": 6, "markeredgewidth": 0}
        axes.plot(xs, ys, color=COLOUR[keys[model].role], **dots)
        ece = say("plot.reliability.ece", value=formats.text(found[model].get("ece"), formats.share))
        told.append(f"{keys[model].label}: {ece}")
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis, share=True)
    least = min(min(b["confidence"] for b in bins[m]) for m in models)
    axes.set_xlim(max(0.0, least - 0.05), 1.01)
    axes.set_ylim(-0.02, 1.02)
    name_axes(axes, say("axis.confidence"), say("axis.accuracy"))
    description = say("plot.reliability.told", models="; ".join(told))
    svg = draw_for_page(figure, "reliability", say("plot.reliability.title"), description)
    drawn = tuple(keys[m] for m in models)
    return Plot("reliability", say("plot.reliability.title"), svg, say("plot.reliability.caption"), drawn, description)


def robustness_plots(facts: Facts) -> tuple[Plot, ...]:
    """Accuracy against severity, a plot a perturbation, a line a model; the axes are the same in all."""
    rows = [r for r in facts.details.get("robustness") or [] if finite(r.get("score"))]
    if not rows:
        return ()
    ends = [r[end] for r in rows for end in ("score", "low", "high") if finite(r.get(end))]
    limits = min(ends), max(ends)
    names = dict.fromkeys(str(r["perturbation"]) for r in rows)
    return tuple(_robustness(facts, name, i, rows, limits) for i, name in enumerate(names))


def _robustness(facts: Facts, name: str, at: int, rows: list[dict[str, Any]], limits: tuple[float, float]) -> Plot:
    say, models = facts.say, in_order(str(r["model"]) for r in rows)
    keys = keys_of(facts.models + models, say)
    figure, axes = canvas(2.5, SMALL)
    told = []
    for model in models:
        own = sorted(
            (r for r in rows if (str(r["perturbation"]), str(r["model"])) == (name, model)), key=lambda r: r["severity"]
        )
        if not own:
            continue
        xs, ys = [r["severity"] for r in own], [r["score"] for r in own]
        bars(axes, xs, [r.get("low") for r in own], [r.get("high") for r in own], keys[model].role)
        line(axes, (xs, ys), keys[model], 1.8, marks=True)
        first, last = (formats.text(value, formats.share) for value in (ys[0], ys[-1]))
        told.append(say("plot.from_to", name=keys[model].label, first=first, last=last))
    severities = sorted({r["severity"] for r in rows if str(r["perturbation"]) == name})
    axes.set_xticks(severities, [f"{s:g}" if s else say("axis.unperturbed") for s in severities])
    axes.set_xlim(severities[0] - 0.35, severities[-1] + 0.35)
    pad = 0.06 * (limits[1] - limits[0]) or 0.05
    axes.set_ylim(limits[0] - pad, limits[1] + pad)
    plain_ticks(axes.yaxis, share=True)
    name_axes(axes, say("axis.severity"), say("axis.accuracy"))
    title = perturbation_name(name, say)
    description = say("plot.robustness.told", perturbation=title, curves="; ".join(told))
    svg = draw_for_page(figure, f"robustness-{at}", say("plot.robustness.of", perturbation=title), description)
    drawn = tuple(keys[m] for m in models) if at == 0 else ()
    return Plot(f"robustness-{at}", title, svg, "", drawn, description)


def errors_plot(facts: Facts) -> Plot | None:
    """Rows by whose answer was right, a bar a model."""
    say, found = facts.say, facts.details.get("errors") or {}
    models = [m for m in in_order(found) if finite(found[m].get("n")) and found[m]["n"]]
    if not models:
        return None
    figure, axes = canvas(0.9 + 0.55 * len(models))
    told = []
    for y, model in enumerate(models):
        left, row = 0.0, found[model]
        for name in ERRORS:
            width = _part(row, name)
            axes.barh(y, width, left=left, height=0.6, color=COLOUR[_ROLES[name]], linewidth=0)
            left += width
        parts = ", ".join(f"{say(f'error.{name}')} {formats.text(_part(row, name), formats.share)}" for name in ERRORS)
        told.append(f"{model_name(model, say)}: {parts}")
    name_ticks(axes.yaxis, [model_name(m, say) for m in models])
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.grid(visible=False)
    plain_ticks(axes.xaxis, share=True)
    name_axes(axes, say("axis.rows_share"), say("axis.model"))
    description = say("plot.errors.told", models="; ".join(told))
    svg = draw_for_page(figure, "errors", say("plot.errors.title"), description)
    keys = tuple(Key(say(f"error.{name}"), _ROLES[name], mark="block", line=False) for name in ERRORS)
    return Plot("errors", say("plot.errors.title"), svg, say("plot.errors.caption"), keys, description)


def _part(row: Mapping[str, Any], name: str) -> float:
    return row[name] / row["n"] if finite(row.get(name)) else 0.0
