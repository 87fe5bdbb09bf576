"""Recorded predictions: a table by sample, written once, from which every score is computed.

Shapes: n samples, C classes.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.core.errors import DataError, nearest
from limbeck.core.parts import build
from limbeck.data.columns import column_names, column_values
from limbeck.data.sources._base import Source

Array = np.ndarray[Any, Any]
Columns = dict[str, list[Any]]
"""Predictions by column; every column is as long as `id`."""

SLICE = "slice:"
"""What the name of a column begins with by whose values rows are scored apart."""
COLUMNS = (
    "id",
    "input",
    "target",
    "prediction",
    "correct",
    "confidence",
    "nll",
    "probabilities",
    "text",
    "parsed",
    "finished",
    "tokens",
    "new_tokens",
    "draw",
    "reference",
)
"""Columns that mean something; see docs/evaluate.md."""
_NUMBERS = ("nll", "tokens", "new_tokens")
_FLAGS = ("correct", "parsed", "finished")
_KINDS = ("jsonl", "ndjson", "csv", "tsv", "parquet")
_ROUNDING = 1e-3
"""How far a probability may lie beyond 0 and 1: others have rounded theirs, in bfloat16 for instance."""


@dataclass(frozen=True)
class Predictions:
    """What one model said of every sample.

    Attributes:
        columns: by name; see `COLUMNS`. A value that is not known is None.
        classes: of a classifier, in the order of its probabilities; None for others.
        origin: what an error calls it.

    Raises:
        DataError: a column is missing, malformed, or of another length, or a sample is there twice.
    """

    columns: Columns
    classes: tuple[str, ...] | None = None
    origin: str = "predictions"

    def __post_init__(self) -> None:
        if not self.columns.get("id"):
            raise DataError(f"{self.origin} has no rows with an `id`", got=", ".join(self.columns) or "no columns")
        for name, values in self.columns.items():
            if len(values) != len(self):
                raise DataError(f"{self.origin}: `{name}` is not as long as `id`", got=len(values), allowed=len(self))
        self._refuse("id", lambda v: isinstance(v, str) and bool(v), "a text")
        for name in _NUMBERS:
            self._refuse(name, lambda v: v is None or _finite(v), "a finite number or nothing")
        for name in (name for name in _FLAGS if name in self):
            self._refuse(name, lambda v: v in (True, False), "true or false, in every row or in none")
        if "confidence" in self:
            self._refuse("confidence", _share, "a number from 0 to 1, in every row or in none")
        self._refuse("draw", lambda v: isinstance(v, int) and v >= 0, "0, 1, 2, ...")
        keys = Counter(zip(self.columns["id"], self.columns.get("draw", [0] * len(self)), strict=True))
        (sample, draw), count = keys.most_common(1)[0]
        if count > 1:
            fix = "give every sample one row, or number its answers in a column `draw`"
            what = f"{self.origin} has the sample {sample!r} {'twice' if count == 2 else f'{count} times'}"
            raise DataError(what, got=f"draw {draw}", fix=fix)
        if self.classes is not None:
            self._check_classes(self.classes)

    def _refuse(self, name: str, fits: Any, allowed: str) -> None:
        wrong = next(((i, v) for i, v in enumerate(self.columns.get(name, ())) if not fits(v)), None)
        if wrong is not None:
            what = f"{self.origin}, row {wrong[0]}: `{name}` is not right"
            raise DataError(what, got=repr(wrong[1])[:120], allowed=allowed)

    def _check_classes(self, classes: tuple[str, ...]) -> None:
        known, listed = set(classes), ", ".join(classes[:8])
        if len(known) < len(classes):
            raise DataError(f"{self.origin}: a class is named twice", got=", ".join(classes)[:160])
        self._refuse("target", lambda v: v in known, f"one of {len(classes)} classes: {listed}")
        self._refuse("prediction", lambda v: v is None or v in known, f"one of {len(classes)} classes: {listed}")
        shares = f"{len(classes)} numbers from 0 to 1"
        self._refuse(
            "probabilities", lambda v: v is not None and len(v) == len(classes) and all(map(_share, v)), shares
        )

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __contains__(self, name: str) -> bool:
        """Whether a column is there, and says something of any row; that no answer could be read says something too."""
        return (name == "prediction" and name in self.columns) or any(
            value is not None for value in self.columns.get(name, ())
        )

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def numbers(self, name: str) -> Array:
        """A column as numbers [n]; nan where nothing is known."""
        return np.asarray([np.nan if v is None else v for v in self.columns[name]], dtype=float)

    @cached_property
    def correct(self) -> Array:
        """Whether each answer is right, [n], 0 or 1."""
        return np.asarray([bool(v) for v in self.columns["correct"]], dtype=float)

    @cached_property
    def probabilities(self) -> Array:
        """Of every class, [n, C]."""
        return np.asarray(self.columns["probabilities"], dtype=float)

    @cached_property
    def targets(self) -> Array:
        """The right class of each row by its place among the classes, [n]."""
        assert self.classes is not None, "only classifiers have classes"
        place = {name: i for i, name in enumerate(self.classes)}
        return np.asarray([place[name] for name in self.columns["target"]])

    @property
    def slices(self) -> list[str]:
        """Names of the columns by whose values rows are scored apart, without their prefix."""
        return [name.removeprefix(SLICE) for name in self.columns if name.startswith(SLICE)]

    @property
    def first(self) -> Predictions:
        """Each sample's first answer; a table without further draws as it is."""
        best: dict[Any, int] = {}
        draws = self.columns.get("draw", [0] * len(self))
        for i, sample in enumerate(self.columns["id"]):
            if sample not in best or draws[i] < draws[best[sample]]:
                best[sample] = i
        return self if len(best) == len(self) else self.rows(list(best.values()))

    def rows(self, places: Sequence[int]) -> Predictions:
        """Some of the rows, in the order that is given."""
        columns = {name: [values[i] for i in places] for name, values in self.columns.items()}
        return Predictions(columns, self.classes, self.origin)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _share(value: Any) -> bool:
    return _finite(value) and -_ROUNDING <= value <= 1 + _ROUNDING


