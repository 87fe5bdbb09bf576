"""What a run says while it works: one console, one progress bar, quiet in other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task
    from rich.table import Table


def is_main_process() -> bool:
    """True in a single process and in the first of many (as torchrun numbers them).

    A RANK that is left over in the environment means nothing while there is one process.
    """
    return int(os.environ.get("WORLD_SIZE") or 1) <= 1 or os.environ.get("RANK", "0") == "0"


@cache
def console() -> Console:
    """The console of the process: standard error, so that standard output stays for results."""
    from rich.console import Console

    return Console(stderr=True, quiet=not is_main_process(), highlight=False)


def say(text: str) -> None:
    """Print one line of what is going on."""
    console().print(text)


def show(table: Table) -> None:
    """Print a table of rich's."""
    console().print(table, markup=False)


def show_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows that have the same keys."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for key in rows[0] if rows else ():
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    show(table)


@contextmanager
def bar(unit: str | None, shown: bool = True) -> Iterator[Progress]:
    """A progress bar: what is done, a line of figures, speed in `unit` per second (None: no speed), time left.

    Tasks added to it carry the field `figures`, and `speed` where a step of the bar is not one `unit`. One that is not
    `shown` prints nothing: it is part of work that has a bar of its own.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        """Units per second, by the task's own count or by the bar's."""

        def render(self, task: Task) -> Text:
            speed = task.fields.get("speed", task.finished_speed or task.speed)
            return Text(f"{speed:,.0f} {unit}/s" if speed is not None else f"- {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        *([] if unit is None else [Speed()]),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(
        *columns, console=console(), transient=False, expand=True, disable=not (shown and is_main_process())
    ) as progress:
        yield progress
