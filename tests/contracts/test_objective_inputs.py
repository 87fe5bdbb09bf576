"""The contract of every distribution term: what it may not depend on. Masked rows, chunks, batches, vocabularies.

Shapes: B batch, T positions, D hidden width, V classes of the student, U of the teacher.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.types import Blend, Dense, Head, TopK
from limbeck.objectives import distribution_loss
from tests.contracts.cases import (
    LABELS,
    NAMES,
    READS_LABELS,
    TERMS,
    B,
    T,
    V,
    both_kinds,
    case,
    close,
    every_divergence,
    every_term,
    every_variant,
    gradients,
    run,
)
from tests.contracts.oracles import naive


@every_term
@both_kinds
@pytest.mark.parametrize("garbage", [1e4, -3e30])
def test_masked_rows_do_nothing(term: Any, kind: str, garbage: float) -> None:
    given = case(torch.float32)
    loss = run(term, given.student(kind), given.teacher("head"))
    wanted = gradients(loss, given.leaves())
    masked = LABELS == -100
    spoilt = replace(
        given,
        hidden=given.hidden.detach().masked_fill(masked[..., None], garbage).requires_grad_(),
        teacher_hidden=given.teacher_hidden.masked_fill(masked[..., None], -garbage),
    )
    again = run(term, spoilt.student("head"), spoilt.teacher("head"))
    close(again, loss)
    found = gradients(again, spoilt.leaves())
    close(found, wanted)
    assert (found[0][masked] == 0).all()
    assert (wanted[0][masked] == 0).all()


@every_term
def test_chunk_size_changes_nothing(term: Any) -> None:
    given, found = case(torch.float32), []
    for rows in (1, 3, 1000):
        loss = run(term, given.student("head"), given.teacher("head"), chunk_bytes=4 * V * rows)
        found.append((loss, gradients(loss, given.leaves())))
    for loss, slopes in found[1:]:
        close(loss, found[0][0])
        close(slopes, found[0][1])


@every_term
@both_kinds
def test_batches_add_up(term: Any, kind: str) -> None:
    given = case()
    whole = run(term, given.student(kind), given.teacher(kind))
    parts = torch.zeros((), dtype=torch.float64)
    for row in range(B):
        one = replace(given, hidden=given.hidden[row : row + 1], teacher_hidden=given.teacher_hidden[row : row + 1])
        parts = parts + run(term, one.student(kind), one.teacher(kind), LABELS[row : row + 1])
    close(parts, whole)
    close(gradients(parts, given.leaves()), gradients(whole, given.leaves()))


@both_kinds
def test_one_pass_equals_separate_passes(kind: str) -> None:
    given = case()
    weights = [0.3 + 0.2 * i for i in range(len(TERMS))]
    total, sums = distribution_loss(given.student(kind), given.teacher("head"), LABELS, TERMS, weights)
    alone = [run(term, given.student(kind), given.teacher("head")) for term in TERMS]
    close(total, sum(w * value for w, value in zip(weights, alone, strict=True)))
    assert list(sums) == [term.label for term in TERMS]
    close(list(sums.values()), [value.detach() for value in alone])
    apart = sum(w * value for w, value in zip(weights, alone, strict=True))
    close(gradients(total, given.leaves()), gradients(apart, given.leaves()))


@every_term
@both_kinds
def test_no_valid_row(term: Any, kind: str) -> None:
    given = case(torch.float32)
    labels = torch.full_like(LABELS, -100)
    total, sums = distribution_loss(given.student(kind), given.teacher(kind), labels, [term], [1.0])
    assert total == 0
    assert sums == {term.label: 0}
    assert all((g == 0).all() for g in gradients(total, given.leaves()))


@every_term
@both_kinds
@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [0, 2, 3, 6], [1]], ids=["prefix", "scattered", "one"])
def test_shared_vocabulary(term: Any, kind: str, ids: list[int]) -> None:
    """Different sizes: the teacher has two rows more; both are cut to the shared ones and renormalised."""
    given, shared = case(), torch.tensor(ids)
    labels = torch.where(LABELS == -100, LABELS, shared[LABELS % len(ids)])
    more = torch.randn(V + 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    told = given.teacher_hidden @ more.T
    for teacher in (Head(given.teacher_hidden, more), Dense(told)):
        loss = run(term, given.student(kind), teacher, labels, shared=shared, chunk_bytes=4 * V * 2)
        wanted = naive(term, given.logits(), told, labels, shared=shared)
        close(loss, wanted)
        close(gradients(loss, given.leaves()), gradients(wanted, given.leaves()))


@every_term
def test_a_label_that_the_teacher_lacks(term: Any) -> None:
    """Terms that compare the teacher with the true class refuse it; the others do not care."""
    given, shared = case(), torch.tensor([0, 1, 2, 5])  # 6 is a label, too
    if term.type() in READS_LABELS:
        with pytest.raises(ModelError, match="true class is not among"):
            run(term, given.student("head"), given.teacher("head"), shared=shared)
    else:
        close(
            run(term, given.student("head"), given.teacher("head"), shared=shared),
            naive(term, given.logits(), given.told(), LABELS, shared=shared),
        )


@every_term
def test_frozen_head(term: Any) -> None:
    given = case()
    wanted = gradients(run(term, given.student("head"), given.teacher("head")), [given.hidden])[0]
    frozen = replace(given, weight=given.weight.detach(), bias=given.bias.detach())
    run(term, frozen.student("head"), given.teacher("head")).backward()
    close(given.hidden.grad, wanted)
    assert given.weight.grad is None
    assert given.bias.grad is None


@every_term
def test_frozen_body(term: Any) -> None:
    given = case()
    wanted = gradients(run(term, given.student("head"), given.teacher("head")), [given.weight])[0]
    run(term, replace(given, hidden=given.hidden.detach()).student("head"), given.teacher("head")).backward()
    close(given.weight.grad, wanted)
    assert given.hidden.grad is None


@every_term
def test_tied_embedding(term: Any) -> None:
    """The head's matrix is the embedding too: both shares of its gradient arrive."""
    given, ids = case(), torch.arange(B * T).reshape(B, T) % V
    hidden = torch.tanh(given.weight[ids])
    loss = run(term, Head(hidden, given.weight), given.teacher("head"))
    found = torch.autograd.grad(loss, given.weight, retain_graph=True)
    wanted = naive(term, hidden @ given.weight.T, given.told(), LABELS)
    close(found, torch.autograd.grad(wanted, given.weight))


