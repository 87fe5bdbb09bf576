"""Steps as tokens: the marks, what a token may see of the others, and what each label counts.

An answer in steps (`k` counts them from 1; the marks are single tokens):

    <|use|> <|c1|> <|step2|> 69+25= <|c2|> 94. <|use|> ...
    \\___ head ____/\\__________ body _________/
                                     \\______/ conclusion

The head says which earlier conclusions the step uses. The body begins with the step's own mark; within it `<|c2|>`
says that what follows, up to the end of the step, is its conclusion. Without the marks the text is what it was.

What a token sees, besides the tokens of its own head or body before it:

    of the question    nothing else
    of a head          the question and all conclusions so far
    of a body          the question and the conclusions that its head names

A body does not see its head, which has seen conclusions that the step does not use. All follows from the tokens on the
left, so that a mask for training and a mask while generating are the same by construction.

Shapes: B batch, T positions, Q queries, K keys, P heads and bodies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from limbeck.core.errors import DataError
from limbeck.data.steps import joined, steps_of
from limbeck.tasks._text import pad

USE = "<|use|>"
MARK = re.compile(r"<\|(?:use|step\d+|c\d+)\|>")
MOST = 62
"""Conclusions that the bits of an int64 can name, bit 0 left free."""


def vocabulary(count: int) -> list[str]:
    """The marks of answers with up to `count` steps."""
    return [USE, *(f"<|step{k}|>" for k in range(1, count + 1)), *(f"<|c{k}|>" for k in range(1, count + 1))]


def structured(text: str, question: str, most: int) -> str:
    """An answer with its steps marked.

    Args:
        text: the worked answer.
        question: what was asked.
        most: steps that there are marks for; what is beyond joins the last one.

    Raises:
        DataError: the text holds marks already.
    """
    for given in (text, question):
        if found := MARK.search(given):
            raise DataError("a text holds a mark of structured answers", got=found[0], fix="take it out of the data")
    parts = []
    for k, step in enumerate(joined(steps_of(text, question), most), 1):
        uses = "".join(f"<|c{i + 1}|>" for i in step.uses)
        cut = len(step.text) if step.at is None else step.at[0] - step.start
        mark = "" if step.at is None else f"<|c{k}|>"
        parts.append(f"{USE}{uses}<|step{k}|>{step.text[:cut]}{mark}{step.text[cut:]}")
    return "".join(parts)


def plain(text: str) -> str:
    """A structured answer without its marks: the text that it was made from."""
    return MARK.sub("", text)


@dataclass(frozen=True)
class Marks:
    """Token ids of the marks; `steps` and `conclusions` give each id's number."""

    use: int
    steps: dict[int, int]
    conclusions: dict[int, int]

    @classmethod
    def of(cls, tokenizer: Any) -> Marks | None:
        """The marks that a tokenizer has; None where it has none."""
        known = tokenizer.get_vocab()
        if USE not in known:
            return None
        count = sum(f"<|c{k}|>" in known for k in range(1, MOST + 1))
        steps, conclusions = ({known[f"<|{name}{k}|>"]: k for k in range(1, count + 1)} for name in ("step", "c"))
        return cls(known[USE], steps, conclusions)


class Parts(NamedTuple):
    """Where tokens stand, each [B, T].

    Attributes:
        part: 0 in the question, odd in a head, even in the body that follows it, -1 for padding.
        name: number of the conclusion that the token belongs to, 0 for none.
        uses: bit k is set where conclusion k may be seen.
    """

    part: Tensor
    name: Tensor
    uses: Tensor

    def to(self, device: Any) -> Parts:
        """The same on another device."""
        return Parts(*(each.to(device) for each in self))

    def then(self, other: Parts) -> Parts:
        """These tokens, and others behind them."""
        return Parts(*(torch.cat(pair, 1) for pair in zip(self, other, strict=True)))


