"""Whether an export says what the student says: the same rows through both, compared logit by logit.

Shapes: N rows, T positions, C classes or vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from limbeck.core.errors import ModelError
from limbeck.core.types import Sample
from limbeck.exporters._base import Exporter
from limbeck.runtime.student import Floats, ServedStudent, calibrated
from limbeck.tasks import Feature

BATCHES = (1, 2, 5, 16)
"""Rows that the export gets at a time, in turns; the student gets them one by one, so that padding is tried too."""
_AT_ONCE = 2**26
"""Logits that are held at a time."""


@dataclass(frozen=True)
class Parity:
    """How alike two models are.

    Attributes:
        rows: that were compared.
        answers: one for each row; of language models one for each position.
        max_difference: between two logits.
        largest: the student's largest logit, without its sign.
        same_answers: share of the answers that are the same class or token.
        worst: id of the row with the largest difference.
    """

    rows: int
    answers: int
    max_difference: float
    largest: float
    same_answers: float
    worst: str

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest logit."""
        return self.max_difference / max(self.largest, 1e-6)


def compare(student: ServedStudent, export: ServedStudent, samples: Sequence[Sample]) -> Parity:
    """Run rows through both, each with its own codec.

    Args:
        student: the reference.
        export: what is compared with it.
        samples: rows that both can read.

    Raises:
        ModelError: an engine fails, gives no numbers, or logits of another shape.
        DataError: a row cannot be read.
    """
    ours, theirs = student.encode(samples), export.encode(samples)
    answers = same = 0
    largest = most = 0.0
    worst = samples[0].id
    for places in _chunks(ours, len(student.labels) or _vocabulary(student)):
        found = export.logits([theirs[i] for i in places])
        # Integers whose range is that of the batch answer a row by its company, so that both must have the same.
        alone = student.card.precision != "int8"
        whole = None if alone else student.logits([ours[i] for i in places])
        for k, (row, i) in enumerate(zip(found, places, strict=True)):
            told = student.logits([ours[i]])[0] if whole is None else whole[k]
            row, told = (x[: ours[i].length] if told.ndim == 2 else x for x in (row, told))
            if row.shape != told.shape:
                raise ModelError("the export's logits have another shape", got=row.shape, allowed=told.shape)
            difference = float(np.abs(row - told).max())
            if difference > most:
                most, worst = difference, samples[i].id
            largest = max(largest, float(np.abs(told).max()))
            alike = np.atleast_1d(row.argmax(-1) == told.argmax(-1))
            answers, same = answers + alike.size, same + int(alike.sum())
    return Parity(len(samples), answers, most, largest, same / answers, worst)


def refuse(parity: Parity, exporter: Exporter) -> None:
    """Refuse an export that says something else than the student.

    Raises:
        ModelError: it differs by more than the exporter lets pass; with the figures.
    """
    most, least = exporter.most, exporter.least
    if (most is None or parity.relative <= most) and parity.same_answers >= least:
        return
    got = (
        f"largest difference {parity.max_difference:.3g} ({parity.relative:.2%} of the largest logit, row "
        f"{parity.worst}), same answers {parity.same_answers:.2%} of {parity.answers:,}"
    )
    allowed = f"{'any difference' if most is None else f'{most:.2%}'}, same answers {least:.2%}"
    what = f"the export `{exporter.folder}` does not say what the student says; it is not kept"
    fix = f"another precision or opset; or export.{exporter.folder}.max_difference and same_answers, if that will do"
    raise ModelError(what, got=got, allowed=allowed, fix=fix)


def spread(features: Sequence[Feature], count: int) -> list[int]:
    """Places of so many rows, from the shortest to the longest, back in their order."""
    order = sorted(range(len(features)), key=lambda i: features[i].length)
    chosen = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return sorted(order[k] for k in chosen)


def probabilities(student: ServedStudent, features: Sequence[Feature], batch_size: int) -> Floats:
    """Of every class, [N, C], without the card's temperature."""
    parts = [features[i : i + batch_size] for i in range(0, len(features), batch_size)]
    return np.concatenate([calibrated(student.logits(part), 1.0) for part in parts])


def _chunks(features: Sequence[Feature], width: int) -> Iterator[list[int]]:
    """Places of rows that go together, in batches of many sizes, and not too many logits at a time."""
    place, sizes = 0, cycle(BATCHES)
    while place < len(features):
        size = next(sizes)
        while size > 1 and size * max(f.length for f in features[place : place + size]) * width > _AT_ONCE:
            size //= 2
        yield list(range(place, min(place + size, len(features))))
        place += size


def _vocabulary(student: ServedStudent) -> int:
    return len(student.codec.processor)
