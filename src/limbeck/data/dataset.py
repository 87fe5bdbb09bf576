"""From a recipe's `data` to the samples of its splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from limbeck.core.errors import DataError
from limbeck.core.parts import Part
from limbeck.core.recipe import Data
from limbeck.core.types import Rows, Sample
from limbeck.data.columns import COMPETING, check_roles, class_names, map_columns, plain, slices
from limbeck.data.draw import hold_out, subsample
from limbeck.data.feedback import feedback_fingerprint, feedback_samples
from limbeck.data.labels import check_labels, class_list, label_column
from limbeck.data.samples import DistinctIds, Joined, samples_of
from limbeck.data.sources._base import Source

DEFAULT_SHARE = 0.1
"""Part of the training rows that is held out where nothing else is said."""


class Reader(Protocol):
    """What a task knows of rows.

    Attributes:
        roles: what a column can mean to the task, and whether it must be there. A role `label` is a class:
            its value reaches `read` as the name of the class.
    """

    roles: ClassVar[Mapping[str, bool]]

    def read(self, fields: Mapping[str, Any], where: str) -> tuple[Mapping[str, Any], Any, Mapping[str, Any]]:
        """A sample's inputs, target and meta from a row's values by role.

        Raises:
            DataError: a value is wrong; `where` names the file and the row.
        """


@dataclass(frozen=True)
class Splits:
    """The samples of a job.

    Attributes:
        train: rows to learn from; like the others a list, or, if there are very many, made when they are asked for.
        validation: rows to choose checkpoints on.
        test: rows for the final figures; empty if there are none and none were asked for.
        label_names: all classes, in the order of their numbers; None for tasks without labels.
        counts: rows of each split, how they came about, and training rows whose inputs are in another split too.
    """

    train: Sequence[Sample]
    validation: Sequence[Sample]
    test: Sequence[Sample]
    label_names: tuple[str, ...] | None
    counts: dict[str, Any]


@dataclass(frozen=True)
class _Opened:
    """A split's table before its rows are read."""

    split: str
    rows: Rows
    columns: dict[str, str]
    labels: list[str] | None


def load_splits(data: Data, task: Reader, *, need_test: bool = True, read_test: bool = True) -> Splits:
    """Read the rows that a recipe names, part them into splits and have the task make samples of them.

    The validation rows are held out before `max_samples` draws from the rest, and both draws hang on the rows'
    places in the source alone: a smaller `max_samples` keeps a part of what a larger one keeps.

    Args:
        data: the recipe's section.
        task: reads a row.
        need_test: whether it is an error if there are no test rows.
        read_test: whether test rows are read at all; a search must not see them.

    Raises:
        DataError: a source, a column, a label or a row is wrong or missing, a split is empty, or ids repeat.
    """
    check_roles(data, task.roles)
    source = _source(data.train)
    train = _open(source, "train", data, task)
    classes = _classes(train)
    known = class_names(train.rows, train.columns["label"]) if train.labels is not None else None

    validation, places, held, how = _part(source, train, data, task, known)
    kept = subsample(places, data.max_samples, count=len(train.rows), seed=data.seed) if data.max_samples else places
    # Rows that a server has kept may be test rows, so that these must be known even where nobody may learn of them.
    test_source = _test_source(data, source, need_test) if read_test or data.feedback is not None else None
    test = _open(test_source, "test", data, task, known) if test_source else None

    _same_roles(train, [each for each in (validation, test) if each])
    for opened in (train, validation, test):
        if opened and opened.labels is not None and classes is not None:
            check_labels(opened.labels, classes, opened.rows, opened.columns["label"])
    samples: dict[str, Sequence[Sample]] = {
        "train": _samples(train, kept, task),
        "validation": _samples(validation, range(len(validation.rows)) if held is None else held, task),
        "test": _samples(test, range(len(test.rows)), task) if test else [],
    }
    if data.feedback is not None:
        samples["train"], added = _with_feedback(data.feedback, task, classes, samples)
        samples["test"] = samples["test"] if read_test else []
    shared = _gone_through(samples)
    counts: dict[str, Any] = {
        **{split: len(found) for split, found in samples.items()},
        "train_rows": len(train.rows),
        "validation_from": how,
        "held_out": len(held or []),
        "left_out_by_max_samples": len(places) - len(kept),
        **shared,
    }
    if data.feedback is not None:
        counts["feedback"] = added
    if classes is not None and train.labels is not None:
        seen = {train.labels[i] for i in kept}
        counts["classes_without_training_rows"] = [name for name in classes if name not in seen]
    return Splits(**samples, label_names=classes, counts=counts)


