"""Everything that a page shows, for programs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from limbeck.report.blocks import Block, Section
from limbeck.report.curves import loss_curves, thin
from limbeck.report.facts import Facts, finite


def record(facts: Facts, shown: Mapping[str, Any]) -> dict[str, Any]:
    """The page as JSON values: the recorded figures as numbers, and the sections as they are shown.

    Args:
        facts: what the page is made from.
        shown: what its template got.
    """
    return {
        "kind": "comparison" if facts.runs else "report",
        "language": facts.say.language,
        **{key: shown[key] for key in ("title", "headline", "where", "caution")},
        "key_figures": [asdict(card) for card in shown["cards"]],
        "scores": facts.scores,
        "details": dict(facts.details),
        "training": {name: _log(steps, evals) for name, steps, evals in facts.trainings if steps or evals},
        "sections": [_section(each) for each in shown["sections"]],
        "manifests": dict(facts.manifests),
        "recipe": dict(facts.recipe),
    }


def to_json(value: Any) -> bytes:
    """JSON that every reader takes: numbers that are not finite are null, halves of characters escaped."""
    text = json.dumps(_plain(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Collection):
        return [_plain(each) for each in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value if finite(value) else None


def _log(steps: list[dict[str, Any]], evals: list[dict[str, Any]]) -> dict[str, Any]:
    """The curves as they are drawn, a few hundred points each, and all validations."""
    drawn = {name: thin(points) for name, points in loss_curves(steps, "total")}
    return {"loss": {name: {"step": xs, "value": ys} for name, (xs, ys) in drawn.items()}, "validation": evals}


def _section(section: Section) -> dict[str, Any]:
    return {"id": section.id, "title": section.title, "blocks": [_block(block) for block in section.shown]}


def _block(block: Block) -> dict[str, Any]:
    told = {"kind": block.kind, **asdict(block)}
    if block.kind == "fold":
        told["block"] = _block(block.block)  # type: ignore[union-attr]
    for plot in told.get("plots", ()):
        del plot["svg"]
    return told
