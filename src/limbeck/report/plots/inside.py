"""What happens inside of the models: similarity of layers, entropy of attention."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from limbeck.report.facts import MODELS, Facts, finite, in_order
from limbeck.report.plots._axes import heat, keys_of, line, name_ticks, plain_ticks
from limbeck.report.svg import COLOUR, Plot, canvas, draw_for_page, name_axes


def cka_plot(facts: Facts, id: str = "cka") -> Plot | None:
    """Linear CKA of the student's layers (rows) with the teacher's (columns)."""
    found = facts.details.get("cka") or {}
    rows, columns = found.get("student_layers") or [], found.get("teacher_layers") or []
    return _map(facts, "cka", id, found.get("cka") or [], rows, columns)


def agreement_plot(facts: Facts, id: str = "agreement") -> Plot | None:
    """How alike the attention of the student's layers is to the teacher's, 1 for the same."""
    found = facts.details.get("attention") or {}
    rows, columns = ((found.get(model) or {}).get("layers") or [] for model in ("student", "teacher"))
    return _map(facts, "agreement", id, found.get("agreement") or [], rows, columns)


def _map(
    facts: Facts, name: str, id: str, values: Sequence[Sequence[Any]], rows: Sequence[Any], columns: Sequence[Any]
) -> Plot | None:
    if not values or not rows or not columns:
        return None
    say = facts.say
    figure, axes = canvas(max(2.2, 1.1 + 0.42 * min(len(rows), 14)))
    (taught, across), (learnt, down) = layer_names(columns), layer_names(rows)
    heat(axes, values, across, down)
    name_axes(axes, say("axis.teacher_layer"), say("axis.student_layer"))
    best = []
    for row, line_of in zip(rows, values, strict=True):
        known = [(value, column) for value, column in zip(line_of, columns, strict=True) if finite(value)]
        if known:
            value, column = max(known, key=lambda pair: pair[0])
            best.append(say("plot.map.best", row=row, column=column, value=f"{value:.2f}"))
    description = say(f"plot.{name}.told", best="; ".join(best))
    svg = draw_for_page(figure, id, say(f"plot.{name}.title"), description)
    caption = say(f"plot.{name}.caption") + say("plot.map.layers", teacher=taught, student=learnt)
    return Plot(id, say(f"plot.{name}.title"), svg, caption, (), description)


def entropy_plot(facts: Facts, id: str = "entropy") -> Plot | None:
    """Entropy of each head's attention by layer, and the mean of the heads as a line."""
    say, found = facts.say, facts.details.get("attention") or {}
    known = {m: found[m] for m in in_order(found) if m in (*MODELS, *facts.students) and found[m].get("entropy")}
    if not known:
        return None
    keys = keys_of(facts.models + list(known), say, marks=True)
    figure, axes = canvas(3.4)
    told, longest = [], max((known[m]["layers"] for m in known), key=len)
    for i, (model, each) in enumerate(known.items()):
        aside = 0.16 * (i - (len(known) - 1) / 2)
        place = [longest.index(name) if name in longest else at for at, name in enumerate(each["layers"])]
        heads = [[v for v in layer if finite(v)] for layer in each["entropy"]]
        for x, values in zip(place, heads, strict=True):
            dots: Any = {"linestyle": "", "marker": keys[model].mark, "markersize": 5}
            axes.plot(
                [x + aside] * len(values), values, color=COLOUR[keys[model].role], alpha=0.65, markeredgewidth=0, **dots
            )
        means = [(x + aside, sum(v) / len(v)) for x, v in zip(place, heads, strict=True) if v]
        line(axes, ([x for x, _ in means], [y for _, y in means]), keys[model], 1.8)
        named = ", ".join(f"{name} {mean:.2f}" for name, (_, mean) in zip(each["layers"], means, strict=False))
        told.append(f"{keys[model].label}: {named}")
    _, names = layer_names(longest)
    name_ticks(axes.xaxis, names, -(-len(names) // 24))
    axes.set_xlim(-0.5, len(longest) - 0.5)
    axes.set_ylim(-0.03, 1.03)
    plain_ticks(axes.yaxis)
    name_axes(axes, say("axis.layer"), say("axis.entropy"))
    description = say("plot.entropy.told", models="; ".join(told))
    svg = draw_for_page(figure, id, say("plot.entropy.title"), description)
    drawn = tuple(keys[m] for m in known)
    return Plot(id, say("plot.entropy.title"), svg, say("plot.entropy.caption"), drawn, description)


def layer_names(names: Sequence[Any]) -> tuple[str, list[str]]:
    """A pattern of dotted names, and of each what is not in all of them: `encoder.layer.*`, [`0`, `1`]."""
    split = [str(name).split(".") for name in names]
    start = _alike([parts[:-1] for parts in split])
    end = _alike([parts[:start:-1] for parts in split])
    own = [parts[start : len(parts) - end] for parts in split]
    pattern = [*split[0][:start], "*", *split[0][len(split[0]) - end :]]
    return ".".join(pattern), [".".join(parts) for parts in own]


def _alike(lists: Sequence[Sequence[str]]) -> int:
    """How many first items all lists share."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*lists, strict=False)))
