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
_SMALL = re.compile(r"an|the|this|these|those|please|also|very|really|quite|[了着呢吗吧啊呀也就]")
"""Words that say nothing by where they stand."""


@part
class Swaps(Graded):
    """Let words, or Chinese characters, change places: 10 % of them for each degree of severity.

    A word stays within its clause, and on its side of every number, comparison and negation. Capitalised words stay
    where they are.

    In a text that is put into a class any two words may change places. In a prompt their order may be what is asked:
    "the boy gave the girl" must not become "the girl gave the boy". There only small words (`the`, `also`, 了) change
    places with a word beside them, 20 % of them for each degree; all others keep their order.

    Reference:
        Wei and Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks,
        2019, arXiv:1901.11196.
    """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        order = self._any if "text" in sample.inputs else self._small

        def swapped(clause: re.Match[str]) -> str:
            words = iter(order(_TOKEN.findall(clause[0]), draws))
            return _TOKEN.sub(lambda _: next(words), clause[0])

        return rewritten(sample, lambda text: around_held(text, lambda stretch: _SENTENCE.sub(swapped, stretch)))

    def _any(self, words: list[str], draws: np.random.Generator) -> list[str]:
        rate, places = 0.1 * self.severity, [i for i, word in enumerate(words) if not word[0].isupper()]
        # TokenSwap moves at least one pair, so short clauses are met by chance.
        if len(places) < 2 or draws.random() >= min(1.0, rate * len(places) / 2):
            return words
        taken = dict(zip(places, TokenSwap(rate=rate).tokens(places, draws), strict=True))
        return [words[taken.get(i, i)] for i in range(len(words))]

    def _small(self, words: list[str], draws: np.random.Generator) -> list[str]:
        made, i = list(words), 1
        while i < len(made):
            pair = made[i - 1 : i + 1]
            one_is_small = sum(_SMALL.fullmatch(word) is not None for word in pair) == 1
            if one_is_small and not any(word[0].isupper() for word in pair) and draws.random() < 0.2 * self.severity:
                made[i - 1 : i + 1] = pair[::-1]
                i += 1
            i += 1
        return made
