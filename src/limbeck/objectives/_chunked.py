"""The one pass that all distribution terms of a stage share.

hidden x head is multiplied a chunk of valid rows at a time; every term's formula is evaluated on that chunk,
and the gradients are taken at once, in the forward pass. Tokens x vocabulary is never held. This works because
the weights of the terms and the number of units are known before the forward pass, so that the gradient of the
total is final but for one common factor.

Shapes: N rows (valid positions), D and E hidden width of student and teacher, V vocabulary of the student,
U vocabulary of the teacher, S what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.core.types import IGNORE, Dense, Dist, Head
from limbeck.objectives._base import DistributionTerm

CHUNK_BYTES = 32 * 2**20
"""Size of one chunk's logits in float32; a pass holds a handful of such arrays, whatever the batch."""


@dataclass
class Chunk:
    """What the formulas see: a few rows of logits, and log-probabilities made once and shared.

    Attributes:
        logits_NV: the student's.
        labels_N: the true classes, all valid.
        teacher_NU: the teacher's logits; None where the stage has no teacher.
        shared: class ids that student and teacher have in common; None where they are the same.
    """

    logits_NV: Tensor
    labels_N: Tensor
    teacher_NU: Tensor | None = None
    shared: Tensor | None = None
    _made: dict[tuple[str, float], Tensor] = field(default_factory=dict)

    def log_probs(self) -> Tensor:
        """The student's log-probabilities over its whole vocabulary, [N, V]."""
        return self._once("all", 1.0, self.logits_NV)

    def student(self, temperature: float) -> Tensor:
        """The student's log-probabilities over the shared vocabulary at a temperature, [N, S]."""
        if self.shared is None:
            return self._once("all", temperature, self.logits_NV)
        return self._once("student", temperature, self.logits_NV)

    def teacher(self, temperature: float) -> Tensor:
        """The teacher's log-probabilities over the shared vocabulary at a temperature, [N, S]."""
        assert self.teacher_NU is not None, "a term that asks for a teacher got none"
        return self._once("teacher", temperature, self.teacher_NU)

    def _once(self, whose: str, temperature: float, logits: Tensor) -> Tensor:
        key = (whose, temperature)
        if key not in self._made:
            if self.shared is not None and whose != "all":
                logits = _columns(logits, self.shared)
            self._made[key] = torch.log_softmax(logits / temperature if temperature != 1 else logits, dim=-1)
        return self._made[key]


