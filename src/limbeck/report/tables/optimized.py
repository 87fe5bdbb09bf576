"""What became of each way to make the student cheaper to ask, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report import formats
from limbeck.report.blocks import Cell, Line, Table
from limbeck.report.facts import Facts, section
from limbeck.report.metrics import shown


def passes(facts: Facts) -> Table:
    """A line for the student as it is, one for each pass, and one for those that were kept together."""
    told, say = section(facts.manifests, "optimize"), facts.say
    size = str(told.get("batch_size"))
    lines = [_line(row, size, facts) for row in told.get("passes", [])]
    names = ("pass", "became", "gain", "operators", "launches", "latency_one", "latency_many", "per_second")
    columns = [say(f"column.{name}", n=size) for name in (*names, "cache", "size", "max_difference", "same_answers")]
    written = told.get("engine") == "torch"
    caption = say("caption.optimized_tokens" if written else "caption.optimized")
    return Table(caption, tuple(columns), tuple(lines), words={1})


def _line(row: Mapping[str, Any], size: str, facts: Facts) -> Line:
    say, took = facts.say, section(row, "milliseconds")

    def figure(name: str, kind: formats.Kind) -> Cell:
        return Cell(shown(row.get(name), kind, say))

    def time(rows: str) -> Cell:
        of = section(took, rows)
        spread = {name: shown(of.get(name), formats.milliseconds, say) for name in ("p10", "p90", "cpu")}
        return Cell(shown(of.get("p50"), formats.milliseconds, say), say("optimized.spread", **spread) if of else "")

    cells = (
        Cell(str(row["became"]) or formats.DASH),
        Cell(f"{formats.TIMES}{row['gain']:.2f}" if row.get("gain") else formats.DASH),
        figure("operators", formats.count),
        figure("launches", formats.count),
        time("1"),
        time(size),
        figure("per_second", formats.count),
        figure("cache_bytes", formats.size),
        figure("bytes", formats.size),
        Cell(formats.text(row.get("max_difference"), formats.plain())),
        figure("same_answers", formats.share),
    )
    return Line(str(row["pass"]), cells)
