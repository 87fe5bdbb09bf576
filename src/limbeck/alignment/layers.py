"""Which layers of two models are compared: from patterns in a recipe to pairs of names.

    "encoder.layer.{0..2}": "encoder.layer.{1,3,...,5}"   ->  0 with 1, 1 with 3, 2 with 5
    "encoder.layer.*": "encoder.layer.*"                  ->  one with one, in the models' order

A path may leave out its beginning, so that `encoder.layer.0` is found as `bert.encoder.layer.0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product

from torch import nn

from limbeck.core.errors import ModelError, RecipeError
from limbeck.models.taps import Tap, unknown_layer

_BRACES = re.compile(r"\{([^{}]*)\}")
_SPAN = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")


def expand(pattern: str) -> list[str]:
    """A pattern with its braces written out, in order.

    `{0..3}` counts, `{0..6..2}` counts by two, `{1,4,7}` lists, `{1,3,...,11}` goes on as it began.

    Raises:
        RecipeError: the braces cannot be read.
    """
    choices = [_choices(found[1], pattern) for found in _BRACES.finditer(pattern)]
    frame = _BRACES.sub("{}", pattern)
    if frame.count("{") != len(choices) or frame.count("}") != len(choices):
        raise RecipeError("the braces of a path do not close", got=pattern, allowed=_FORMS)
    return [frame.format(*each) for each in product(*choices)]


_FORMS = "{0..5}, {0..10..2}, {1,4,7} or {1,3,...,11}"


def _choices(body: str, pattern: str) -> list[str]:
    if found := _SPAN.fullmatch(body.strip()):
        first, last, by = int(found[1]), int(found[2]), int(found[3] or 1)
        if first <= last and by:
            return [str(n) for n in range(first, last + 1, by)]
    items = [item.strip() for item in body.split(",")]
    if "..." in items and items.index("...") == len(items) - 2 >= 2 and all(i.isdigit() for i in items if i != "..."):
        start, last = [int(i) for i in items[:-2]], int(items[-1])
        by = start[-1] - start[-2]
        if by > 0 and last > start[-1] and (last - start[-1]) % by == 0:
            return [str(n) for n in (*start, *range(start[-1] + by, last + 1, by))]
    elif all(re.fullmatch(r"\w+", item) for item in items):
        return items
    raise RecipeError("the braces of a path cannot be read", got=pattern, allowed=_FORMS)


def find_layers(model: nn.Module, pattern: str) -> list[str]:
    """Full names of the modules that a pattern means, in its order, each with the pattern's place (`:input`).

    Raises:
        ModelError: there is no such module, or several; the message says what there is.
        RecipeError: the pattern cannot be read.
    """
    names = [name for name, _ in model.named_modules()]
    module, colon, place = pattern.partition(":")
    Tap.parse(f"x{colon}{place}")
    return [f"{name}{colon}{place}" for path in expand(module) for name in _find(path, names, type(model).__name__)]


def _find(path: str, names: Sequence[str], model: str) -> list[str]:
    if path in names:
        return [path]
    form = re.compile(r"(?P<before>.*\.)?" + re.escape(path).replace(r"\*", r"[^.]+"))
    found = [(name, hit["before"] or "") for name in names if (hit := form.fullmatch(name))]
    if not found:
        raise unknown_layer(path, names, model)
    # A path that begins in the middle may be found at several depths; then the user has to say more.
    places = {before for _, before in found}
    if len(places) > 1:
        raise ModelError(
            f"'{path}' may be several layers of {model}",
            got=", ".join(name for name, _ in found[:6]),
            fix="write more of the name's beginning",
        )
    return [name for name, _ in found]


def match_layers(
    student: nn.Module, teacher: nn.Module | None, patterns: Iterable[tuple[str, str | None]]
) -> list[tuple[str, str | None]]:
    """Pairs of full names, student's and teacher's, from pairs of patterns.

    Args:
        student: the model that learns.
        teacher: the model that is learned from; may be None where no pattern names a layer of it.
        patterns: the student's pattern and the teacher's, or None where a term reads the student alone.

    Raises:
        ModelError: a layer is not there.
        RecipeError: a pattern gives more layers of one model than of the other, or a pair occurs twice.
    """
    pairs: list[tuple[str, str | None]] = []
    for mine, theirs in patterns:
        left = find_layers(student, mine)
        if theirs is None:
            pairs += [(name, None) for name in left]
            continue
        assert teacher is not None
        right = find_layers(teacher, theirs)
        if len(left) != len(right):
            raise RecipeError(
                "student and teacher are matched with different numbers of layers",
                got=f"{mine} is {len(left)}: {', '.join(left)}; {theirs} is {len(right)}: {', '.join(right)}",
                fix="give as many of one as of the other",
            )
        pairs += zip(left, right, strict=True)
    if repeated := [pair for pair in pairs if pairs.count(pair) > 1]:
        raise RecipeError("a pair of layers is matched twice", got=" with ".join(map(str, repeated[0])))
    return pairs
