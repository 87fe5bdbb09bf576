"""What a run's folder tells of the run while another process writes it: files alone are read, and none is changed.

    look = Folder(path)
    look.state()          # now; again later, it reads only what was added since

A step at work lies in a hidden folder beside its place (see `limbeck.core.artifacts`); both are read. A run is at
work while the process that its lock names is alive on this machine.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from limbeck.core.artifacts import MANIFEST
from limbeck.core.errors import ArtifactError
from limbeck.live.logs import Tail, Thinned
from limbeck.report.facts import finite, section

CHAIN = ("prepare", "generate", "cache", "train", "baseline", "compress", "evaluate", "cascade", "optimize", "report")
RECENT = 50
"""Steps that speed and time left go by."""
ANSWERED = 200
"""Validations whose answers are kept."""

Row = Mapping[str, Any]
Standing = Literal["done", "before", "under_way", "stopped", "waiting"]


@dataclass(frozen=True)
class Step:
    """A step of the chain.

    Attributes:
        name: as its folder is called.
        state: `done`; `before`: done, but a step before it is being made again; `under_way`; `stopped`: begun, and
            nobody is at it; `waiting`.
        seconds: how long the work took, of a step that is done.
        began: when it began or went on, in seconds since 1970, of one that is not.
    """

    name: str
    state: Standing
    seconds: float | None = None
    began: float | None = None


@dataclass(frozen=True)
class Training:
    """A training as far as it came.

    Attributes:
        model: teacher, teacher-2, student or baseline.
        step: the step of the chain that it belongs to.
        under_way: whether it is at work now.
        unit: what it counts, tokens or samples; None if that was not written down.
        stages: {name, steps, eval_steps} of each; empty if that was not written down.
        steps: its log, rows of `steps.jsonl`; of a long one, means of neighbours.
        every: the number of steps that a row stands for.
        evals: rows of `evals.jsonl`.
        answers: rows of `generations.jsonl`, the last ones.
        last: the newest row of `steps.jsonl` as it stands.
        per_second: units in a second, over the last steps.
        seconds_per_step: of the last steps, validations included.
        memory: what the process last held, in bytes.
    """

    model: str
    step: str
    under_way: bool
    unit: str | None
    stages: tuple[Row, ...]
    steps: tuple[dict[str, Any], ...]
    every: int
    evals: tuple[dict[str, Any], ...]
    answers: tuple[Row, ...]
    last: Row | None
    per_second: float | None
    seconds_per_step: float | None
    memory: Row | None

    @property
    def total(self) -> int | None:
        """Steps of all stages; a stage may end before its time."""
        return sum(each["steps"] for each in self.stages) or None

    @property
    def seconds_left(self) -> float | None:
        """Time left of this training, were all steps to come like the last ones."""
        if not self.under_way or self.total is None or self.last is None or self.seconds_per_step is None:
            return None
        return max(0, self.total - self.last["step"]) * self.seconds_per_step

    @property
    def version(self) -> tuple[Any, ...]:
        """Changes when there is more to draw."""
        return (self.model, (self.last or {}).get("step"), len(self.steps), len(self.evals))


@dataclass(frozen=True)
class State:
    """A run at one moment.

    Attributes:
        path: its folder.
        title: what the recipe calls it.
        language: of the recipe's report.
        phase: `under_way`; `finished`: all steps are done; `stopped`: one is begun and nobody is at it; `ended`:
            nobody is at work and some steps were not begun.
        at: the step that is under way or stopped, or of an ended run the next one; None if there is none.
        steps: the chain.
        trainings: in the order of the chain.
    """

    path: Path
    title: str
    language: str
    phase: Literal["under_way", "finished", "stopped", "ended"]
    at: str | None
    steps: tuple[Step, ...]
    trainings: tuple[Training, ...]

    @property
    def current(self) -> Training | None:
        """The training under way, or else the student's, or else the last."""
        found = [each for each in self.trainings if each.under_way]
        found += [each for each in self.trainings if each.model == "student"]
        return next(iter([*found, *self.trainings[-1:]]), None)


