"""Rows where student and teacher differ: their steps side by side, and what only one of them says marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from limbeck.data.steps import steps_of
from limbeck.report import formats
from limbeck.report.blocks import Cell, Example, Examples, Line, Pair, Piece, Table, Token, Tokens
from limbeck.report.facts import Facts, finite
from limbeck.report.text import shortened

SHOWN = 10
"""Examples, and answers told token by token, that a page has at most."""

_LONGEST = 4_000
_IN_A_TABLE = 400
_PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]{1,40000}={0,2}")
_STEPS = 40
_TOKENS = 400
_PIECE = re.compile(r"\s+|[\u3400-\u9fff\uf900-\ufaff]|\w+|.", re.DOTALL)
_TONES = {"lost": "worse", "gained": "better"}
_DEGREES = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Nats of divergence from which on a token is shaded one degree deeper."""


def examples(facts: Facts) -> Examples:
    """Of at most ten rows where the answers differ, those whose answers were worked out."""
    told = [each for each in _shown(facts) if _worked(each)]
    return Examples(facts.say("example.key"), tuple(_example(facts, each) for each in told))


def example_rows(facts: Facts) -> Table:
    """Of at most ten rows where the answers differ, those that were answered by a class alone: a line each."""
    say, lines = facts.say, []
    for each in _shown(facts):
        if _worked(each):
            continue
        kind, sides = str(each.get("kind") or "other"), [each.get(name) or {} for name in ("teacher", "student")]
        told = [Cell(_answer(side, facts)) for side in sides]
        told[1] = Cell(told[1].text, tone=_TONES.get(kind, ""))
        head = say.either(f"example.short.{kind}", kind)
        lines.append(Line(head, (*_asked(each, facts), *told)))
    columns = (say("column.what_happened"), say("example.input"), say("example.target"))
    models = (say("model.teacher"), say("model.student"))
    return Table(say("example.rows"), (*columns, *models), tuple(lines), words={1, 2, 3, 4})


def differing(facts: Facts) -> Table:
    """Rows that some of the compared students get right and others do not."""
    lines = []
    for each in (facts.details.get("differing") or [])[:SHOWN]:
        said = [each["answers"].get(student) or {} for student in facts.students]
        cells = [Cell(_answer(side, facts), tone="better" if side.get("correct") else "worse") for side in said]
        lines.append(Line(str(each["id"]), (*_asked({**each, "id": ""}, facts), *cells)))
    say = facts.say
    columns = (say("column.id"), say("example.input"), say("example.target"), *facts.students)
    return Table(say("caption.differing"), columns, tuple(lines), words=range(1, len(columns)))


def _shown(facts: Facts) -> list[Mapping[str, Any]]:
    return (facts.details.get("examples") or [])[:SHOWN]


def _worked(each: Mapping[str, Any]) -> bool:
    return all(isinstance((each.get(side) or {}).get("text"), str) for side in ("teacher", "student"))


def _asked(each: Mapping[str, Any], facts: Facts) -> tuple[Cell, Cell]:
    """What was given, a picture or a text, with the row's id, and the right answer."""
    picture = str(each.get("image") or "")
    given = "" if each.get("input") is None else _short(each["input"], facts, _IN_A_TABLE)
    image = picture if _PICTURE.fullmatch(picture) else ""
    target = "" if each.get("target") is None else _short(each["target"], facts, _IN_A_TABLE)
    return Cell(given, str(each.get("id") or ""), image=image), Cell(target)