def fingerprint(data: Data) -> dict[str, str]:
    """What the rows of a job are made from, by split; a split that is part of the training source adds nothing.

    Raises:
        DataError: a file does not exist, or the hub cannot be asked.
    """
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    found = {split: _source(each).fingerprint() for split, each in named.items() if isinstance(each, Part)}
    return found if data.feedback is None else found | {"feedback": feedback_fingerprint(data.feedback)}


def _source(chosen: Part) -> Source:
    if not isinstance(chosen, Source):
        raise DataError(f"'{chosen.type()}' is no source of rows", got=type(chosen).__name__)
    return chosen


def _open(source: Source, split: str, data: Data, task: Reader, inherited: tuple[str, ...] | None = None) -> _Opened:
    rows = source.load(split)
    if len(rows) == 0:
        raise DataError(f"{rows.origin} has no rows for the split '{split}'", fix=f"check data.{split}")
    columns = map_columns(data, task.roles, rows)
    labels = None
    if "label" in columns:
        names = class_names(rows, columns["label"]) or inherited
        labels = label_column(rows, columns["label"], names)
    return _Opened(split, rows, columns, labels)


def _same_roles(train: _Opened, others: Iterable[_Opened]) -> None:
    """Refuse a split with other roles than the training rows: a model would be measured on what it never learned.

    Roles that compete may differ: a conversation is the same sample in either of its ways.
    """
    either = frozenset().union(*COMPETING)
    for other in others:
        for role in sorted((train.columns.keys() ^ other.columns.keys()) - either):
            having, lacking = (train, other) if role in train.columns else (other, train)
            raise DataError(
                f"{having.rows.origin} ({having.split}) has a column for `{role}`, "
                f"but {lacking.rows.origin} ({lacking.split}) has none",
                got=f"{having.split}: {having.columns[role]}",
                fix="give all splits the same columns",
            )


def _classes(train: _Opened) -> tuple[str, ...] | None:
    # All training rows count, drawn or not: `max_samples` must not change what the classes are.
    if train.labels is None:
        return None
    return class_names(train.rows, train.columns["label"]) or class_list(train.labels)


def _part(
    source: Source, train: _Opened, data: Data, task: Reader, known: tuple[str, ...] | None
) -> tuple[_Opened, Sequence[int], Sequence[int] | None, str]:
    """Where the validation rows are (and which, None for all), which training rows stay, and how that came about."""
    everything = range(len(train.rows))
    if isinstance(data.validation, Part):
        opened = _open(_source(data.validation), "validation", data, task, known)
        return opened, everything, None, "data.validation"
    if data.validation is None and source.has("validation"):
        return _open(source, "validation", data, task, known), everything, None, "the training source's own split"
    share = data.validation or DEFAULT_SHARE
    if len(everything) < 2:
        fix = "add rows, or name a source: data.validation=..."
        raise DataError(f"{train.rows.origin} has too few rows to hold some out for validation", got="1 row", fix=fix)
    drawn = hold_out(len(everything), share, seed=data.seed, groups=train.labels)
    how = f"{share} of the training rows, " + ("stratified by label" if drawn.stratified else "drawn from all alike")
    return train, drawn.kept, drawn.held, how


