"""What a model's own inputs may hold: numbers beyond its tables would end a process that computes on a GPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.runtime import Tensors
from limbeck.runtime.guess import student_folder
from limbeck.serving.errors import BadRequest
from limbeck.serving.rows import Row, length_of

_AFTER_PADDING = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"}
)
"""Families that count positions from behind the padding token's id on."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of a model's own inputs.

    Attributes:
        tables: rows of the table that an input's numbers are looked up in, by the input's name.
        positions: tokens that a row may have; None: as many as one likes.
    """

    tables: Mapping[str, int] = field(default_factory=dict)
    positions: int | None = None

    def check(self, arrays: Mapping[str, NDArray[np.generic]], rows: list[Row], wanted: Mapping[str, Tensors]) -> None:
        """Make sure that a model has a place for everything.

        Args:
            arrays: a request's, whole.
            rows: the same, taken apart.
            wanted: what the model takes.

        Raises:
            BadRequest: a number is beyond its table, or a row longer than the model has positions.
        """
        for name, size in self.tables.items():
            if name in arrays:
                low, high = int(arrays[name].min()), int(arrays[name].max())
                if low < 0 or high >= size:
                    what = f"a value of `{name}` is beyond the model's table"
                    raise BadRequest(what, got=low if low < 0 else high, allowed=f"0 to {size - 1}")
        if self.positions is not None and rows and (length := length_of(rows[0], wanted)) > self.positions:
            raise BadRequest("a row is longer than the model has positions", got=length, allowed=self.positions)


def bounds_in(folder: Path) -> Bounds:
    """The bounds of the model in a folder; none where it has no configuration.

    Args:
        folder: as it is served.
    """
    try:
        config = json.loads((student_folder(folder) / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Bounds()
    config = config.get("text_config") or config
    positions = config.get("max_position_embeddings")
    sizes = {
        "input_ids": config.get("vocab_size"),
        "token_type_ids": config.get("type_vocab_size"),
        "position_ids": positions,
    }
    if positions is not None and config.get("model_type") in _AFTER_PADDING:
        positions -= (config.get("pad_token_id") or 0) + 1
    return Bounds({name: size for name, size in sizes.items() if size}, positions)
