"""How often one of several answers is right."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.statistics import mean
from limbeck.verification.pass_at import pass_at, tries
from limbeck.verification.select import Facts


@part
class PassAtK(Metric):
    """pass@k = E[1 - C(n - c, k) / C(n, k)], of n answers to a prompt of which c are right: `pass_at_<k>`.

    Reference:
        Chen et al., Evaluating Large Language Models Trained on Code, 2021, arXiv:2107.03374.
    """

    ks: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """How many answers may be tried. Left out: 1, 2, 4, ... and all that every prompt has."""

    def measure(self, book: Book, tables: Tables) -> None:
        for name, table in tables.draws.items():
            answers = Counter(table["id"])
            right = Counter(sample for sample, ok in zip(table["id"], table["correct"], strict=True) if ok)
            facts = [Facts(count, right[sample], 0) for sample, count in answers.items()]
            fewest = min(answers.values())
            for k in self.ks or tries(fewest):
                found = [value for each in facts if (value := pass_at(k, [each])) is not None]
                if found:
                    book.estimate(name, "accuracy", f"pass_at_{k}", "share", mean, np.asarray(found))
