"""What is left on the terminal when a run has ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from limbeck.core.artifacts import read_manifest
from limbeck.report.facts import Facts, Row, in_order
from limbeck.report.formats import duration
from limbeck.report.headline import headline
from limbeck.report.metrics import has_interval, label, value_text, with_interval
from limbeck.report.words import Words

if TYPE_CHECKING:
    from rich.table import Table

    from limbeck.pipeline.run import Result

_COLUMNS = ("accuracy", "answer_accuracy", "perplexity", "parameters", "latency_p50")


def summary(result: Result) -> tuple[str, Table]:
    """The report's headline, and a line of figures for each model."""
    facts = Facts(title="", recipe={}, scores=result.scores)
    return headline(facts), side_by_side(result.scores, ("student",))


def side_by_side(scores: list[dict[str, Any]], about: Iterable[str] = ()) -> Table:
    """A line of figures for each model.

    Args:
        scores: rows as in `scores.json`.
        about: models whose figures are shown; left out: the figures of any.
    """
    from rich.table import Table

    facts = Facts(title="", recipe={}, scores=scores)
    models = in_order(row["model"] for row in scores)
    columns = {name: next(filter(None, (facts.find(m, name) for m in about or models)), None) for name in _COLUMNS}
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    names = [name for name, row in columns.items() if row is not None]
    for row in filter(None, columns.values()):
        table.add_column(label(row, facts.say), justify="right")
    for model in models:
        found = [facts.find(model, name) for name in names]
        table.add_row(model, *("" if row is None else _cell(row, facts.say) for row in found))
    return table


def _cell(row: Row, say: Words) -> str:
    return with_interval(row, say) if has_interval(row) else value_text(row, say)


def took(result: Result) -> str:
    """Time spent in all steps of the run, in this call or an earlier one."""
    found = [*result.output.glob("*/manifest.json"), *result.output.glob("export/*/manifest.json")]
    seconds = [read_manifest(path.parent)["seconds"] for path in found]
    return "".join(duration(sum(seconds)))
