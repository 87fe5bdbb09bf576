"""Where the parameters are: one row for each part of a model, before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedModel

PARTS = ("embeddings", "attention", "MLP", "norms", "head", "other")
"""Parts of a model, in the order of the table."""

_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "intermediate", "feed_forward", "output.dense", "fc1", "fc2", "experts")


@dataclass(frozen=True)
class Row:
    """One part's parameters.

    Attributes:
        part: its name; `total` in the last row.
        before: parameters in the first model.
        after: parameters in the second.
        share: the part's share of all the second model's.
    """

    part: str
    before: int
    after: int
    share: float

    @property
    def kept(self) -> float | None:
        """What is left of the part; None where there was nothing."""
        return self.after / self.before if self.before else None


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Parameters of each part of a model that has any; a head tied to the embeddings counts as embeddings."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    body = f"{model.base_model_prefix}."
    whole = not any(name.startswith(body) for name, _ in model.named_parameters())
    for path, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in seen:
                seen.add(id(weight))
                counts[_part(f"{path}.{name}", module, whole or path.startswith(body))] += weight.numel()
    return {part: counts[part] for part in PARTS if counts[part]}


def parameter_table(before: PreTrainedModel, after: PreTrainedModel) -> list[Row]:
    """Where the parameters went: a row for each part, and the total."""
    old, new = count_parameters(before), count_parameters(after)
    total = sum(new.values())
    rows = [Row(p, old.get(p, 0), new.get(p, 0), new.get(p, 0) / total) for p in PARTS if p in old or p in new]
    return [*rows, Row("total", sum(old.values()), total, 1.0)]


def as_markdown(rows: Sequence[Row]) -> str:
    """The table for a report or a page."""
    lines = ["| part | before | after | kept | share of the student |", "|---|--:|--:|--:|--:|"]
    return "\n".join(lines + [f"| {' | '.join(_cells(row))} |" for row in rows]) + "\n"


def as_rich(rows: Sequence[Row], title: str | None = None) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    table = Table("part", title=title)
    for column in ("before", "after", "kept", "share"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*_cells(row), end_section=row is rows[-2])
    return table


def _cells(row: Row) -> list[str]:
    kept = "" if row.kept is None else f"{row.kept:.1%}"
    return [row.part, f"{row.before:,}", f"{row.after:,}", kept, f"{row.share:.1%}"]


def _part(name: str, module: nn.Module, in_body: bool) -> str:
    """The part that a weight belongs to, by its module's class and its name."""
    if "Norm" in type(module).__name__:
        return "norms"
    if isinstance(module, nn.Embedding) or "embed" in name.split("layer")[0]:
        return "embeddings"
    if not in_body or ".pooler." in f".{name}":
        return "head"
    if any(word in name for word in _ATTENTION):
        return "attention"
    return "MLP" if any(word in name for word in _MLP) else "other"
