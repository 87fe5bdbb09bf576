"""New inputs after the example of given ones: texts of a class, or prompts by self-instruction.

What a model writes is text and nothing more: it is read as a list, and never run or put into a template.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from limbeck.core.errors import DataError
from limbeck.core.recipe import Synthesize
from limbeck.generation.types import Completion, Outcome, Request, Sampling
from limbeck.verification.grams import grams, words

Ask = Callable[[Sequence[Request]], Mapping[str, Outcome]]
"""Answers requests; outcomes by key."""

_BY_CLASS = """\
{about}Here are texts of the class "{label}":

{examples}

The other classes are: {others}.

Write {count} new texts of the class "{label}". They differ from the examples and from each other in content, wording \
and length, as if different people had written them, and none of them could be of another class. Do not name the class.
Reply with a JSON list of strings and nothing else."""
_NO_EXAMPLES = """\
{about}Write {count} texts of the class "{label}". The other classes are: {others}.

The texts differ from each other in content, wording and length, as if different people had written them, and none of \
them could be of another class. Do not name the class.
Reply with a JSON list of strings and nothing else."""
_SELF_INSTRUCT = """\
{about}Here are tasks of one kind:

{examples}

Write {count} new tasks of the same kind. They differ from the examples and from each other in subject, wording and \
difficulty, and each holds all that is needed to do it. Do not write solutions.
Reply with a JSON list of strings and nothing else."""
_MOST_OTHERS = 100
_TEXT_KEYS = ("text", "prompt", "question", "instruction", "task", "input")
_FENCE = re.compile(r"```\w*\n(.*?)(?:```|\Z)", re.DOTALL)
_ITEM = re.compile(r"^[ \t]*(?:(?:\d+[.):]|[-*•])[ \t]+|\d+[、)])", re.MULTILINE)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
_CUT_OFF = re.compile(r'\[\s*"')


@dataclass(frozen=True)
class Seed:
    """A given input, and its class where there is one."""

    text: str
    label: str | None = None


@dataclass(frozen=True)
class Written:
    """An input that a model wrote.

    Attributes:
        id: tells it from others of the same plan.
        text: the input.
        label: the class that was asked for, None for prompts.
        reason: why it is dropped, None if it is taken.
    """

    id: str
    text: str
    label: str | None = None
    reason: str | None = None


@dataclass
class Synthesis:
    """What came of a plan.

    Attributes:
        new: inputs that were taken.
        dropped: inputs that were not, with their reasons.
        failed: replies of no use, by reason.
        missing: by class (or `""`), how many are wanting in the end.
    """

    new: list[Written] = field(default_factory=list)
    dropped: list[Written] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)


class Synthesizer:
    """A plan for new inputs: its requests, round by round.

    The examples in a request are drawn by seed, class, round and number alone, so that a run that was killed asks
    for the same and finds it in the ledger.

    Args:
        plan: the recipe's section.
        seeds: given inputs; none of the new ones is like one of them.
        labels: all classes; None for prompts.
        model: name of the model that is asked.
        sampling: how it answers.
        system: a system prompt.
        seed: draws the examples, and is sent along.
        address: where the model is asked, see `Request`.

    Raises:
        DataError: there are no inputs to follow.

    Reference:
        Wang et al., Self-Instruct: Aligning Language Models with Self-Generated Instructions, 2022, arXiv:2212.10560.
    """

    def __init__(
        self,
        plan: Synthesize,
        seeds: Sequence[Seed],
        labels: Sequence[str] | None,
        *,
        model: str,
        sampling: Sampling,
        system: str | None = None,
        seed: int = 0,
        address: str = "",
    ):
        if plan.by == "self_instruct" and not seeds:
            raise DataError("there are no prompts to write new ones after")
        self.plan, self.labels, self.system = plan, list(labels or [""]), system
        self.model, self.sampling, self.seed, self.address = model, sampling, seed, address
        self.seeds = seeds
        self.by_label = {label: [s.text for s in seeds if (s.label or "") == label] for label in self.labels}
        if labels is None:
            self.by_label[""] = [s.text for s in seeds]

    def wanted(self) -> Counter[str]:
        """How many new inputs each class is to get; what cannot be shared equally goes to the first ones."""
        share, rest = divmod(self.plan.count, len(self.labels))
        return Counter({label: share + (i < rest) for i, label in enumerate(self.labels)})

    def requests(self, missing: Mapping[str, int], round_: int) -> list[tuple[str, Request]]:
        """The requests of a round, with the class each is for.

        Args:
            missing: how many inputs each class still lacks.
            round_: counts from zero.
        """
        found = []
        for label in self.labels:
            size = self.plan.per_request
            for i in range(math.ceil(missing.get(label, 0) / size)):
                draws = np.random.default_rng([self.seed, self.labels.index(label), round_, i])
                text = self._text(label, min(size, missing[label]), draws)
                turns = [] if self.system is None else [{"role": "system", "content": self.system}]
                turns.append({"role": "user", "content": text})
                number = round_ * 100_000 + i  # of the answer: the same examples may be drawn twice
                name = f"synthesize/{label or 'prompts'}/{round_}/{i}"
                request = Request(name, number, tuple(turns), self.model, self.sampling, self.seed, self.address)
                found.append((label, request))
        return found

    def run(self, ask: Ask) -> Synthesis:
        """Ask, read, drop what repeats, and ask again for what is missing, `rounds` times at most.

        Args:
            ask: answers requests.
        """
        made, missing = Synthesis(), self.wanted()
        known = Similar(self.plan.similarity)
        for each in self.seeds:
            known.add(each.text)
        given = len(known)
        for round_ in range(self.plan.rounds):
            pairs = self.requests(missing, round_)
            if not pairs:
                break
            outcomes = ask([request for _, request in pairs])
            for label, request in pairs:
                outcome = outcomes[request.key]
                if not isinstance(outcome, Completion):
                    made.failed[outcome.reason] += 1
                    continue
                texts = parse_list(outcome.content)
                made.failed["unparsed"] += not texts
                for i, text in enumerate(texts):
                    reason = self._judge(text, known, given) if missing[label] > 0 else "surplus"
                    written = Written(f"{request.id}/{i}", text, label or None, reason)
                    (made.new if reason is None else made.dropped).append(written)
                    missing[label] -= reason is None
        made.failed, made.missing = +made.failed, +missing
        return made

    def _judge(self, text: str, known: Similar, given: int) -> str | None:
        if not words(text):
            return "empty"
        if len(text) > self.plan.max_characters:
            return "too_long"
        place = known.add(text)
        if place is None:
            return None
        return "repeats_given" if place < given else "repeats_new"

    def _text(self, label: str, count: int, draws: np.random.Generator) -> str:
        pool = self.by_label[label]
        shown = [pool[i] for i in draws.permutation(len(pool))[: self.plan.shots]]
        fields: dict[str, Any] = {
            "about": f"{self.plan.instruction.strip()}\n\n" if self.plan.instruction else "",
            "examples": "\n".join(f"- {json.dumps(text, ensure_ascii=False)}" for text in shown),
            "count": count,
        }
        if self.plan.by == "self_instruct":
            return _SELF_INSTRUCT.format(**fields)
        others = ", ".join(f'"{name}"' for name in self.labels[:_MOST_OTHERS] if name != label) or "none"
        return (_BY_CLASS if shown else _NO_EXAMPLES).format(**fields, label=label, others=others)


class Similar:
    """Texts that are like an earlier one, by the Jaccard similarity of their word 3-grams.

    |A & B| / |A | B| >= similarity; a Chinese character counts as a word, case and punctuation do not count.

    Args:
        similarity: from which on two texts are alike.
    """

    def __init__(self, similarity: float):
        self.similarity = similarity
        self._sizes: list[int] = []
        self._having: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, text: str) -> int | None:
        """Remember a text; if one that was added before is like it, that one's place, and nothing is remembered."""
        found = grams(words(text), 3)
        common = Counter(place for gram in found for place in self._having.get(gram, ()))
        for place, shared in common.most_common():
            if shared / (len(found) + self._sizes[place] - shared) >= self.similarity:
                return place
        place = len(self._sizes)
        self._sizes.append(len(found))
        for gram in found:
            self._having.setdefault(gram, []).append(place)
        return None


