"""lm-evaluation-harness: its tasks, asked of the models that are here, among the scores.

Reference:
    Biderman et al., Lessons from the Trenches on Reproducible Evaluation of Language Models, 2024, arXiv:2405.14782.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from limbeck.core.artifacts import digest_of, sha256_of
from limbeck.core.errors import DataError, MissingExtra, RecipeError, nearest
from limbeck.evaluation.book import Book, Score
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPLIT = "harness"
"""What scores name as their rows: those that the task brings."""
_SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1"})
"""Metrics of the harness that are shares of one; others keep the scale that their task gives them."""
_DRAWS = 1000
"""Bootstrap draws of the few metrics whose standard error has no formula; the harness takes them one by one."""


def measure(
    models: Mapping[str, tuple[PreTrainedModel, Codec]], tasks: Sequence[str], book: Book, *, batch_size: int
) -> None:
    """Ask language models the tasks: scores `<task>/<metric>` on the axis `accuracy`.

    Prompts have the tokenizer's chat template where the recipe's task has it. An interval is normal, from the standard
    error that the harness gives; a metric without one has none. A filter other than the harness's own `none` stands
    behind the metric, after a comma.

    Args:
        models: by name, each in evaluation mode and with its codec.
        tasks: names that the harness knows, or paths of YAML files.
        book: takes the figures.
        batch_size: requests at a time.

    Raises:
        MissingExtra: lm-evaluation-harness is not installed.
        RecipeError: there is no such task.
        DataError: a task's data cannot be had, or it cannot be done as it is.
    """
    manager = _manager(tasks)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    for name, (model, codec) in models.items():
        assert isinstance(codec, CausalCodec), "the recipe sees to it"
        asked = HFLM(pretrained=model, tokenizer=codec.processor, backend="causal", batch_size=batch_size)
        try:
            found = simple_evaluate(
                asked,
                tasks=list(tasks),
                task_manager=manager,
                apply_chat_template=codec.chat,
                bootstrap_iters=_DRAWS,
                log_samples=False,
            )
        except (OSError, ValueError, KeyError) as error:
            what = f"lm-evaluation-harness cannot ask {name} the tasks {', '.join(tasks)}"
            raise DataError(what, got=error, fix="see that their data can be reached, or is here") from error
        for task, row in found["results"].items():
            _take(name, task, row, book)


def fingerprint(tasks: Iterable[str]) -> dict[str, str]:
    """What the tasks' figures depend on: the harness's version, and the files that a task is made from.

    Args:
        tasks: names that the harness knows, or paths of YAML files.

    Raises:
        MissingExtra: lm-evaluation-harness is not installed.
    """
    _require()
    from lm_eval.tasks._yaml_loader import load_yaml

    found = {"lm_eval": version("lm_eval")}
    for task in tasks:
        if (path := Path(task)).is_file():
            config = load_yaml(path, resolve_func=False)
            files = _listed((config.get("dataset_kwargs") or {}).get("data_files"))
            digests = {file: sha256_of(Path(file)) for file in files if Path(file).is_file()}
            found[task] = digest_of([sha256_of(path), digest_of(config), digests])
    return found


def _require() -> None:
    try:
        import lm_eval
    except ImportError:
        raise MissingExtra("evaluate.harness", "harness") from None
    logging.getLogger(lm_eval.__name__).setLevel(logging.ERROR)
    # Else each standard error without a formula starts a process per core beside a loaded model.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")


def _manager(tasks: Sequence[str]) -> Any:
    """The harness's list of tasks; its own thousands are only read where one of them is named."""
    _require()
    from lm_eval.tasks import TaskManager

    names = [task for task in tasks if not Path(task).is_file()]
    manager = TaskManager(include_defaults=bool(names))
    for name in names:
        if name not in manager.task_index:
            guess = nearest(name, manager.all_tasks)
            raise RecipeError(
                f"lm-evaluation-harness has no task named '{name}', and there is no such file",
                allowed="a task's name (`lm-eval ls tasks`), or the path of a YAML file",
                fix=f"did you mean '{guess}'?" if guess else None,
            )
    return manager


def _take(model: str, task: str, row: Mapping[str, Any], book: Book) -> None:
    """Write down a task's figures. The harness names them `<metric>,<filter>` and `<metric>_stderr,<filter>`."""
    z = NormalDist().inv_cdf((1 + book.plan.confidence) / 2)
    for key, value in row.items():
        metric, comma, kind = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = row.get(f"{metric}_stderr,{kind}")
        share = metric in _SHARES
        low = high = None
        if isinstance(error, int | float) and math.isfinite(error):
            low, high = (value + sign * z * error for sign in (-1, 1))
            low, high = (max(low, 0.0), min(high, 1.0)) if share else (low, high)
        title = f"{task}/{metric}" + ("" if kind == "none" else f",{kind}")
        unit, n = "share" if share else "score", int(row["sample_len"])
        book.add(Score(model, "accuracy", title, float(value), low, high, n, unit, SPLIT))


def _listed(files: Any) -> list[str]:
    """Paths, however a task's YAML names them: one, several, or several by split."""
    if isinstance(files, Mapping):
        return [path for each in files.values() for path in _listed(each)]
    return [files] if isinstance(files, str) else list(files or [])
