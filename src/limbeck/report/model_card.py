"""The student's card for the Hugging Face Hub: metadata that the hub reads, and the report's summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from limbeck.report.facts import Facts, Row, finite, section
from limbeck.report.metrics import name_of
from limbeck.report.text import readable

_PIPELINES = {
    "causal_lm": "text-generation",
    "text_classification": "text-classification",
    "image_classification": "image-classification",
}
_METRICS = {"answer_accuracy": "exact_match", "macro_f1": "f1", "auroc": "roc_auc"}
"""Scores that the hub knows under another name."""

_AXES = ("accuracy", "calibration", "robustness")


def model_card(facts: Facts, summary: str) -> str:
    """A `README.md`: YAML with base model, licence and `model-index`, then the summary.

    Args:
        facts: what the run recorded.
        summary: the report in Markdown.
    """
    from huggingface_hub import ModelCardData

    task = _type(facts.recipe.get("task"))
    results = _results(facts, task)
    data = ModelCardData(
        base_model=_bases(facts) or None,
        datasets=_dataset(facts)[2] or None,
        license=_licence(facts),
        library_name="transformers",
        pipeline_tag=_PIPELINES.get(task),
        tags=["knowledge-distillation", "limbeck"],
        model_name=readable(facts.title),
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{summary}"


def _type(part: Any) -> str:
    name = part.get("type", "") if isinstance(part, Mapping) else part or ""
    return str(name).replace("-", "_")


def _results(facts: Facts, task: str) -> list[Any]:
    """The student's scores as the hub's evaluation results."""
    from huggingface_hub import EvalResult

    kind, name, _ = _dataset(facts)
    found = []
    for row in facts.scores:
        if row["model"] != "student" or row["axis"] not in _AXES or not finite(row.get("value")):
            continue
        found.append(
            EvalResult(
                task_type=_PIPELINES.get(task, "other"),
                dataset_type=kind,
                dataset_name=name,
                dataset_split=str(row.get("split") or "") or None,
                metric_type=readable(_METRICS.get(str(row["name"]), str(row["name"]))),
                metric_name=readable(_called(row, facts)),
                metric_value=row["value"],
            )
        )
    return found


def _called(row: Row, facts: Facts) -> str:
    called = name_of(str(row["name"]), facts.say)
    if finite(row.get("low")) and finite(row.get("high")):
        return f"{called} [{row['low']:.4g}, {row['high']:.4g}]"
    return called


def _dataset(facts: Facts) -> tuple[str, str, list[str]]:
    """Type and name of the data, and its id where the hub has it."""
    train = section(facts.recipe, "data").get("train")
    kind = readable(_type(train)) or "unknown"
    if kind == "hub" and isinstance(train, Mapping) and train.get("name"):
        return str(train["name"]), str(train["name"]), [str(train["name"])]
    return kind, kind, []


def _bases(facts: Facts) -> list[str]:
    """Models of the hub that the student comes from: those with a commit."""
    found = []
    for step in ("train", "prepare"):
        model = section(section(facts.manifests, step), "model")
        name = str(model.get("name") or "").rpartition(" of ")[2]  # `layers [0, 5] of <teacher>`
        if model.get("revision") and name:
            found.append(readable(name))
    return list(dict.fromkeys(found))


def _licence(facts: Facts) -> str | None:
    """The student's licence as the hub writes licences; None where nobody knows it."""
    licence = str(section(section(facts.manifests, "train"), "model").get("licence") or "")
    return licence if licence and licence != "unknown" and " " not in licence else None
