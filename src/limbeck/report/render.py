"""Facts in, four files out: a page for people, Markdown, a model card, and JSON for programs."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from limbeck.core.artifacts import write_atomically
from limbeck.report import method
from limbeck.report.cards import cards
from limbeck.report.facts import Facts
from limbeck.report.headline import headline
from limbeck.report.model_card import model_card
from limbeck.report.record import record, to_json
from limbeck.report.sections import sections
from limbeck.report.text import readable

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def write_report(facts: Facts, folder: Path) -> list[Path]:
    """Write the report of a run.

    The page needs nothing but itself: no network, no script. The same facts give the same bytes.

    Args:
        facts: what the run recorded.
        folder: where to; it is made if it is not there.

    Returns:
        The files: `index.html`, `report.md`, `report.json` and the model card, `README.md`.
    """
    shown = _view(facts, headline(facts), facts.say("page.report"))
    written = _write(facts, shown, folder)
    write_atomically(folder / "README.md", model_card(facts, written[1].read_text(encoding="utf-8")))
    return [*written, folder / "README.md"]


def write_comparison(facts: Facts, said: str, folder: Path) -> list[Path]:
    """Write the comparison of several students: the same page without a model card.

    Args:
        facts: of all runs together, see `limbeck.report.comparison`.
        said: its headline.
        folder: where to; it is made if it is not there.

    Returns:
        The files: `index.html`, `report.md` and `report.json`.
    """
    return _write(facts, _view(facts, said, facts.say("page.comparison")), folder)


def _write(facts: Facts, shown: dict[str, Any], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    page, summary, data = (folder / name for name in ("index.html", "report.md", "report.json"))
    write_atomically(page, template("page.html.j2", html=True).render(shown))
    write_atomically(summary, template("summary.md.j2", html=False).render(shown))
    write_atomically(data, to_json(record(facts, shown)))
    return [page, summary, data]


@cache
def template(name: str, html: bool) -> Template:
    """A template of `report/templates/`, compiled once."""
    return environment(html).get_template(name)


def environment(html: bool) -> Environment:
    """Templates whose values are shown as text, whatever they hold."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("limbeck", "report/templates"),
        autoescape=html,
        finalize=_as_text if html else escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _as_text(value: object) -> object:
    return readable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def escape_markdown(value: object) -> object:
    """Text that Markdown shows as it is: no tag, link, emphasis, code or new table cell comes of it."""
    if not isinstance(value, str):
        return value
    text = " ".join(readable(value).split("\n"))
    return re.sub(r"([\\`*<|]|\](?=[(\[:]))", r"\\\1", text).replace("&", "&amp;")


def style() -> str:
    """The page's style sheet."""
    return files("limbeck.report").joinpath("page.css").read_text(encoding="utf-8")


def _view(facts: Facts, said: str, kind: str) -> dict[str, Any]:
    """Everything that the templates show."""
    return {
        "say": facts.say,
        "kind": kind,
        "title": facts.title,
        "headline": said,
        "where": method.where_from(facts),
        "caution": method.caution(facts),
        "cards": cards(facts),
        "sections": sections(facts),
        "limbeck": _limbeck(facts),
        "style": style(),
    }


def _limbeck(facts: Facts) -> str:
    """The version that took the scores, as recorded, not the one that prints them."""
    found = [str(m["versions"]["limbeck"]) for m in facts.manifests.values() if "limbeck" in (m.get("versions") or {})]
    return f" {found[-1]}" if found else ""