def write(path: Path, table: Predictions) -> None:
    """Write a table to Parquet; the classes stand in its metadata, under the key `classes`."""
    made = pa.table(table.columns)
    if table.classes is not None:
        made = made.replace_schema_metadata({"classes": json.dumps(list(table.classes), ensure_ascii=False)})
    pq.write_table(made, path, compression="zstd")


def read(path: Path) -> Predictions:
    """A table that `write` has left.

    Raises:
        DataError: it is none, or damaged.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is no table of predictions", got=error, allowed="a Parquet file") from error
    return Predictions(table.to_pydict(), _classes(table.schema), str(path))


def _classes(schema: pa.Schema) -> tuple[str, ...] | None:
    """The classes that `write` has left in a table's metadata."""
    found = (schema.metadata or {}).get(b"classes")
    return None if found is None else tuple(json.loads(found))


def read_elsewhere(
    path: Path, columns: Mapping[str, str] | None = None, classes: Sequence[str] | None = None
) -> Predictions:
    """A table that something else has recorded, as JSONL, CSV or Parquet, gzipped or not.

    An answer is right where `correct` says so, or, without that column, where `prediction` is `target`.

    Args:
        path: the file.
        columns: by their meaning (`COLUMNS`, or `slice:<name>`), the file's own names. Columns that already
            have a name that means something need not be given.
        classes: of a classifier, or of questions with given choices; names of the probabilities, in their order.
            Left out: those that a table which limbeck wrote names itself.

    Raises:
        DataError: the file cannot be read, a column is missing or means nothing, or a sample is there twice.
    """
    check_file(path)
    source = build("source", str(path))
    assert isinstance(source, Source)
    rows = source.load("test")
    there = column_names(rows)
    named = {name: name for name in there if name in COLUMNS or name.startswith(SLICE)} | dict(columns or {})
    for meaning, name in named.items():
        if meaning not in COLUMNS and not meaning.startswith(SLICE):
            guess = nearest(meaning, COLUMNS)
            allowed = f"{', '.join(COLUMNS)}, {SLICE}NAME"
            fix = f"did you mean '{guess}'?" if guess else None
            raise DataError(f"no column of predictions is called `{meaning}`", allowed=allowed, fix=fix)
        if name not in there:
            raise DataError(f"{path} has no column '{name}' for `{meaning}`", allowed=", ".join(there))
    found = {meaning: list(column_values(rows, name)) for meaning, name in named.items()}
    for meaning in named:
        found[meaning] = [_value(meaning, value, rows.where(i)) for i, value in enumerate(found[meaning])]
    if "correct" not in found:
        if not {"target", "prediction"} <= found.keys():
            fix = "name the columns of `target` and `prediction`, or that of `correct`"
            raise DataError(f"{path} does not say which answers are right", got=", ".join(there), fix=fix)
        if (blank := next((i for i, right in enumerate(found["target"]) if right is None), None)) is not None:
            raise DataError(f"{rows.where(blank)} has no `target`", fix="leave the row out, for every model")
        pairs = zip(found["target"], found["prediction"], strict=True)
        found["correct"] = [said is not None and said == right for right, said in pairs]
    if classes is None and path.suffix == ".parquet":
        classes = _classes(pq.read_schema(path))
    return Predictions(found, None if classes is None else tuple(classes), str(path))


