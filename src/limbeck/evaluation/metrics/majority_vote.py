"""How often the answer that most draws agree on is right."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.statistics import mean
from limbeck.verification.select import leader


@part
class MajorityVote(Metric):
    """The share of prompts on which most of the answers agree on the right one; a tie is no answer.

    Reference:
        Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2022, arXiv:2203.11171.
    """

    def measure(self, book: Book, tables: Tables) -> None:
        for name, table in tables.draws.items():
            if "prediction" not in table:
                continue
            votes: dict[str, Counter[str]] = defaultdict(Counter)
            right = set()
            for sample, said, ok in zip(table["id"], table["prediction"], table["correct"], strict=True):
                votes[sample].update([] if said is None else [said])
                right |= {(sample, said)} if ok and said is not None else set()
            found = [(sample, leader(counts, counts.total()).answer) in right for sample, counts in votes.items()]
            book.estimate(name, "accuracy", "majority_vote", "share", mean, np.asarray(found, dtype=float))
