"""`limbeck watch --terminal`: a run's folder on the terminal, and one look at it for scripts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from limbeck.live.figures import called, figures, phase, progress, step_time, words
from limbeck.live.folder import Folder, State, Training
from limbeck.report.curves import curve, thin
from limbeck.report.facts import finite
from limbeck.report.record import to_json
from limbeck.report.text import readable, shortened

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from limbeck.report.words import Words

PERIOD = 1.0
"""Seconds between two looks."""
WIDE = 60
"""Columns of a curve."""
LONGEST = 600
"""Characters of a text that are shown."""

_MARKS = {
    "done": "[green]●[/green]",
    "before": "[green]○[/green]",
    "under_way": "[cyan]▶[/cyan]",
    "stopped": "[red]■[/red]",
    "waiting": "○",
}
_LEVELS = "▁▂▃▄▅▆▇█"


def watch_terminal(folder: Folder, console: Console) -> State:
    """Show the run until it is no longer under way, or until Ctrl-C.

    Returns:
        The run as it was seen last.
    """
    from rich.live import Live

    state = folder.state()
    with Live(view(state), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while state.phase == "under_way":
                time.sleep(PERIOD)
                state = folder.state()
                live.update(view(state), refresh=True)
        except KeyboardInterrupt:
            pass
    return state


def view(state: State) -> RenderableType:
    """All that is shown of a run at one moment."""
    from rich.console import Group
    from rich.text import Text

    say = words(state.language)
    shown: list[RenderableType] = [
        Text(readable(state.title), style="bold"),
        Text(phase(state, say), style={"stopped": "red", "under_way": "cyan"}.get(state.phase, "")),
        Text(),
        _chain(state, say),
    ]
    if (training := state.current) is not None:
        shown += [Text(), Text(called(training.model, say), style="bold"), *_bar(training), _figures(training, say)]
        shown += [*_answers(training, say)]
    return Group(*shown)


def as_json(state: State) -> str:
    """The run at one moment for programs; of the logs, the newest rows alone."""
    found = asdict(state)
    found["path"] = str(state.path)
    for training, shown in zip(state.trainings, found["trainings"], strict=True):
        for name in ("steps", "every", "evals", "answers"):
            del shown[name]
        shown |= {"total": training.total, "seconds_left": training.seconds_left}
        shown["last_validation"] = training.evals[-1] if training.evals else None
        shown["last_answers"] = training.answers[-1] if training.answers else None
    return to_json(found).decode().rstrip()


def _grid() -> Table:
    from rich.table import Table

    return Table.grid(padding=(0, 2, 0, 0))


def _chain(state: State, say: Words) -> Table:
    table = _grid()
    for step in state.steps:
        name, told = say(f"watch.step.{step.name}"), say(f"watch.state.{step.state}")
        table.add_row(_MARKS[step.state], name, f"[dim]{told}[/dim]", step_time(step, say))
    return table


def _bar(training: Training) -> list[RenderableType]:
    from rich.progress_bar import ProgressBar

    if (share := progress(training)) is None:
        return []
    table = _grid()  # a bar alone would not end its line
    table.add_row(ProgressBar(total=1.0, completed=share, width=WIDE))
    return [table]


def _figures(training: Training, say: Words) -> Table:
    from rich.text import Text

    table = _grid()
    for figure in figures(training, say):
        table.add_row(Text(readable(figure.name), style="dim"), Text(readable(figure.value)))
    losses = [row["loss"] for row in training.steps]
    if line := sparkline(losses):
        table.add_row(Text(say("watch.figure.loss"), style="dim"), Text(line, style="blue"))
    return table


def _answers(training: Training, say: Words) -> list[RenderableType]:
    from rich.text import Text

    if not training.answers:
        return []
    told = training.answers[-1]
    shown: list[RenderableType] = [
        Text(),
        Text(say("watch.answers.after", step=told["step"], stage=readable(told["stage"])), style="bold"),
    ]
    table = _grid()
    for row in told["answers"]:
        taught = row["teacher"] is not None
        beside = say("model.teacher") if taught else say("watch.answers.reference")
        for name, text in (
            (say("watch.answers.prompt"), row["prompt"]),
            (beside, row["teacher"] if taught else row["reference"]),
            (called(training.model, say), row["student"]),
        ):
            table.add_row(Text(name, style="dim"), Text(_short(text)))
        table.add_row()
    return [*shown, table]


def _short(text: str) -> str:
    kept, left_out = shortened(readable(text).strip(), LONGEST)
    return f"{kept}…" if left_out else kept


def sparkline(values: Sequence[Any], width: int = WIDE) -> str:
    """A curve as a row of blocks, the lowest value the lowest block; empty without at least two points."""
    points = thin(curve(range(len(values)), values), width)[1]
    known = [value for value in points if finite(value)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    top = len(_LEVELS) - 1
    return "".join(_LEVELS[round(top * (value - low) / (high - low)) if high > low else 0] for value in known)