@every_term
@both_kinds
def test_without_gradients_the_value_is_the_same(term: Any, kind: str) -> None:
    given = case(torch.float32)
    loss = run(term, given.student(kind), given.teacher("head"), chunk_bytes=4 * V * 2)
    with torch.no_grad():
        total, sums = distribution_loss(
            given.student(kind), given.teacher("head"), LABELS, [term], [1.0], chunk_bytes=4 * V * 2
        )
    assert not total.requires_grad
    close(total, loss.detach(), rtol=0, atol=0)
    close(sums[term.label], loss.detach(), rtol=0, atol=0)


@every_term
def test_one_class_labels(term: Any) -> None:
    """Classifiers: logits [B, V] and labels [B]."""
    given, labels = case(), torch.tensor([3, -100])
    mine, told = given.logits()[:, 0], given.told()[:, 0]
    close(run(term, Dense(mine), Dense(told), labels), naive(term, mine, told, labels))


@every_term
@both_kinds
def test_blended_samples(term: Any, kind: str) -> None:
    """Two labels a row, each with its share: with itself nothing changes, and the order does not matter."""
    given, labels, share = case(), torch.tensor([0, 6]), torch.tensor([0.5, 0.25])
    mine, told = given.student(kind), given.teacher("head")
    mine = replace(mine, hidden=mine.hidden[:, 0]) if kind == "head" else Dense(mine.logits[:, 0])
    told = replace(told, hidden=told.hidden[:, 0])
    if term.type() == "dkd":
        with pytest.raises(RecipeError, match="one true class"):
            run(term, mine, told, labels, blend=Blend(labels, share))
        return
    close(run(term, mine, told, labels, blend=Blend(labels, share)), run(term, mine, told, labels))
    other = torch.tensor([2, 3])
    there = run(term, mine, told, labels, blend=Blend(other, share))
    back = run(term, mine, told, other, blend=Blend(labels, 1 - share))
    close(there, back)
    if term.type() == "mixed_target":
        both = (labels, 1 - share), (other, share)
        apart = sum(run(term, mine, told, y, row_weights=w) for y, w in both)
        found, wanted = (torch.autograd.grad(each, given.leaves(), retain_graph=True) for each in (there, apart))
        close(found, wanted)
    if term.type() == "weighted_kl":
        close(there, weighted_by_losses(given.logits()[:, 0], given.told()[:, 0], labels, other, share.double()))
    reads = term.type() in {*READS_LABELS, "cross_entropy"}
    assert (abs(there - run(term, mine, told, labels)) > 1e-3) == reads