@dataclass
class _Logs:
    """The logs of a training, read as far as they are written."""

    tails: dict[str, Tail] = field(default_factory=lambda: {n: Tail() for n in ("steps", "evals", "generations")})
    steps: Thinned = field(default_factory=Thinned)
    evals: list[dict[str, Any]] = field(default_factory=list)
    answers: deque[Row] = field(default_factory=lambda: deque(maxlen=ANSWERED))
    recent: deque[Row] = field(default_factory=lambda: deque(maxlen=RECENT + 1))
    memory: Row | None = None

    def read(self, folder: Path) -> None:
        """Take in what was added; a log that was cut back is read anew."""
        anew, rows = self.tails["steps"].read(folder / "steps.jsonl")
        if anew:
            self.steps, self.memory = Thinned(), None
            self.recent.clear()
        for row in rows:
            self.steps.add(row)
            self.memory = row.get("memory", self.memory)
        self.recent.extend(rows[-RECENT - 1 :])
        anew, rows = self.tails["evals"].read(folder / "evals.jsonl")
        self.evals = rows if anew else [*self.evals, *rows]
        anew, rows = self.tails["generations"].read(folder / "generations.jsonl")
        if anew:
            self.answers.clear()
        self.answers.extend(rows)

    def pace(self) -> tuple[float | None, float | None]:
        """Units in a second, and seconds a step; the first step of a process has its start in it."""
        rows = list(self.recent)[1:] or list(self.recent)
        seconds = sum(row["seconds"] for row in rows if finite(row.get("seconds")))
        if not rows or seconds <= 0:
            return None, None
        return sum(row.get("units") or 0 for row in rows) / seconds, seconds / len(rows)


