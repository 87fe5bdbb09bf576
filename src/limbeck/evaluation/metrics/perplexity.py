"""How well a language model foretells the answers of the data."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import BASELINE, Metric, Tables
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import log_ratio, perplexity


@part
class Perplexity(Metric):
    """exp of the mean negative log-likelihood per token of the data's answers; also beside the baseline.

    `log_perplexity_minus_baseline` is in nats per token, below zero where the student is better. Rows of which the
    likelihood or the tokens are not known are left out; `n` says how many are in.
    """

    wants: ClassVar[tuple[str, ...]] = ("nll", "tokens")

    def measure(self, book: Book, tables: Tables) -> None:
        found = {name: _likelihoods(table) for name, table in tables.models.items() if self.fits(table)}
        for name, (nll, tokens) in found.items():
            known = np.isfinite(nll)
            if known.any():
                book.estimate(name, "accuracy", "perplexity", "per token", perplexity, nll[known], tokens[known])
        if "student" in found and BASELINE in found:
            (mine, tokens), (its, _) = found["student"], found[BASELINE]
            known = np.isfinite(mine) & np.isfinite(its)
            if known.any():
                columns = mine[known], its[known], tokens[known]
                title, unit = "log_perplexity_minus_baseline", "nats per token"
                book.estimate("student", "comparison", title, unit, log_ratio, *columns)


def _likelihoods(table: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """`nll` and `tokens`, [n] each; both nan where one of them is not known, or there are no tokens."""
    nll, tokens = table.numbers("nll"), table.numbers("tokens")
    known = np.isfinite(nll) & (tokens > 0)
    return np.where(known, nll, np.nan), np.where(known, tokens, np.nan)
