"""The question in other words."""

from __future__ import annotations

import re
from collections import Counter

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.perturbation._base import AskedPerturbation, Refused, asking, question_of
from limbeck.data.steps import NUMBER, canonical

_MARKED = re.compile(r"<question>\s*(.+?)\s*</question>", re.DOTALL)
_LONGEST = 3
"""A paraphrase longer than so many times the question is not believed."""


@part
class Paraphrase(AskedPerturbation):
    """Ask a model to say the question in other words; refused unless the same numbers stand in it.

    Reference:
        Yu et al., MetaMath: Bootstrap Your Own Mathematical Questions for Large Language Models, 2023,
        arXiv:2309.12284.
    """

    instruction: str = (
        "Say the following question in other words. Keep its meaning, its language, and every number, name and "
        "formula. Do not answer it. Write the new question between <question> and </question>."
    )
    """What the model is told; the question follows."""

    def messages(self, sample: Sample) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{self.instruction}\n\n{question_of(sample) or ''}"}]

    def read(self, sample: Sample, text: str) -> Sample | Refused:
        question = question_of(sample)
        if question is None:
            return Refused("no_text")
        found = _MARKED.findall(text)
        if not found:
            return Refused("no_paraphrase")
        said = found[-1]
        if len(said) > _LONGEST * len(question):
            return Refused("too_long")
        if _numbers(said) != _numbers(question):
            return Refused("numbers_differ")
        return asking(sample, said)


def _numbers(text: str) -> Counter[str]:
    return Counter(canonical(found[0]) for found in NUMBER.finditer(text))