_EVERY = -2
"""All bits but bit 0, which tokens of no conclusion have."""


class Layout:
    """Where each token of a row stands; grows token by token."""

    def __init__(self, marks: Marks, ids: Iterable[int] = ()):
        self.marks = marks
        self.part: list[int] = []
        self.name: list[int] = []
        self.uses: list[int] = []
        self._part = self._name = self._uses = 0
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """One more token."""
        in_head = self._part % 2
        if token == self.marks.use:
            self._part, self._name, self._uses = self._part + 1 + in_head, 0, 0
        elif token in self.marks.steps:
            self._part, self._name = self._part + 2 - in_head, 0
            self._uses = self._uses if in_head else 0
        elif token in self.marks.conclusions and self._part:
            number = self.marks.conclusions[token]
            if in_head:
                self._uses |= 1 << number
            else:
                self._name = number
        self.part.append(self._part)
        self.name.append(self._name)
        self.uses.append(_EVERY if self._part % 2 else self._uses)

    def weights(self, *, key_step: float, conclusion: float, finished: bool) -> list[float]:
        """What each token counts.

        Args:
            key_step: factor for the steps whose conclusion is used later, and for the last one.
            conclusion: factor for conclusions.
            finished: the answer was not cut off, so that its last step really is the last one.
        """
        named = 0  # conclusions that later heads use
        keys = {(self._part + 1) // 2} if finished else set()
        for part, name, uses in zip(reversed(self.part), reversed(self.name), reversed(self.uses), strict=True):
            if part and part % 2 == 0:
                if name and named >> name & 1:
                    keys.add(part // 2)
                named |= uses
        return [
            (key_step if part and (part + 1) // 2 in keys else 1.0) * (conclusion if name else 1.0)
            for part, name in zip(self.part, self.name, strict=True)
        ]


def parts_of(layouts: Sequence[Layout], side: str = "right", last: int | None = None) -> Parts:
    """Rows of unequal length side by side, padded; or the `last` tokens of each."""
    cut = slice(None) if last is None else slice(-last, None)
    columns = [[getattr(x, name)[cut] for x in layouts] for name in Parts._fields]
    return Parts(*(pad(rows, fill, side) for rows, fill in zip(columns, (-1, 0, 0), strict=True)))


def visible(queries: Parts, keys: Parts) -> Tensor:
    """Which keys each query sees, [B, 1, Q, K], True where it does.

    Padding is seen by nobody. What padding itself sees is without effect; it sees all that is real and not itself,
    so that no row is empty and the diagonal tells real positions from padding.

    Args:
        queries: the last Q of the keys.
        keys: all positions so far.
    """
    part_B1K, name_B1K = keys.part[:, None, :], keys.name[:, None, :]
    rows, many, all_ = *queries.part.shape, keys.part.shape[1]
    # What a part sees is worked out once: its tokens differ in what stands before them, and in nothing else.
    parts = torch.arange(int(keys.part.max()) + 1, device=keys.part.device)
    at_BQ = queries.part.clamp(min=0)
    uses_BP = queries.uses.new_zeros(rows, len(parts)).scatter(1, at_BQ, queries.uses)
    names_BPK = (uses_BP[:, :, None] >> name_B1K) & 1 == 1  # bit 0, of no conclusion, is never set
    sees_BPK = (part_B1K == 0) | (part_B1K == parts[None, :, None]) | names_BPK
    place = torch.arange(all_, device=keys.part.device)
    causal_QK = place[None, :] <= place[all_ - many :, None]
    seen_BQK = sees_BPK[torch.arange(rows, device=place.device)[:, None], at_BQ] & causal_QK
    seen_BQK[queries.part < 0] = True
    return (seen_BQK & (part_B1K >= 0))[:, None]


def additive(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """0 where a mask is True, minus infinity elsewhere.

    A boolean mask is right under sdpa only: eager attention adds it to the scores and hides nothing.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
