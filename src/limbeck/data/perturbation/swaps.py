"""Words that change places, in degrees."""

from __future__ import annotations

import re

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.augmentation.token_swap import TokenSwap
from limbeck.data.perturbation._base import Graded, Refused, rewritten
from limbeck.data.perturbation._parts import around_held

_TOKEN = re.compile(r"[\u4e00-\u9fff]|[^\W\d_]+(?:['’-][^\W\d_]+)*")  # noqa: RUF001
_SENTENCE = re.compile(r"[^.!?。！？，,;；:：\n]+")  # noqa: RUF001


@part
class Swaps(Graded):
    """Let words, or Chinese characters, change places: 10 % of them for each degree of severity.

    A word stays within its clause, and on its side of every number, comparison and negation. Capitalised words stay
    where they are: "Tom gave Mary" must not become "Mary gave Tom".

    Reference:
        Wei and Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks,
        2019, arXiv:1901.11196.
    """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        rate = 0.1 * self.severity

        def swapped(clause: re.Match[str]) -> str:
            found = [each for each in _TOKEN.finditer(clause[0]) if not each[0][0].isupper()]
            # TokenSwap moves at least one pair, so short clauses are met by chance.
            if len(found) < 2 or draws.random() >= min(1.0, rate * len(found) / 2):
                return clause[0]
            order = TokenSwap(rate=rate).tokens(range(len(found)), draws)
            words = iter([found[i][0] for i in order])
            return _TOKEN.sub(lambda each: each[0] if each[0][0].isupper() else next(words), clause[0])

        return rewritten(sample, lambda text: around_held(text, lambda stretch: _SENTENCE.sub(swapped, stretch)))
