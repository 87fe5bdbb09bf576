"""An index of reports: a card for each, with its headline and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.core.artifacts import write_atomically
from limbeck.report import formats
from limbeck.report.cards import Card, cards
from limbeck.report.facts import Facts
from limbeck.report.headline import headline
from limbeck.report.method import about
from limbeck.report.render import style, template
from limbeck.report.tables.run import total_time
from limbeck.report.words import words


@dataclass(frozen=True)
class Entry:
    """A report in the gallery.

    Attributes:
        title: of the report.
        headline: of the report.
        cards: its key figures.
        about: task, models, data.
        time: that the run took.
        page: where the report is, from the gallery's folder.
        language: that the report is written in.
    """

    title: str
    headline: str
    cards: tuple[Card, ...]
    about: tuple[tuple[str, str], ...]
    time: str
    page: str
    language: str


def entry(facts: Facts, page: str) -> Entry:
    """The entry of a run.

    Args:
        facts: of the run.
        page: where its report is, from the gallery's folder.
    """
    took = total_time(facts.manifests)
    time = "" if took is None else facts.say("cost.time", time=formats.text(took, formats.duration))
    shown = tuple(cards(facts)), tuple(about(facts))
    return Entry(facts.title, headline(facts), *shown, time, page, facts.say.language)


def write_gallery(entries: Sequence[Entry], folder: Path, language: str) -> Path:
    """Write the index page, which needs nothing but itself and the reports beside it.

    Args:
        entries: in the order of the page.
        folder: where to.
        language: of the page's own words.
    """
    say = words(language)
    folder.mkdir(parents=True, exist_ok=True)
    view = {"say": say, "entries": entries, "style": style(), "said": say("gallery.told", n=len(entries))}
    write_atomically(folder / "index.html", template("gallery.html.j2", html=True).render(view))
    return folder / "index.html"