def weighted_by_losses(mine: Tensor, told: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """`weighted_kl` at T = 1: the loss of each model is that of both labels, by their shares."""
    assert TERMS[NAMES.index("weighted_kl")].temperature.value == 1
    total = torch.zeros((), dtype=torch.float64)
    for q, p, a, b, s in zip(mine.softmax(1), told.softmax(1), first, second, share, strict=True):
        losses = [-(1 - s) * each[a].log() - s * each[b].log() for each in (q.detach(), p)]
        total = total + (1 - torch.exp(-losses[0] / (losses[1] + 1e-7))) * (p * (p.log() - q.log())).sum()
    return total


LIMITS = {"kl", "reverse_kl", "jensen_shannon", "skew_kl", "skew_reverse_kl", "total_variation", "dkd", "adaptive_kl"}
"""Terms to which a class that both models rule out is as good as none."""


@every_divergence
@both_kinds
@pytest.mark.parametrize("told_by", ["head", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("both", [False, True], ids=["teacher", "both"])
def test_a_class_that_is_masked_out(term: Any, kind: str, told_by: str, dtype: torch.dtype, both: bool) -> None:
    """A logit of -inf, as padded rows of a head may have, is a class of no probability; nothing is undefined."""
    given, out, left = case(dtype), 3, torch.tensor([0, 1, 2, 4, 5, 6])
    mask = torch.zeros(V, dtype=dtype)
    mask[out] = -torch.inf
    hidden, weight, bias = given.hidden, given.weight, given.bias + (mask if both else 0)
    mine = Head(hidden, weight, bias) if kind == "head" else Dense(hidden @ weight.T + bias)
    told = given.told() + mask
    teacher = Dense(told) if told_by == "dense" else Head(given.teacher_hidden, given.teacher_weight, mask)
    loss = run(term, mine, teacher)
    slopes = gradients(loss, given.leaves())
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each).all() for each in slopes)
    assert told[..., out].max() == -torch.inf, "the caller's logits are left as they are"
    wanted = None
    if both and term.type() in LIMITS:
        wanted = run(term, given.student(kind), Dense(given.told()), shared=left)
    elif term.type() == "kl":  # 0 log 0 = 0: the teacher asks nothing of the class but that it be unlikely
        p, q = (z[LABELS != -100].log_softmax(-1) for z in (given.told()[..., left], given.logits()))
        wanted = (p.exp() * (p - q[:, left])).sum()
    if wanted is not None:
        close(loss, wanted, rtol=1e-4, atol=1e-5)
        close(slopes, gradients(wanted, given.leaves()), rtol=1e-4, atol=1e-5)


@every_variant
@both_kinds
def test_a_teacher_of_likeliest_classes(term: Any, kind: str) -> None:
    """All of them recorded: the same as the teacher itself. Terms that read every class refuse such a teacher."""
    given = case()
    logprobs, ids = given.told().log_softmax(-1).topk(V)
    recorded = TopK(ids, logprobs, torch.full_like(logprobs[..., 0], -torch.inf))
    if term.asks_teacher and term.needs_all_classes:
        with pytest.raises(RecipeError, match="reads every class"):
            run(term, given.student(kind), recorded)
        return
    loss, wanted = (run(term, given.student(kind), teacher) for teacher in (recorded, given.teacher("dense")))
    close(loss, wanted)
    close(gradients(loss, given.leaves()), gradients(wanted, given.leaves()))


@every_variant
@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_models_that_know_nothing(term: Any, kind: str, dtype: torch.dtype) -> None:
    """A head of zeros, as new heads may have: no class is likelier than another, and nothing is undefined."""
    given = case(dtype)
    hidden, weight = given.hidden, torch.zeros_like(given.weight).requires_grad_()
    mine = Head(hidden, weight) if kind == "head" else Dense(hidden @ weight.T)
    for told in (given.teacher("head"), Dense(torch.zeros(B, T, V, dtype=dtype))):
        loss = run(term, mine, told)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, weight, retain_graph=True)[0]).all()
