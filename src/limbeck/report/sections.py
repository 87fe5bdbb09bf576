"""Which sections a report has, and what is in each of them."""

from __future__ import annotations

from collections.abc import Callable

import yaml

from limbeck.report import formats, method
from limbeck.report.blocks import Block, Code, Figures, Fold, Pairs, Section, Sentences
from limbeck.report.curves import validation_score
from limbeck.report.examples import differing, divergence, example_rows, examples
from limbeck.report.facts import Facts
from limbeck.report.plots.cascade import cascade_plot
from limbeck.report.plots.inside import agreement_plot, cka_plot, entropy_plot
from limbeck.report.plots.quality import errors_plot, reliability_plot, robustness_plots
from limbeck.report.plots.size import size_plot
from limbeck.report.plots.training import loss_plot, validation_plot
from limbeck.report.svg import Plot, house_style
from limbeck.report.tables import cascade, details, models, optimized, run, shipped


def sections(facts: Facts) -> list[Section]:
    """All sections that have something to show, in the order of the page."""
    with house_style():
        made = [*_results(facts), *_behaviour(facts), *_making(facts)]
    return [section for section in made if section.shown]


def _results(facts: Facts) -> list[Section]:
    say = facts.say
    return [
        Section("about", say("section.about"), (Pairs(tuple(method.about(facts))),), seen=False),
        Section("recipes", say("section.recipes"), (run.recipes(facts),)),
        Section(
            "quality",
            say("section.quality"),
            (
                details.paired(facts),
                *_alone(size_plot(facts)),
                models.scores(facts),
                models.comparisons(facts),
            ),
        ),
        Section(
            "efficiency", say("section.efficiency"), (models.efficiency(facts), details.speed(facts), _cost(facts))
        ),
        Section(
            "shipped", say("section.shipped"), (shipped.gate(facts), optimized.passes(facts), shipped.exports(facts))
        ),
        Section(
            "cascade",
            say("section.cascade"),
            (*_alone(cascade_plot(facts)), cascade.told(facts), cascade.points(facts)),
        ),
        Section(
            "errors",
            say("section.errors"),
            (
                *_alone(errors_plot(facts)),
                Fold(say("caption.errors"), details.errors(facts)),
                details.slices(facts),
                Fold(say("caption.classes"), details.classes(facts)),
                details.steps(facts),
            ),
        ),
        Section(
            "examples",
            say("section.examples"),
            (example_rows(facts), examples(facts), differing(facts), divergence(facts)),
        ),
    ]


def _behaviour(facts: Facts) -> list[Section]:
    say, title = facts.say, facts.say("plot.robustness.title")
    plots = (cka_plot, "cka"), (entropy_plot, "entropy"), (agreement_plot, "agreement")
    inside = [block for make, id in plots for block in _each(facts, make, id)]
    return [
        Section(
            "calibration",
            say("section.calibration"),
            (*_alone(reliability_plot(facts)), Fold(say("caption.reliability"), details.reliability(facts))),
        ),
        Section(
            "robustness",
            say("section.robustness"),
            (
                Figures(title, robustness_plots(facts)),
                models.robustness(facts),
                Fold(say("caption.severities"), details.severities(facts)),
            ),
        ),
        Section(
            "inside",
            say("section.inside"),
            (*inside, models.inside(facts), Fold(say("caption.lens"), details.lens(facts))),
        ),
    ]


def _making(facts: Facts) -> list[Section]:
    say = facts.say
    curves = (*_each(facts, loss_plot, "loss"), *_alone(validation_plot(facts)))
    told = tuple(("", sentence) for sentence in method.method(facts))
    own = {} if facts.runs else dict(facts.recipe)
    text = yaml.safe_dump(own, sort_keys=False, allow_unicode=True, width=100) if own else ""
    return [
        Section("training", say("section.training"), (*curves, run.training(facts, validation_score(facts)))),
        Section("data", say("section.data"), () if facts.runs else (run.counts(facts),)),
        Section("notes", say("section.notes"), (Sentences(run.notes(facts.manifests)),)),
        Section("method", say("section.method"), (Sentences(told),)),
        Section(
            "origin",
            say("section.origin"),
            (
                run.lineage(facts),
                run.models(facts),
                Fold(say("caption.versions"), run.versions(facts)),
                Fold(say("caption.recipe"), Code(say("caption.recipe"), text)),
            ),
        ),
    ]


def _alone(plot: Plot | None) -> tuple[Block, ...]:
    """A plot under its own title, or nothing."""
    return (Figures(plot.title, (plot,)),) if plot else ()


def _each(facts: Facts, make: Callable[[Facts, str], Plot | None], id: str) -> tuple[Block, ...]:
    """The plot of a run; where several are compared, one of each."""
    if not facts.runs:
        return _alone(make(facts, id))
    made = [(run, make(each, f"{id}-{i}")) for i, (run, each) in enumerate(facts.runs.items())]
    return tuple(Figures(f"{run}: {plot.title}", (plot,)) for run, plot in made if plot)


def _cost(facts: Facts) -> Sentences:
    """How long the whole run took."""
    seconds = run.total_time(facts.manifests)
    if seconds is None:
        return Sentences(())
    return Sentences((("", facts.say("cost.time", time=formats.text(seconds, formats.duration))),))