def _example(facts: Facts, each: Mapping[str, Any]) -> Example:
    say, teacher, student = facts.say, each.get("teacher") or {}, each.get("student") or {}
    given = [
        (say(f"example.{name}"), _short(each[name], facts))
        for name in ("input", "target", "reference")
        if each.get(name) not in (None, "")
    ]
    sides = ("teacher", teacher), ("student", student)
    given += [(say(f"example.{name}"), _answer(side, facts)) for name, side in sides]
    question = str(each.get("input") or "")
    pairs = side_by_side(_short(teacher["text"], facts), _short(student["text"], facts), question)
    kind = str(each.get("kind") or "other")
    title = say.either(f"example.kind.{kind}", kind)
    caption = say("example.caption", id=each["id"])
    return Example(str(each["id"]), title, _TONES.get(kind, ""), tuple(given), tuple(pairs), caption)


def _answer(side: Mapping[str, Any], facts: Facts) -> str:
    """What was predicted, and how sure of it the model was."""
    told = facts.say("example.nothing") if side.get("prediction") in (None, "") else str(side["prediction"])
    if finite(side.get("confidence")):
        told += facts.say("example.confidence", value=formats.text(side["confidence"], formats.share))
    return told


def _short(text: object, facts: Facts, limit: int = _LONGEST) -> str:
    kept, left = shortened(str(text), limit)
    return kept + facts.say("example.cut", n=left) if left else kept


def side_by_side(teacher: str, student: str, question: str = "") -> list[Pair]:
    """Two worked answers in steps, like beside like, their differences marked.

    Args:
        teacher: its answer.
        student: its answer.
        question: what was asked.
    """
    ours, theirs = ([step.text for step in steps_of(text, question)] for text in (teacher, student))
    ours, theirs = (
        [*steps[: _STEPS - 1], "".join(steps[_STEPS - 1 :])] if len(steps) > _STEPS else steps
        for steps in (ours, theirs)
    )
    return [_marked(one, other) for one, other in _aligned(ours, theirs)]


def _aligned(ours: Sequence[str], theirs: Sequence[str]) -> list[tuple[str, str]]:
    """Steps in order, paired so that the words they share are the most; a step without a like stands alone."""
    words = [[Counter(re.findall(r"\w+", step.lower())) for step in steps] for steps in (ours, theirs)]
    best = [[0.0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    like = [[_likeness(a, b) for b in words[1]] for a in words[0]]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            best[i][j] = max(like[i][j] + best[i + 1][j + 1], best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(ours) or j < len(theirs):
        if i < len(ours) and j < len(theirs) and best[i][j] == like[i][j] + best[i + 1][j + 1]:
            pairs.append((ours[i], theirs[j]))
            i, j = i + 1, j + 1
        elif j == len(theirs) or (i < len(ours) and best[i][j] == best[i + 1][j]):
            pairs.append((ours[i], ""))
            i += 1
        else:
            pairs.append(("", theirs[j]))
            j += 1
    return pairs


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """Share of common words, and a little for standing side by side at all."""
    return 0.01 + 2 * (one & other).total() / max(1, one.total() + other.total())


def _marked(teacher: str, student: str) -> Pair:
    ours, theirs = _PIECE.findall(teacher.strip()), _PIECE.findall(student.strip())
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs).get_opcodes():
        one, other = "".join(ours[a:b]), "".join(theirs[c:d])
        left += [Piece(one, "" if kind == "equal" else "del")] if one else []
        right += [Piece(other, "" if kind == "equal" else "ins")] if other else []
    return Pair(tuple(left), tuple(right))


def divergence(facts: Facts) -> Tokens:
    """Answers told token by token, each shaded by how far the student is from the teacher there."""
    say, items = facts.say, []
    for each in (facts.details.get("divergence") or [])[:SHOWN]:
        pairs = zip(each["tokens"], each["kl"], strict=True)
        items.append((str(each["id"]), tuple(_token(str(text), kl) for text, kl in list(pairs)[:_TOKENS])))
    return Tokens(say("divergence.title"), say("divergence.key"), tuple(items))


def _token(text: str, kl: Any) -> Token:
    degree = sum(kl >= edge for edge in _DEGREES) if finite(kl) else 0
    return Token(text, formats.text(kl, formats.plain("nats")), degree)
