"""Multi-step arithmetic word problems with worked, checkable answers.

A problem is a starting number and a chain of additions, subtractions and multiplications, told as a short story.
Its calculation (for instance `12+7-4`) decides by its SHA-256 digest to which split it belongs, whatever the seed
and the wording, so no calculation is ever shared by two splits.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, NamedTuple

from limbeck.core.errors import DataError

LARGEST_FACTOR = 5
ATTEMPTS_PER_PROBLEM = 200
# A calculation whose digest falls in bucket b (of 20) belongs to the split that owns b.
BUCKETS = 20
SPLITS = {"train": range(0, 16), "validation": range(16, 18), "test": range(18, 20)}

Step = tuple[str, int]  # an operator, one of "+-*", and its operand


class Theme(NamedTuple):
    """The wording of one kind of story; `{n}` stands for the number."""

    openings: tuple[str, ...]
    more: tuple[str, ...]
    fewer: tuple[str, ...]
    times: tuple[str, ...]
    actors: tuple[str, ...]
    things: tuple[str, ...]


THEMES = (
    Theme(
        openings=("{actor} has {n} {things}.",),
        more=("{actor} buys {n} more.", "{actor} finds {n} more."),
        fewer=("{actor} sells {n}.", "{actor} gives away {n}."),
        times=("Then {actor} has {n} times as many.",),
        actors=("Mia", "Tom", "Lena", "Omar", "Ines", "Paul", "Yuki", "Sara"),
        things=("apples", "cards", "coins", "shells"),
    ),
    Theme(
        openings=("A {actor} has {n} {things}.",),
        more=("It gains {n}.", "Spring brings {n} more."),
        fewer=("It loses {n}.", "A storm takes {n}."),
        times=("Soon it has {n} times as many.",),
        actors=("garden", "park", "field", "yard"),
        things=("roses", "tulips", "trees", "herbs"),
    ),
    Theme(
        openings=("A {actor} has {n} {things}.",),
        more=("It buys {n} more.", "It gets back {n}."),
        fewer=("It lends {n}.", "It loses {n}."),
        times=("Soon it has {n} times as many.",),
        actors=("library", "school", "club", "museum"),
        things=("books", "maps", "films", "games"),
    ),
    Theme(
        openings=("A {actor} carries {n} {things}.",),
        more=("It picks up {n} more.", "It takes on {n}."),
        fewer=("It sets down {n}.", "It drops off {n}."),
        times=("Soon it carries {n} times as many.",),
        actors=("bus", "train", "boat", "tram"),
        things=("people", "tourists", "pupils", "players"),
    ),
)


class _Source:
    """Draws that depend on the key alone.

    `random()` is the one method of `random.Random` whose sequence Python promises never to change.
    """

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big")).random

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, items: tuple[Any, ...]) -> Any:
        """One of `items`."""
        return items[int(self._random() * len(items))]


def apply(value: int, step: Step) -> int:
    """The value after one step."""
    operator, operand = step
    if operator == "+":
        return value + operand
    if operator == "-":
        return value - operand
    return value * operand


def canonical(start: int, steps: list[Step]) -> str:
    """The calculation as text, the same for every wording of it."""
    return str(start) + "".join(f"{operator}{operand}" for operator, operand in steps)


def split_of(calculation: str) -> str:
    """The split that owns a calculation."""
    bucket = int.from_bytes(hashlib.sha256(calculation.encode()).digest()[:8], "big") % BUCKETS
    return next(name for name, owned in SPLITS.items() if bucket in owned)


def _draw_step(source: _Source, value: int, maximum: int) -> Step:
    """Draw one step that keeps the value within 0..maximum."""
    operators = ""
    if value < maximum:
        operators += "+"
    if value > 0:
        operators += "-"
        if 2 * value <= maximum:
            operators += "*"
    operator = operators[source.between(0, len(operators) - 1)]
    if operator == "+":
        return operator, source.between(1, maximum - value)
    if operator == "-":
        return operator, source.between(1, value)
    return operator, source.between(2, min(LARGEST_FACTOR, maximum // value))


def _tell(source: _Source, start: int, steps: list[Step]) -> str:
    """A story that asks for the value of the calculation."""
    theme = source.pick(THEMES)
    words = {"actor": source.pick(theme.actors), "things": source.pick(theme.things)}
    phrases = {"+": theme.more, "-": theme.fewer, "*": theme.times}
    sentences = [source.pick(theme.openings).format(n=start, **words)]
    for operator, operand in steps:
        sentences.append(source.pick(phrases[operator]).format(n=operand, **words))
    sentences.append(f"How many {words['things']} now?")
    return " ".join(sentences)


def worked(start: int, steps: list[Step]) -> tuple[str, int]:
    """The worked answer and its result."""
    lines, value = [], start
    for step in steps:
        after = apply(value, step)
        lines.append(f"{value}{step[0]}{step[1]}={after}.")
        value = after
    return f"{' '.join(lines)} #### {value}", value


def problems(
    split: str, count: int, *, seed: int, min_steps: int, max_steps: int, maximum: int
) -> list[dict[str, Any]]:
    """`count` distinct problems of a split; fewer of them are the beginning of more.

    Args:
        split: train, validation or test. A calculation belongs to exactly one.
        count: how many.
        seed: draws numbers and wording.
        min_steps: fewest operations.
        max_steps: most operations.
        maximum: no number, given or computed, is above it; none is below zero.

    Returns:
        Rows of `prompt`, `answer` (worked, the result behind "#### "), `steps` and `result`.

    Raises:
        DataError: there are not so many distinct problems.
    """
    source = _Source("limbeck arithmetic", seed, split, min_steps, max_steps, maximum)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    idle = 0
    while len(rows) < count:
        start, steps = _draw(source, min_steps, max_steps, maximum)
        calculation = canonical(start, steps)
        if calculation in seen or split_of(calculation) != split:
            idle += 1
            if idle > ATTEMPTS_PER_PROBLEM * BUCKETS:
                raise DataError(
                    f"there are too few distinct arithmetic problems for the {split} split",
                    got=f"{len(rows)} of {count}, with {min_steps} to {max_steps} steps and numbers up to {maximum}",
                    fix="ask for fewer, for more steps, or for larger numbers",
                )
            continue
        idle = 0
        seen.add(calculation)
        answer, result = worked(start, steps)
        rows.append({"prompt": _tell(source, start, steps), "answer": answer, "steps": len(steps), "result": result})
    return rows


def _draw(source: _Source, min_steps: int, max_steps: int, maximum: int) -> tuple[int, list[Step]]:
    """A start and steps, every result within 0..maximum."""
    start = value = source.between(2, maximum)
    steps: list[Step] = []
    for _ in range(source.between(min_steps, max_steps)):
        steps.append(_draw_step(source, value, maximum))
        value = apply(value, steps[-1])
    return start, steps
