"""All models asked one question, one after the other, and what their answers have in common."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limbeck.core.errors import LimbeckError
from limbeck.core.progress import console
from limbeck.live.models import Answer, Asked, final
from limbeck.live.server import plainly
from limbeck.report.blocks import Pair
from limbeck.report.examples import side_by_side
from limbeck.tasks.causal_lm import CausalLM

if TYPE_CHECKING:
    from limbeck.live.question import Question
    from limbeck.tasks import Task

TEACHER, STUDENT = "teacher", "student"
_COMPARED = 4_000
"""Characters of an answer whose steps are laid side by side."""


@dataclass(frozen=True)
class Part:
    """A model is at work.

    Attributes:
        asked: the model.
        text: what it has written so far.
    """

    asked: Asked
    text: str = ""


@dataclass(frozen=True)
class Answered:
    """A model has said what it has to say.

    Attributes:
        asked: the model.
        answer: what it said; None where it could not.
        error: why it could not; None: nobody can know but who reads the terminal.
        right: whether that is what the test row says; None where nobody knows.
    """

    asked: Asked
    answer: Answer | None = None
    error: str | None = None
    right: bool | None = None


@dataclass(frozen=True)
class Compared:
    """The answers together.

    Attributes:
        first: the model that the others are compared with.
        same: by model, whether its answer is that one's.
        pairs: steps of teacher and student side by side, what differs marked.
    """

    first: str
    same: Mapping[str, bool]
    pairs: Sequence[Pair] = ()


Event = Part | Answered | Compared


def ask_all(
    models: Sequence[Asked],
    question: Question,
    task: Task,
    tell: Callable[[Event], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Ask models in turn; one that fails leaves the others their turn.

    Args:
        models: who is asked; those that cost something only if the question says so.
        question: what they are asked.
        task: grades answers to test rows.
        tell: takes what happens, as it happens.
        stopped: whether nobody waits any more; then what is being written ends.
    """
    answers: list[Answer] = []
    for asked in models:
        if stopped():
            return
        if asked.paid and not question.paid:
            continue
        tell(Part(asked))
        done = _answered(asked, question, task, tell, stopped)
        if done.answer is not None:
            answers.append(done.answer)
        tell(done)
    if (found := compare(answers, question.text)) is not None:
        tell(found)


def _answered(
    asked: Asked, question: Question, task: Task, tell: Callable[[Event], None], stopped: Callable[[], bool]
) -> Answered:
    def hear(text: str) -> bool:
        tell(Part(asked, text))
        return stopped()

    try:
        answer = asked.answer(question.sample, question.plan, hear)
    except LimbeckError as error:
        return Answered(asked, error=plainly(error))
    except Exception:  # libraries raise all kinds of things; the page goes on
        console().print(traceback.format_exc(), markup=False)
        return Answered(asked)
    return Answered(asked, answer, right=_right(answer, question, task))


def _right(answer: Answer, question: Question, task: Task) -> bool | None:
    """Whether an answer is the test row's; None where the row has none that can be compared."""
    target = question.target
    if target is not None and isinstance(task, CausalLM):
        target = final(task, target)
    return None if target is None else answer.prediction == target


def compare(answers: Sequence[Answer], asked: str = "") -> Compared | None:
    """What several answers have in common; None where there is nothing to compare.

    Args:
        answers: of different models, to one question.
        asked: the question, where it is a text whose answers have steps.
    """
    if len(answers) < 2:
        return None
    first, *rest = answers
    same = {each.model: _gist(each) == _gist(first) for each in rest}
    texts = {each.model: each.text for each in answers if each.text is not None}
    pairs: Sequence[Pair] = ()
    if {TEACHER, STUDENT} <= texts.keys():
        pairs = side_by_side(texts[TEACHER][:_COMPARED], texts[STUDENT][:_COMPARED], asked)
    return Compared(first.model, same, pairs)


def _gist(answer: Answer) -> str:
    """What two answers are compared by: the class or the final answer, or a text as it stands."""
    return answer.prediction if answer.prediction is not None else " ".join((answer.text or "").split())