class Folder:
    """A run's folder, looked at again and again.

    Args:
        path: the folder that a recipe's `output` names.

    Raises:
        ArtifactError: there is no run.
    """

    def __init__(self, path: Path):
        self.path = path.absolute()
        self._logs: dict[str, _Logs] = {}
        self._json: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._refuse_others()

    def _refuse_others(self) -> None:
        if (self.path / "recipe.json").is_file() or (self.path / ".lock.owner").is_file():
            return
        seeds = sorted(each.parent.name for each in self.path.glob("*/recipe.json"))
        raise ArtifactError(
            f"{self.path} is no run: there is no recipe.json",
            allowed="the folder that a recipe's `output` names",
            fix=f"limbeck watch {self.path / seeds[0]}" if seeds else "begin with: limbeck run RECIPE",
        )

    def state(self) -> State:
        """How the run stands now.

        Raises:
            ArtifactError: the run is gone, or a file of it is damaged.
        """
        self._refuse_others()  # it may have been removed since
        recipe = self._read(self.path / "recipe.json") or {}
        busy = is_held(self.path)
        begun = {name: at for name in CHAIN if (at := self._begun(name)) is not None}
        newest = max(begun, key=lambda name: begun[name]) if begun else None
        at_work = newest if busy else None
        steps = tuple(self._steps(recipe, begun, at_work))
        open_ = [each.name for each in steps if each.state in ("under_way", "stopped")]
        waiting = [each.name for each in steps if each.state in ("before", "waiting")]
        if busy:
            phase: Any = "under_way"
        else:
            phase = "stopped" if open_ else "ended" if waiting else "finished"
        return State(
            path=self.path,
            title=section(recipe, "report").get("title") or self.path.resolve().name,
            language=section(recipe, "report").get("language") or "en",
            phase=phase,
            at=at_work if busy else next(iter([*open_, *waiting]), None),
            steps=steps,
            trainings=tuple(self._trainings(begun, at_work)),
        )

    def _steps(self, recipe: Row, begun: Mapping[str, float], at_work: str | None) -> Iterator[Step]:
        wanted = expected(recipe)
        again = False
        for name in CHAIN:
            manifest = self._read(self.path / name / MANIFEST)
            if name == at_work:
                again = True
                yield Step(name, "under_way", began=begun[name])
            elif name in begun and at_work is None:
                again = True
                yield Step(name, "stopped", began=begun[name])
            elif manifest is not None and name in wanted:
                yield Step(name, "before" if again else "done", seconds=manifest.get("seconds"))
            elif name in wanted:
                yield Step(name, "waiting")

    def _begun(self, name: str) -> float | None:
        """When a step that is not done was begun or taken up; its mark is written anew each time.

        A try at a step that is done, older than the recipe, is given up: a run writes its recipe at its end.
        """
        try:
            if not (self.path / f".{name}.partial").is_dir():
                return None
            at = (self.path / f".{name}.fingerprint").stat().st_mtime
            given_up = (self.path / name / MANIFEST).exists() and at < (self.path / "recipe.json").stat().st_mtime
            return None if given_up else at
        except FileNotFoundError:
            return None  # it has just come to its end

    def _trainings(self, begun: Mapping[str, float], at_work: str | None) -> Iterator[Training]:
        for step, model in (("prepare", "teacher"), ("train", "student"), ("baseline", "baseline")):
            folder = self.path / (f".{step}.partial" if step in begun else step)
            logs = [(model, folder)]
            if step == "prepare":
                logs += [(each.name.removesuffix("-log"), each) for each in sorted(folder.glob("teacher-*-log"))]
            found = [made for name, each in logs if (made := self._training(name, step, each)) is not None]
            for i, training in enumerate(found):  # of a step's trainings, the last one begun is the one at work
                at_it = step == at_work and i == len(found) - 1 and not (folder / model_folder(training)).exists()
                yield Training(**{**vars(training), "under_way": at_it})

    def _training(self, model: str, step: str, folder: Path) -> Training | None:
        logs = self._logs.setdefault(model, _Logs())
        logs.read(folder)
        plan = self._read(folder / "plan.json") or {}
        if not logs.recent and not plan:
            return None
        per_second, seconds = logs.pace()
        return Training(
            model=model,
            step=step,
            under_way=False,
            unit=plan.get("unit"),
            stages=tuple(plan.get("stages", ())),
            steps=tuple(logs.steps.rows()),
            every=logs.steps.every,
            evals=tuple(logs.evals),
            answers=tuple(logs.answers),
            last=logs.recent[-1] if logs.recent else None,
            per_second=per_second,
            seconds_per_step=seconds,
            memory=logs.memory,
        )

    def _read(self, path: Path) -> Any:
        """A JSON file, read again when it has changed; None where there is none. limbeck writes them whole."""
        try:
            now = path.stat()
            version = (now.st_mtime_ns, now.st_size)
            if path not in self._json or self._json[path][0] != version:
                self._json[path] = version, json.loads(path.read_text(encoding="utf-8"))
            return self._json[path][1]
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ArtifactError(f"{path} is damaged: it is not JSON", got=str(error)) from error


def expected(recipe: Row) -> list[str]:
    """The steps that a recipe asks for."""
    teacher = section(recipe, "teacher")
    taught = bool(teacher) and teacher.get("model") != "moving-average" and teacher.get("endpoint") is None
    asked = {
        "prepare": taught,
        "generate": bool(recipe.get("generate")),
        "cache": taught and recipe.get("cache") is not None,
        "baseline": bool(recipe.get("baseline")),
        "compress": recipe.get("compress") is not None,
        "cascade": recipe.get("cascade") is not None,
        "optimize": recipe.get("optimize") is not None,
    }
    return [name for name in CHAIN if asked.get(name, True)]


def model_folder(training: Training) -> str:
    """Where the model is saved when its training is over."""
    return training.model if training.step == "prepare" else "student"


def is_held(path: Path) -> bool:
    """Whether the process that holds a run's lock lives. The lock itself is not touched: a run could not begin then."""
    owner = path / ".lock.owner"
    try:
        process = psutil.Process(int(owner.read_text(encoding="utf-8")))
        # A number may have been given to another process since; clocks may have been set by some seconds.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= owner.stat().st_mtime + 60
    except psutil.AccessDenied:
        return True
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return False