def check_file(path: Path) -> None:
    """See that a file is there, and one that `read_elsewhere` reads.

    Raises:
        DataError: it is not.
    """
    if not path.is_file():
        raise DataError(f"there is no file of predictions at {path}", got="a folder" if path.is_dir() else "nothing")
    if path.name.lower().removesuffix(".gz").rpartition(".")[2] not in _KINDS:
        allowed = f"{', '.join(f'.{kind}' for kind in _KINDS)}; gzipped where it is text"
        raise DataError(f"{path} is no table of predictions", got=path.suffix or "no ending", allowed=allowed)


def _value(meaning: str, value: Any, where: str) -> Any:
    """A cell as the column's meaning has it; tables of text have numbers as text."""
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        if meaning == "id":
            raise DataError(f"{where} has no id")
        return "" if meaning == "text" and value == "" else None
    if meaning in _FLAGS:
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        if (said := known.get(str(value).lower())) is None:
            raise DataError(f"{where}: `{meaning}` is neither true nor false", got=repr(value)[:80])
        return said
    if meaning in (*_NUMBERS, "confidence", "draw"):
        try:
            return int(value) if meaning == "draw" else float(value)
        except ValueError as error:
            raise DataError(f"{where}: `{meaning}` is no number", got=repr(value)[:80]) from error
    if meaning == "probabilities":
        try:
            return json.loads(value) if isinstance(value, str) else list(value)
        except (ValueError, TypeError) as error:
            raise DataError(f"{where}: `{meaning}` is no list of numbers", got=repr(value)[:80]) from error
    # A column of whole numbers with a gap is one of floats: 5.0 is 5 there.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def aligned(tables: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """First answers of several models, with row i of every table about the same sample: the order of the first one.

    Raises:
        DataError: the models answered different samples, or the tables hold different answers for right.
    """
    firsts = {name: table.first for name, table in tables.items()}
    if not firsts:
        return {}
    base, *_ = firsts.values()
    order, found = base["id"], {}
    for name, table in firsts.items():
        place = {sample: i for i, sample in enumerate(table["id"])}
        missing = [sample for sample in order if sample not in place]
        beyond = set(table["id"]) - set(order)
        if missing or beyond:
            example = missing[0] if missing else min(beyond, key=str)
            raise DataError(
                f"{base.origin} and {table.origin} are about different samples, so that they cannot be compared",
                got=f"{len(missing)} missing from {name}, {len(beyond)} only there; for instance {example!r}",
                allowed="the same ids in every table",
                fix="record the predictions of the same rows, or name the right column for `id`",
            )
        found[name] = table if table["id"] == order else table.rows([place[sample] for sample in order])
        _same_targets(base, found[name])
    return found


def _same_targets(one: Predictions, other: Predictions) -> None:
    if "target" not in one or "target" not in other:
        return
    for sample, mine, its in zip(one["id"], one["target"], other["target"], strict=True):
        if mine != its:
            what = f"{one.origin} and {other.origin} hold different answers for right, of sample {sample!r}"
            raise DataError(what, got=f"{mine!r} and {its!r}", fix="name the right columns for `id` and `target`")
