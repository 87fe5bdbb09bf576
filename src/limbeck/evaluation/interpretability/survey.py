"""Models seen side by side over many rows: how alike their layers are, how widely and where their heads look.

Shapes: n rows, B rows of a batch, A heads, T positions, S and U layers of student and teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from limbeck.alignment.cka import LEAST, StreamingCKA
from limbeck.core.errors import ModelError
from limbeck.evaluation.book import Book
from limbeck.evaluation.interpretability.attention import agreement
from limbeck.evaluation.interpretability.view import Look, View, same_tokens
from limbeck.evaluation.statistics import mean

AXIS = "interpretability"
TEACHER, STUDENT = "teacher", "student"
MAPS_BYTES = 256 * 2**20
"""Memory of one layer's attention maps, all heads."""


class Survey:
    """Takes rows in, a batch at a time, and writes figures down at the end.

    Args:
        views: the models, by name.
        ids: the rows; all models have them.
        notes: takes what could not be measured.
    """

    def __init__(self, views: dict[str, View], ids: Sequence[str], notes: list[str]):
        self.views, self.ids, self.notes = views, ids, notes
        self._entropies: dict[str, list[list[Tensor]]] = {name: [] for name in views}
        others = [name for name in views if name != TEACHER and TEACHER in views]
        self._cka = {name: StreamingCKA() for name in others}
        self._agreement: dict[str, list[Tensor]] = {name: [] for name in others if self._see_alike(name)}

    def _see_alike(self, name: str) -> bool:
        """Whether a model's maps can be laid on the teacher's."""
        one, teacher = self.views[name], self.views[TEACHER]
        if not one.places or not teacher.places:
            return False
        alike = one.places[0].positions == teacher.places[0].positions and same_tokens(one, teacher, self.ids)
        if not alike:
            self.notes.append(f"attention agreement of {name} with the teacher: their maps are of other positions")
        return alike

    def run(self, batch_size: int) -> None:
        """Take in all rows."""
        for part in self._batches(batch_size):
            looks = {name: look for name in list(self.views) if (look := self._look(name, part)) is not None}
            for name, look in looks.items():
                self._entropies[name].append(look.entropies)
                if name in self._cka and TEACHER in looks:
                    self._compare(name, look, looks[TEACHER])

    def _batches(self, most: int) -> Iterator[list[str]]:
        """Rows of like length together, the longest first, and fewer of them where maps are large."""
        places = [place for view in self.views.values() for place in view.places]
        heads, fixed = max((p.heads for p in places), default=0), max((p.positions for p in places), default=1)
        length = {i: max(fixed, *(view.features[i].length for view in self.views.values())) for i in self.ids}
        left = sorted(self.ids, key=lambda i: -length[i])
        while left:
            size = max(1, min(most, MAPS_BYTES // (4 * max(1, heads) * length[left[0]] ** 2)))
            yield left[:size]
            left = left[size:]

    def _look(self, name: str, part: Sequence[str]) -> Look | None:
        """What is seen in a model; one that cannot be seen into is left out from here on, and its reason noted."""
        view = self.views[name]
        try:
            return view.look(part)
        except ModelError as error:
            if view.places:
                self.notes.append(f"attention of {view.called}: {error.what}")
                view.places = []
                return self._look(name, part)
            self.notes.append(f"layers of {view.called}: {error.what}")
            del self.views[name]
            return None

    def _compare(self, name: str, look: Look, teacher: Look) -> None:
        self._cka[name].update(look.pooled, teacher.pooled)
        if name in self._agreement and look.counted_BT is not None and teacher.counted_BT is not None:
            counted_BT = look.counted_BT & teacher.counted_BT
            self._agreement[name].append(agreement(look.maps, teacher.maps, counted_BT).cpu())

    def write(self, book: Book) -> None:
        """Scores, and the details `cka` and `attention`."""
        attention: dict[str, object] = {}
        for name, view in self.views.items():
            if self._chooses(name):
                attention[name] = self._write_entropy(book, name, view)
            elif view.places:
                self.notes.append(f"attention of {view.called}: no position sees more than one")
        for name in self._cka:
            if name in self.views and TEACHER in self.views:
                self._write_cka(book, name)
                if name in self._agreement and self._chooses(name) and self._chooses(TEACHER):
                    found = self._write_agreement(book, name)
                    attention |= {"agreement": found} if name == STUDENT else {}
        if attention:
            book.details["attention"] = attention

    def _chooses(self, name: str) -> bool:
        """Whether a model has maps, and in some row a query that counts."""
        return bool(self.views[name].places) and any(not each[0].isnan().all() for each in self._entropies[name])

    def _write_entropy(self, book: Book, name: str, view: View) -> dict[str, object]:
        by_layer = [torch.cat(parts).double() for parts in zip(*self._entropies[name], strict=True)]
        rows_n = torch.stack([each_nA.mean(1) for each_nA in by_layer]).mean(0)
        _estimate(book, name, "attention_entropy", rows_n)
        entropy = [each_nA.nanmean(0).tolist() for each_nA in by_layer]
        return {"layers": [place.layer for place in view.places], "entropy": entropy}

    def _write_agreement(self, book: Book, name: str) -> list[list[float]]:
        each_nSU = torch.cat(self._agreement[name]).double()
        all_SU = each_nSU.nanmean(0)
        best_S = all_SU.argmax(1)
        _estimate(book, name, "attention_agreement", each_nSU[:, torch.arange(len(best_S)), best_S].mean(1))
        return all_SU.tolist()

    def _write_cka(self, book: Book, name: str) -> None:
        if len(self.ids) < LEAST:
            self.notes.append(f"CKA of {name} with the teacher: {len(self.ids)} rows, and {LEAST} are needed")
            return
        cka_SU = self._cka[name].value()
        book.exact(name, AXIS, "cka_mean_best", "ratio", float(cka_SU.amax(1).mean()), len(self.ids))
        if name == STUDENT:
            teacher, student = self.views[TEACHER].layers, self.views[STUDENT].layers
            found = {"teacher_layers": teacher, "student_layers": student, "cka": cka_SU.tolist()}
            book.details["cka"] = {**found, "n": len(self.ids)}


def _estimate(book: Book, model: str, name: str, rows_n: Tensor) -> None:
    """The mean over the rows in which a query counts."""
    column = rows_n[~rows_n.isnan()].numpy()
    if len(column):
        book.estimate(model, AXIS, name, "share", mean, np.asarray(column))