def parse_list(text: str) -> list[str]:
    """The items of a list that a model was asked for, however it wrote it: JSON, JSON lines, numbers or dashes.

    Of a JSON list that was cut off, the whole items are taken. Nothing is found in a text that is no list.
    """
    for part in [*_FENCE.findall(text), text]:
        for found in (_json_list(part), _json_lines(part)):
            if found:
                return found
    marks = list(_ITEM.finditer(text))
    ends = [*(found.start() for found in marks[1:]), len(text)]
    # The paragraph after the last item speaks to the user.
    items = (re.split(r"\n\s*\n", text[mark.end() : end])[0] for mark, end in zip(marks, ends, strict=False))
    return [item for item in map(_clean, items) if item]


def _json_list(text: str) -> list[str]:
    at = text.find("[")
    while at >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            value = None
        except RecursionError:
            return []
        if isinstance(value, list) and (items := list(_texts(value))):
            return items
        if value is None and _CUT_OFF.match(text, at):  # cut off
            return [s for s in map(_unquoted, _STRING.findall(text, at)) if s]
        at = text.find("[", at + 1)
    return []


def _json_lines(text: str) -> list[str]:
    values = []
    for line in text.splitlines():
        line = line.strip().rstrip(",")
        if line[:1] in ('"', "{"):
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError):
                continue
    return list(_texts(values))


def _texts(values: Sequence[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping):
            value = next((value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)), None)
        if isinstance(value, str) and value.strip():
            yield value.strip()


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False)).strip()
    except ValueError:
        return ""


def _clean(item: str) -> str:
    item = item.strip()
    return item[1:-1].strip() if len(item) > 1 and item[0] == item[-1] and item[0] in "\"'" else item
