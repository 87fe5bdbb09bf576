"""The plots of a run under way: the report's own, drawn anew only when there is more to draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from limbeck.live.figures import called
from limbeck.live.folder import Training
from limbeck.report import formats
from limbeck.report.curves import Curve, curve, validation_score
from limbeck.report.facts import Facts
from limbeck.report.metrics import name_of
from limbeck.report.plots._axes import line, plain_ticks
from limbeck.report.plots.training import loss_plot, validation_plot
from limbeck.report.svg import SMALL, Key, Plot, canvas, draw, house_style, name_axes
from limbeck.report.words import Words

SHARE = 0.1
"""Drawing takes at most this share of the time of one core: the run may need it."""


class Drawer:
    """Keeps the plots of every training.

    Args:
        say: the words of the page.
    """

    def __init__(self, say: Words):
        self.say = say
        self._drawn: dict[str, tuple[Any, list[Plot]]] = {}
        self._rest: dict[str, float] = {}

    def plots(self, training: Training, all_: Sequence[Training]) -> list[Plot]:
        """Loss, validation scores, gradient norm and learning rate, as far as there are any.

        Args:
            training: the one that is shown.
            all_: all of the run, whose validation scores are shown side by side.
        """
        version = (training.version, *(each.version[::3] for each in all_ if each.evals))
        known = self._drawn.get(training.model)
        began = time.thread_time()
        resting = training.under_way and time.monotonic() < self._rest.get(training.model, 0.0)
        if known is not None and (known[0] == version or resting):
            return known[1]
        with house_style():
            made = [self._loss(training), self._validation(all_), *self._small(training)]
        found = [replace(plot, svg=without_styles(plot.svg)) for plot in made if plot is not None]
        self._drawn[training.model] = version, found
        self._rest[training.model] = time.monotonic() + (time.thread_time() - began) / SHARE
        return found

    def _facts(self, **logs: Any) -> Facts:
        return Facts(title="", recipe={"report": {"language": self.say.language}}, scores=[], **logs)

    def _loss(self, training: Training) -> Plot | None:
        say = self.say
        plot = loss_plot(self._facts(steps=list(training.steps)))
        if plot is None:
            return None
        known = say("plot.loss.with_terms" if plot.keys else "plot.loss.alone")
        caption = say("watch.loss" if plot.keys else "watch.loss_alone", model=called(training.model, say).lower())
        if training.every > 1:
            caption += say("plot.loss.mean", steps=training.every)
        return replace(plot, caption=caption + plot.caption.removeprefix(known))

    def _validation(self, all_: Sequence[Training]) -> Plot | None:
        runs = {each.model: self._facts(steps=list(each.steps), evals=list(each.evals)) for each in all_ if each.evals}
        facts = self._facts(runs=runs, students=tuple(runs))
        plot, score = validation_plot(facts), validation_score(facts)
        if plot is None or score is None:
            return None
        return replace(plot, caption=self.say("watch.validation", score=name_of(score, self.say)))

    def _small(self, training: Training) -> list[Plot | None]:
        say, steps = self.say, [row["step"] for row in training.steps]
        named = (("grad_norm", say("watch.norm")), ("learning_rate", say("watch.figure.learning_rate")))
        curves = [(name, title, curve(steps, [row[name] for row in training.steps])) for name, title in named]
        return [self._one(name, title, points) for name, title, points in curves if points[0]]

    def _one(self, id: str, title: str, points: Curve) -> Plot:
        from matplotlib.ticker import MaxNLocator

        figure, axes = canvas(2.4, SMALL)
        line(axes, points, Key(title, "student"), 1.6)
        plain_ticks(axes.yaxis)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        name_axes(axes, self.say("axis.step"), "")  # the heading above has the name
        first, last = (formats.significant(points[1][at]) for at in (0, -1))
        described = self.say("watch.small", name=title, first=first, last=last)
        return Plot(id, title, draw(figure, id, title, described), "", (), described)


def without_styles(svg: str) -> str:
    """The picture with attributes in place of inline styles, which the page's content security policy forbids."""
    root = ElementTree.fromstring(f"<div>{svg}</div>")  # a plot may be drawn twice, for wide and narrow screens
    for element in root.iter():
        for each in element.attrib.pop("style", "").split(";"):
            name, _, value = each.partition(":")
            if value:
                element.attrib[name.strip()] = value.strip()
    return "".join(ElementTree.tostring(each, encoding="unicode") for each in root)