def distribution_loss(
    student: Dist,
    teacher: Dist | None,
    labels: Tensor,
    terms: Sequence[DistributionTerm],
    weights: Sequence[float],
    *,
    shared: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of terms over all valid rows, in one pass.

    Args:
        student: logits [..., V], or hidden states [..., D] and the head that makes them.
        teacher: the same of the teacher, for the same rows; gradients never reach it.
        labels: [...], `IGNORE` where nothing is learned.
        terms: formulas, each giving a value per row.
        weights: their weights now.
        shared: ids of the classes that both have, where the vocabularies differ [S].
        chunk_bytes: bound on one chunk of float32 logits.

    Returns:
        The total, a scalar that carries gradients to `student`, and each term's unweighted sum, detached.
    """
    keep = (labels != IGNORE).flatten()
    labels_N = labels.flatten()[keep]
    told = None if teacher is None else _rows(teacher, keep, detach=True)
    given = _rows(student, keep, detach=False)
    if isinstance(given, Dense):
        exact = _exact(given.logits)
        total, sums = _evaluate(terms, weights, Chunk(exact, labels_N, _logits(told, slice(None), exact.dtype), shared))
    else:
        vocabulary = max(len(given.weight), len(told.weight) if isinstance(told, Head) else 0)
        size = max(1, chunk_bytes // (4 * vocabulary))
        rows = _Rows(terms, weights, labels_N, told, shared, size)
        if torch.is_grad_enabled():
            total, sums = _FusedRows.apply(given.hidden, given.weight, given.bias, rows)
        else:
            total, sums = rows.sweep(given.hidden, given.weight, given.bias, None)
    return total, {term.label: value for term, value in zip(terms, sums.unbind(), strict=True)}


def _rows(dist: Dist, keep: Tensor, *, detach: bool) -> Dist:
    """The valid rows of a distribution, flattened to two dimensions."""
    if isinstance(dist, Dense):
        logits = dist.logits.flatten(0, -2)[keep]
        return Dense(logits.detach() if detach else logits)
    hidden = dist.hidden.flatten(0, -2)[keep]
    if not detach:
        return Head(hidden, dist.weight, dist.bias)
    return Head(hidden.detach(), dist.weight.detach(), None if dist.bias is None else dist.bias.detach())


def _exact(values: Tensor) -> Tensor:
    """At least float32: softmax over a vocabulary in half precision is wrong in the first digits."""
    return values if values.dtype == torch.float64 else values.float()


def _columns(logits: Tensor, ids: Tensor) -> Tensor:
    """Columns by id; a plain view where they are the first ones, as with padded vocabularies."""
    is_prefix = len(ids) == 0 or int(ids[-1]) == len(ids) - 1  # ids are sorted and distinct
    return logits[:, : len(ids)] if is_prefix else logits.index_select(1, ids)


def _logits(dist: Dist | None, rows: slice, exact: torch.dtype) -> Tensor | None:
    """The teacher's logits for a chunk, multiplied out now if they are still a head."""
    if dist is None:
        return None
    if isinstance(dist, Dense):
        return dist.logits[rows].to(exact)
    return torch.nn.functional.linear(dist.hidden[rows].to(dist.weight.dtype), dist.weight, dist.bias).to(exact)


def _evaluate(terms: Sequence[DistributionTerm], weights: Sequence[float], chunk: Chunk) -> tuple[Tensor, Tensor]:
    """The weighted total (with gradients) and each term's sum (without) of one chunk."""
    values = torch.stack([term.rows(chunk).sum() for term in terms])
    return (values * values.new_tensor(weights)).sum(), values.detach()


@dataclass
class _Rows:
    """All valid rows of a batch but for the student's hidden states, ready to be swept in chunks."""

    terms: Sequence[DistributionTerm]
    weights: Sequence[float]
    labels_N: Tensor
    teacher: Dist | None
    shared: Tensor | None
    size: int

    def sweep(
        self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, gradients: _Gradients | None
    ) -> tuple[Tensor, Tensor]:
        """Total and sums over all rows; adds to `gradients` if it is given."""
        exact = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        total = hidden_ND.new_zeros((), dtype=exact)
        sums = hidden_ND.new_zeros(len(self.terms), dtype=exact)
        device = hidden_ND.device.type
        # Autocast would pick another type for the products than for the logits of a plain forward pass.
        work = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
        with torch.autocast(device, enabled=False):
            head_VD = weight_VD.detach().to(work)
            bias = None if bias_V is None else bias_V.detach().to(work)
            for start in range(0, len(hidden_ND), self.size):
                rows = slice(start, start + self.size)
                part_ND = hidden_ND[rows].detach().to(work)
                with torch.set_grad_enabled(gradients is not None):
                    logits = torch.nn.functional.linear(part_ND, head_VD, bias).to(exact).detach()
                    logits.requires_grad_(gradients is not None)
                    told = _logits(self.teacher, rows, exact)
                    loss, values = _evaluate(
                        self.terms, self.weights, Chunk(logits, self.labels_N[rows], told, self.shared)
                    )
                    if gradients is not None:
                        (dlogits,) = torch.autograd.grad(loss, logits)
                        gradients.add(rows, dlogits, part_ND, head_VD)
                total += loss.detach()
                sums += values
        return total, sums


class _Gradients:
    """Accumulates the gradients of hidden states, head and bias over chunks, in at least float32."""

    block = 8192
    """Rows of the head's gradient made at a time in half precision, so that no second copy of it is held."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: Sequence[bool]):
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.hidden = torch.empty_like(hidden) if needed[0] else None
        self.weight = torch.zeros_like(weight, dtype=exact) if needed[1] else None
        self.bias = torch.zeros_like(bias, dtype=exact) if bias is not None and needed[2] else None

    def add(self, rows: slice, dlogits_NV: Tensor, part_ND: Tensor, head_VD: Tensor) -> None:
        """Add one chunk's share; `part_ND` and `head_VD` are in the type that the products were taken in."""
        if self.bias is not None:
            self.bias += dlogits_NV.sum(0)
        dlogits_NV = dlogits_NV.to(part_ND.dtype)
        if self.hidden is not None:
            self.hidden[rows] = (dlogits_NV @ head_VD).to(self.hidden.dtype)
        if self.weight is None:
            return
        if self.weight.dtype == part_ND.dtype:
            self.weight.addmm_(dlogits_NV.T, part_ND)
            return
        for start in range(0, len(self.weight), self.block):
            columns = slice(start, start + self.block)
            self.weight[columns] += dlogits_NV[:, columns].T @ part_ND


class _FusedRows(torch.autograd.Function):
    """The sweep as one node of the graph: gradients are made in the forward pass and scaled in the backward."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, rows):
        gradients = _Gradients(hidden_ND, weight_VD, bias_V, ctx.needs_input_grad)
        total, sums = rows.sweep(hidden_ND, weight_VD, bias_V, gradients)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.types = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    @once_differentiable
    def backward(ctx, factor, _):
        def scaled(gradient, dtype):
            return None if gradient is None else (gradient * factor).to(dtype)

        return *(scaled(g, t) for g, t in zip(ctx.saved_tensors, ctx.types, strict=True)), None
