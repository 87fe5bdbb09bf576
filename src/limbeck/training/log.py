"""What a run tells while it trains: JSONL files, a progress bar, and trackers if asked."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import psutil
import torch

from limbeck.core.artifacts import write_atomically

if TYPE_CHECKING:
    from accelerate import Accelerator
    from rich.progress import Progress as Bar

    from limbeck.training.step import Told


class Log:
    """Writes `steps.jsonl`, `evals.jsonl` and `generations.jsonl`, moves the bar, feeds the trackers.

    Args:
        folder: where the files lie.
        after: a resumed run's last saved step; later lines are dropped, as those steps are done again.
        accelerator: hands figures to trackers; only its main process writes.
        bar: the progress bar.
        title: what the bar says before the figures.
        total: steps of the whole run.
    """

    def __init__(self, folder: Path, after: int, accelerator: Accelerator, bar: Bar, title: str, total: int):
        self.accelerator, self.bar, self.title = accelerator, bar, title
        self.main = accelerator.is_main_process
        self.paths = {name: folder / f"{name}.jsonl" for name in ("steps", "evals", "generations")}
        for path in self.paths.values():
            if self.main and path.exists():
                write_atomically(path, "".join(_lines_until(path, after)))
        self.files: dict[str, TextIO] = {}
        self.measured = -math.inf
        self.task = bar.add_task(title, total=total, completed=after, figures="", speed=None)
        self.recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=50)
        self.score, self.writing = "", ""

    def step(
        self,
        step: int,
        stage: str,
        told: Told,
        learning_rate: float,
        written: Mapping[str, float] | None = None,
        gradients: Mapping[str, Any] | None = None,
    ) -> None:
        """One optimizer step.

        Args:
            step: its number in the whole run.
            stage: the name of its stage.
            told: what it says of itself.
            learning_rate: what it was made with.
            written: figures of what the student wrote for it, if it did.
            gradients: the terms' own gradients, if they were looked at.
        """
        began = self.recent[-1][0]
        self.recent.append((time.monotonic(), told.units))
        line = {"step": step, "stage": stage, "terms": told.terms, "loss": told.loss}
        line |= {"grad_norm": told.grad_norm, "learning_rate": learning_rate, "units": told.units}
        if told.teacher_share is not None:
            line["teacher_share"] = told.teacher_share
        if written is not None:
            line["on_policy"] = dict(written)
            if "tokens_per_second" in written:
                self.writing = f"  writes {written['tokens_per_second']:,.0f}/s"
        if gradients is not None:
            line["gradients"] = dict(gradients)
        if told.skipped:
            line["skipped"] = True
        if self.recent[-1][0] - self.measured >= 1:
            self.measured, line["memory"] = self.recent[-1][0], memory()
        self._write("steps", {**line, "seconds": round(self.recent[-1][0] - began, 4)})
        figures = "  ".join(f"{name} {value:.3f}" for name, value in told.terms.items())
        span = self.recent[-1][0] - self.recent[0][0]
        speed = sum(units for _, units in list(self.recent)[1:]) / max(span, 1e-9)
        self.bar.update(
            self.task, advance=1, description=f"{self.title} {stage}", figures=f"{figures}{self.writing}{self.score}"
        )
        self.bar.update(self.task, speed=speed)
        flat = {f"train/{name}": value for name, value in told.terms.items()}
        rest = {"train/loss": told.loss, "train/grad_norm": told.grad_norm, "train/learning_rate": learning_rate}
        own = {f"train/on_policy_{name}": value for name, value in (written or {}).items()}
        self._track({**flat, **rest, **own}, step)

    def evaluation(self, step: int, stage: str, metrics: dict[str, float], best: bool) -> None:
        """One validation."""
        self._write("evals", {"step": step, "stage": stage, "metrics": metrics, "best": best})
        name = "accuracy" if "accuracy" in metrics else "loss"
        self.score = f"  valid {name} {metrics[name]:.3f}"
        self._track({f"validation/{name}": value for name, value in metrics.items()}, step)

    def answers(self, step: int, stage: str, answers: list[dict[str, Any]]) -> None:
        """What the student said to a few prompts, if it was asked."""
        if answers:
            self._write("generations", {"step": step, "stage": stage, "answers": answers})

    def close(self) -> None:
        """Flush and close."""
        for file in self.files.values():
            file.close()

    def _write(self, name: str, line: dict[str, Any]) -> None:
        if self.main:
            if name not in self.files:
                self.files[name] = self.paths[name].open("a")
            self.files[name].write(json.dumps(line) + "\n")
            self.files[name].flush()

    def _track(self, values: dict[str, float], step: int) -> None:
        if self.accelerator.trackers:
            self.accelerator.log(values, step=step)


def memory() -> dict[str, int]:
    """Bytes that this process holds: `resident`, and with CUDA `gpu_peak`, the most that its tensors ever held."""
    found = {"resident": psutil.Process().memory_info().rss}
    if torch.cuda.is_available():
        found["gpu_peak"] = torch.cuda.max_memory_allocated()
    return found


def _lines_until(path: Path, step: int) -> list[str]:
    """Whole lines of a log up to a step; a line that a kill cut short is not one."""
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept
