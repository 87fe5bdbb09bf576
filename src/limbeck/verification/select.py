"""From all answers to those that the student learns from: `review` is what the pipeline calls.

    filters on each answer -> verifier -> vote -> filters that compare answers -> so many of each prompt

Nothing disappears: every answer is either kept or dropped with a reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from limbeck.core.errors import RecipeError
from limbeck.verification.grams import grams, likeness, units
from limbeck.verification.types import Ask, Candidate, Checker, Filter, Held, Sieve, Verdict, Verifier

Preference = Literal["shortest", "diverse", "first"]


class Choice(Protocol):
    """How many answers of each prompt are kept, and which (a recipe's `keep`)."""

    @property
    def most(self) -> int:
        """No more answers than these."""

    @property
    def prefer(self) -> str:
        """`shortest`, `diverse` or `first`."""


@dataclass(frozen=True)
class Keep:
    """How many answers of each prompt are kept, and which.

    Attributes:
        most: no more than these.
        prefer: `shortest`, by characters of thought and answer; `diverse`, the shortest and then, each time, the one
            least like those kept; `first`, in the order of the samples.
    """

    most: int
    prefer: Preference = "first"


@dataclass(frozen=True)
class Facts:
    """What is known of a prompt.

    Attributes:
        answers: how many there were.
        right: how many of them passed the filters and were right (without a verifier: passed the filters).
        kept: how many are kept.
        pass_rate: right / answers; an answer that was cut off or filtered out did not pass. None without a verifier.
        voted: the final answer that most agree on, None without a vote or if no answer leads.
        share: the voted answer's share of all the prompt's answers.
    """

    answers: int
    right: int
    kept: int
    pass_rate: float | None = None
    voted: str | None = None
    share: float | None = None


class Dropped(NamedTuple):
    """An answer that the student does not see, and why."""

    candidate: Candidate
    reason: str


class Reviewed(NamedTuple):
    """What became of all answers.

    Attributes:
        kept: in their order; `meta["final_answer"]` is what the verifier read, where it did.
        dropped: the others, each with a reason, by which they are counted.
        facts: of each prompt.
    """

    kept: list[Candidate]
    dropped: list[Dropped]
    facts: dict[str, Facts]

    @property
    def counts(self) -> dict[str, int]:
        """Dropped answers by reason, most frequent first."""
        return dict(Counter(reason for _, reason in self.dropped).most_common())


class Vote(NamedTuple):
    """The final answer that most agree on; None if two lead, or there is none. `share` is of all its answers,
    those that come to nothing or were filtered out among them."""

    answer: str | None
    share: float


def review(
    candidates: Iterable[Candidate],
    verifier: Verifier | None = None,
    filters: Sequence[Filter] = (),
    keep: Choice | None = None,
    vote: bool | float = False,
    against: Sequence[Held] = (),
    ask: Ask | None = None,
) -> Reviewed:
    """Judge all answers and choose those to learn from.

    Args:
        candidates: all answers to all prompts, in any order.
        verifier: says which are right; None: all that pass the filters are.
        filters: say which are not worth learning from; those that compare answers see only right ones.
        keep: how many of each prompt, and which; None keeps all that are right.
        vote: answers to prompts without a reference are right if they are what most of them say (self-consistency). A
            number is the least share that the voted answer must have.
        against: rows of the evaluation sets.
        ask: asks the model that judges, for a verifier that needs one.

    Returns:
        Kept and dropped answers, and what is known of each prompt.

    Raises:
        RecipeError: a verifier lacks its model, or a vote its verifier.
        DataError: a reference is missing or cannot be read.
    """
    given = list(candidates)
    if vote is not False and verifier is None:
        raise RecipeError("a vote needs a verifier that reads final answers", fix="add `verify: {type: math_answer}`")
    dropped: list[Dropped] = []
    left = _sieve(given, [each.against(against) for each in filters if not each.compares], dropped)
    votes: dict[str, Vote] = {}
    if verifier is not None:
        checker = _checker(verifier, ask)
        votes = majority(left, checker, Counter(each.prompt for each in given)) if vote is not False else {}
        left = _verified(left, checker, votes, _share(vote), dropped)
    right = Counter(each.prompt for each in left)
    left = _sieve(left, [each.against(against) for each in filters if each.compares], dropped)
    if keep is not None:
        left = _chosen(left, keep, dropped)
    kept = Counter(each.prompt for each in left)
    facts = {}
    for prompt, answers in Counter(each.prompt for each in given).items():
        rate = None if verifier is None else right[prompt] / answers
        voted = votes.get(prompt, Vote(None, 0.0))
        share = voted.share if prompt in votes else None
        facts[prompt] = Facts(answers, right[prompt], kept[prompt], rate, voted.answer, share)
    return Reviewed(left, dropped, facts)


def majority(candidates: Iterable[Candidate], checker: Checker, asked: Mapping[str, int]) -> dict[str, Vote]:
    """Self-consistency: of each prompt the final answer that most of its answers come to.

    Args:
        candidates: answers to any prompts.
        checker: reads final answers.
        asked: how many answers each prompt has in all.

    Returns:
        By prompt; prompts whose answers come to nothing have a vote without an answer.

    Reference:
        Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, 2022, arXiv:2203.11171.
    """
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for each in candidates:
        final = checker.final(each)
        found[each.prompt].update([] if final is None else [final])
    return {prompt: leader(counts, asked[prompt]) for prompt, counts in found.items()}


def leader(counts: Counter[str], total: int) -> Vote:
    """The final answer that is there most often, of `total` answers in all; None where two lead."""
    first = counts.most_common(2)
    if not first:
        return Vote(None, 0.0)
    tied = len(first) == 2 and first[0][1] == first[1][1]
    return Vote(None if tied else first[0][0], first[0][1] / total)


def _share(vote: bool | float) -> float:
    share = 0.0 if isinstance(vote, bool) else float(vote)
    if not 0 <= share <= 1:
        raise RecipeError("the least share of a vote is no share", got=vote, allowed="true, false, or 0 to 1")
    return share


def _checker(verifier: Verifier, ask: Ask | None) -> Checker:
    if not verifier.asks_model:
        return verifier
    if ask is None:
        raise RecipeError(f"the verifier '{verifier.type()}' needs a model to ask")
    return verifier.asking(ask)


def _sieve(candidates: Iterable[Candidate], sieves: Iterable[Sieve], dropped: list[Dropped]) -> list[Candidate]:
    left = list(candidates)
    for sieve in sieves:
        stays = []
        for each, reason in sieve.judge(left):
            if reason is None:
                stays.append(each)
            else:
                dropped.append(Dropped(each, reason))
        left = stays
    return left


def _verified(
    candidates: Sequence[Candidate],
    checker: Checker,
    votes: Mapping[str, Vote],
    share: float,
    dropped: list[Dropped],
) -> list[Candidate]:
    """Those that are right: by their reference, or where a prompt has none, by the vote."""
    by_vote = [bool(votes) and each.reference is None for each in candidates]
    judged = iter(checker.verify([each for each, voted in zip(candidates, by_vote, strict=True) if not voted]))
    right = []
    for each, voted in zip(candidates, by_vote, strict=True):
        verdict = _voted(checker.final(each), votes[each.prompt], share) if voted else next(judged)
        if verdict.found is not None:
            # Half a surrogate pair, which JSON and programs can spell, fits into no file.
            found = verdict.found.encode(errors="backslashreplace").decode()
            each = replace(each, meta={**each.meta, "final_answer": found})
        if verdict.ok:
            right.append(each)
        else:
            dropped.append(Dropped(each, verdict.reason))
    return right


def _voted(final: str | None, vote: Vote, share: float) -> Verdict:
    if final is None:
        return Verdict(False, "no_answer")
    if vote.answer is None:
        return Verdict(False, "vote_tied", final)
    if vote.share < share:
        return Verdict(False, "vote_too_close", final)
    return Verdict(final == vote.answer, "right" if final == vote.answer else "outvoted", final)


def _chosen(candidates: Sequence[Candidate], keep: Choice, dropped: list[Dropped]) -> list[Candidate]:
    """So many of each prompt; the others are dropped as `surplus`."""
    rivals: dict[str, list[int]] = defaultdict(list)
    for i, each in enumerate(candidates):
        rivals[each.prompt].append(i)
    chosen = {i for group in rivals.values() for i in _of_prompt(candidates, group, keep)}
    dropped.extend(Dropped(each, "surplus") for i, each in enumerate(candidates) if i not in chosen)
    return [each for i, each in enumerate(candidates) if i in chosen]


def _of_prompt(candidates: Sequence[Candidate], group: list[int], keep: Choice) -> list[int]:
    if len(group) <= keep.most or keep.prefer == "first":
        return group[: keep.most]
    by_length = sorted(group, key=lambda i: (len(candidates[i].text), i))
    if keep.prefer == "shortest":
        return by_length[: keep.most]
    found = {i: grams(units(candidates[i].text), 3) for i in by_length}
    taken = by_length[:1]
    nearest = {i: likeness(found[i], found[taken[0]]) for i in by_length[1:]}
    while len(taken) < keep.most:
        taken.append(min(nearest, key=lambda i: nearest[i]))
        del nearest[taken[-1]]
        nearest = {i: max(value, likeness(found[i], found[taken[-1]])) for i, value in nearest.items()}
    return taken