def _test_source(data: Data, source: Source, needed: bool) -> Source | None:
    if data.test is not None:
        return _source(data.test)
    if source.has("test"):
        return source
    if needed:
        raise DataError(f"there are no test rows: the source '{source.type()}' has no test split", fix="data.test=...")
    return None


def _samples(opened: _Opened, places: Sequence[int], task: Reader) -> Sequence[Sample]:
    return samples_of(places, lambda place: _sample(opened, place, task))


def _sample(opened: _Opened, place: int, task: Reader) -> Sample:
    row, where = opened.rows[place], opened.rows.where(place)
    fields = {}
    for role, column in opened.columns.items():
        if role == "label" and opened.labels is not None:
            fields[role] = opened.labels[place]
        elif role == "id":
            continue  # see _id
        elif column in row:
            fields[role] = plain(row[column])
        else:
            raise DataError(f"{where} has no `{column}`", got=", ".join(row), fix="give every row the same columns")
    inputs, target, meta = task.read(fields, where)
    meta = {**slices(row, used=set(opened.columns.values())), **meta}
    return Sample(_id(opened, place, row, where), inputs, target, meta)


def _id(opened: _Opened, place: int, row: Mapping[str, Any], where: str) -> str:
    column = opened.columns.get("id")
    if column is None:
        return f"{opened.split}/{place}"
    value = plain(row.get(column))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: `{column}` is no id", got=repr(value), allowed="a string or an integer")
    return str(value)


def _with_feedback(
    path: Path, task: Reader, classes: Sequence[str] | None, samples: Mapping[str, Sequence[Sample]]
) -> tuple[Sequence[Sample], dict[str, int]]:
    """The training rows and new ones behind them, and what became of those that a server has kept."""
    if classes is None:
        raise DataError("feedback is for classifiers: the rows have no classes", fix="leave data.feedback out")
    known = {split: {content_digest(sample.inputs) for sample in rows} for split, rows in samples.items()}
    added, counts = feedback_samples(path, task, classes, known, content_digest)
    return Joined(samples["train"], added), counts


def _gone_through(samples: Mapping[str, Sequence[Sample]]) -> dict[str, int]:
    """Make every sample once: ids must differ, and training rows with the inputs of a measured row are counted."""
    ids, order = DistinctIds(), ("validation", "test", "train")
    others: dict[str, set[bytes]] = {"validation": set(), "test": set()}
    counts = {f"train_rows_also_in_{split}": 0 for split in others}
    for split in order:
        for sample in samples[split]:
            ids.add(sample.id)
            key = content_digest(sample.inputs)
            if split in others:
                others[split].add(key)
                continue
            for other, known in others.items():
                counts[f"train_rows_also_in_{other}"] += key in known
    ids.check(sample.id for split in order for sample in samples[split])
    return counts


def content_digest(value: Any) -> bytes:
    """A digest that is equal for equal inputs: texts, lists and mappings of them, arrays, images."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(value, Mapping):
        parts = [repr(key).encode() + content_digest(value[key]) for key in sorted(value, key=repr)]
        kind = "mapping"
    elif isinstance(value, list | tuple):
        parts, kind = [content_digest(each) for each in value], "list"
    elif isinstance(value, bytes):
        parts, kind = [value], "bytes"
    elif hasattr(value, "tobytes"):  # arrays have a shape and a dtype, images a size and a mode
        shape = [getattr(value, name, None) for name in ("shape", "dtype", "mode")]
        parts, kind = [value.tobytes()], repr([*shape, value.size])
    else:
        parts, kind = [repr(value).encode()], type(value).__name__
    digest.update(f"{kind}:{len(parts)}:".encode())
    for part in parts:
        digest.update(part)
    return digest.digest()


def rows_seen(rows: Iterable[Sample], trained_on: Iterable[Sequence[Sample]]) -> int:
    """How many rows have the very inputs of a row that a model was trained on."""
    known = {content_digest(sample.inputs) for samples in trained_on for sample in samples}
    return sum(content_digest(sample.inputs) in known for sample in rows)
