"""The pass over all valid rows, a chunk at a time, that takes values and gradients together.

A chunk is as many rows as its logits have memory for; the matrix products work on chunks. What is done to every
logit works on blocks of a chunk, small enough to stay in a processor's cache, and writes to the same few arrays again
and again. Terms with a closed form (`DistributionTerm.slopes`) write their gradient there; of the others autograd
takes it. The head's gradient is made in place and handed out without a copy.

Shapes: N rows (valid positions), D and E hidden width of student and teacher, V vocabulary of the student,
U vocabulary of the teacher, C buckets of a sparse teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.core.types import Dense, Head
from limbeck.objectives.base import DistributionTerm
from limbeck.objectives.chunk import LOWEST, Chunk, Pool, is_prefix
from limbeck.objectives.folded import Folded
from limbeck.objectives.kernels import dense_kd
from limbeck.objectives.mixture import MixedRows
from limbeck.objectives.products import HeadGradient, product
from limbeck.objectives.sparse import Support

BLOCK = 5 * 2**16
"""Logits that are worked on at a time on CPU: 1.25 MiB in float32: fewer pay for each call, more leave the cache."""
BLOCK_FOLDED = 10 * 2**16
"""The same where a sparse teacher makes more calls for a block, and each of them reads less."""
BLOCK_ELSEWHERE = 2**23


@dataclass
class Rows:
    """All valid rows of a batch but for the student's hidden states.

    Attributes:
        terms: formulas, each giving a value per row.
        weights: their weights now.
        labels_N: the true classes.
        teacher: what the teacher says of the rows; None without one.
        chunk_bytes: bound on the memory of one chunk's logits, student's and teacher's together.
        row_weights_N: how much each row counts; None: all the same.
        teacher_weights_N: how much the teacher's word counts in each row; None: all the same.
        shared, progress, other_labels_N, other_share_N, learned: as in `Chunk`.
        prefix: whether `shared` are the first classes, or all.
    """

    terms: Sequence[DistributionTerm]
    weights: Sequence[float]
    labels_N: Tensor
    teacher: Dense | Head | MixedRows | Support | None
    chunk_bytes: int
    row_weights_N: Tensor | None = None
    teacher_weights_N: Tensor | None = None
    shared: Tensor | None = None
    progress: float = 0.0
    other_labels_N: Tensor | None = None
    other_share_N: Tensor | None = None
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    prefix: bool = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = is_prefix(self.shared)  # once a pass, since it waits for the device

    def chunk(self, logits_NV: Tensor, rows: slice, teacher_NU: Tensor | None, pool: Pool | None = None) -> Chunk:
        """The formulas' view of some rows."""
        return Chunk(
            logits_NV,
            self.labels_N[rows],
            teacher_NU,
            self.shared,
            self.progress,
            None if self.other_labels_N is None else self.other_labels_N[rows],
            None if self.other_share_N is None else self.other_share_N[rows],
            self.learned,
            self.teacher[rows] if isinstance(self.teacher, Support) else None,
            pool or Pool(),
            self.prefix,
            None if self.teacher_weights_N is None else self.teacher_weights_N[rows] != 0,
        )

    def counts(self, term: DistributionTerm, rows: slice) -> Tensor | None:
        """How much each row counts for a term, [N]; None: all the same."""
        counts_N = None if self.row_weights_N is None else self.row_weights_N[rows]
        if self.teacher_weights_N is None or not term.asks_teacher:
            return counts_N
        asked_N = self.teacher_weights_N[rows]
        return asked_N if counts_N is None else counts_N * asked_N

    def evaluate(self, chunk: Chunk, rows: slice) -> tuple[Tensor, Tensor]:
        """The weighted total and each term's sum of a chunk, both as autograd sees them."""
        values = []
        for term in self.terms:
            values_N, counts_N = term.rows(chunk), self.counts(term, rows)
            values.append((values_N if counts_N is None else values_N * counts_N).sum())
        # Empty sums keep the total in the graph where every weight is zero.
        kept = sum(each.flatten()[:0].sum() for each in (chunk.logits_NV, *self.learned.values()))
        sums = torch.stack([v if w else v.detach() for v, w in zip(values, self.weights, strict=True)])
        return self.total(sums) + kept, sums

    def total(self, sums: Tensor) -> Tensor:
        """The terms' sums by their weights; one of weight zero is left out, also where it is not finite."""
        weights = sums.new_tensor(self.weights)
        return (torch.where(weights != 0, sums, 0.0) * weights).sum()

    def rows_to_a_chunk(self, classes: int, dtype: torch.dtype) -> int:
        """As many as `chunk_bytes` holds."""
        row = classes * dtype.itemsize
        heads = self.teacher.members if isinstance(self.teacher, MixedRows) else (self.teacher,)
        for head in heads:
            if isinstance(head, Head):
                row += len(head.weight) * head.weight.dtype.itemsize
        return max(1, self.chunk_bytes // row)


class Gradients:
    """What a sweep collects besides values: gradients of hidden states, head, bias and what terms learn.

    Args:
        hidden_ND, weight_VD, bias_V: what is differentiated by.
        learned: the same.
        needed: which of the first three.
        work: the type that products are taken in.
    """

    def __init__(
        self,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        learned: Mapping[str, Tensor],
        needed: Sequence[bool],
        work: torch.dtype,
    ):
        exact = exact_type(hidden_ND.dtype)
        self.hidden = torch.empty_like(hidden_ND) if needed[0] else None
        self.weight = HeadGradient(weight_VD, work, exact) if needed[1] else None
        self.bias = torch.zeros_like(bias_V, dtype=exact) if bias_V is not None and needed[2] else None
        self.bias_type = None if bias_V is None else bias_V.dtype
        self.learned = {label: torch.zeros_like(tensor) for label, tensor in learned.items()}

    def add(self, rows: slice, dlogits_NV: Tensor, part_ND: Tensor, head_VD: Tensor) -> None:
        """Add one chunk's share; all are in the type that the products are taken in."""
        if self.hidden is not None:
            self.hidden[rows] = (dlogits_NV @ head_VD).to(self.hidden.dtype)
        if self.weight is not None:
            self.weight.add(dlogits_NV, part_ND)

    def handed_out(self, factor: Tensor) -> list[Tensor | None]:
        """All gradients times a factor, in the order hidden, weight, bias, learned; nothing is kept here."""
        hidden = None if self.hidden is None else self.hidden.mul_(factor)
        weight = None if self.weight is None else self.weight.handed_out(factor)
        bias = None if self.bias is None else self.bias.mul_(factor).to(self.bias_type)
        learned = [each.mul_(factor) for each in self.learned.values()]
        self.hidden = self.weight = self.bias = None
        self.learned = {}
        return [hidden, weight, bias, *learned]


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """At least float32: softmax over a vocabulary in half precision is wrong in the first digits."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def working_type(hidden: Tensor) -> torch.dtype:
    """The type that a plain forward pass would multiply in."""
    device = hidden.device.type
    if hidden.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return hidden.dtype
    return torch.get_autocast_dtype(device)


class Sweep:
    """One pass over all rows.

    Args:
        rows: what is evaluated.
        work: the type that products are taken in.
        exact: the type that formulas are evaluated in.
        gradients: where gradients go; None: only values are wanted.
    """

    def __init__(self, rows: Rows, work: torch.dtype, exact: torch.dtype, gradients: Gradients | None):
        self.rows, self.work, self.exact, self.gradients = rows, work, exact, gradients
        self.pool = Pool()
        self.small = Pool()  # for a sparse teacher's buckets, which go by the same names
        # Divergences first: an exponential at a high temperature makes the one at 1 nearly free.
        self.order = sorted(range(len(rows.terms)), key=lambda i: not rows.terms[i].asks_teacher)

    def run(self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor]:
        """Total and each term's sum."""
        sums = hidden_ND.new_zeros(len(self.rows.terms), dtype=self.exact)
        size = self.rows.rows_to_a_chunk(len(weight_VD), self.work)
        with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
            head_VD = weight_VD.to(self.work)
            bias = None if bias_V is None else bias_V.to(self.work)
            for start in range(0, len(hidden_ND), size):
                rows = slice(start, min(start + size, len(hidden_ND)))
                part_ND = hidden_ND[rows].to(self.work)
                logits_NV = product(part_ND, head_VD, bias, self._array("student", part_ND, head_VD))
                sums += self._chunk(logits_NV, self._told(rows), rows)
                if self.gradients is not None:
                    self.gradients.add(rows, logits_NV, part_ND, head_VD)
        return self.rows.total(sums), sums

    def _array(self, name: str, part: Tensor, weight: Tensor) -> Tensor:
        return self.pool.take(name, (len(part), len(weight)), weight)

    def _told(self, rows: slice) -> Tensor | None:
        """The teacher's logits for a chunk, multiplied out now if they are still a head."""
        teacher = self.rows.teacher
        if isinstance(teacher, MixedRows):
            return teacher.log_probs(rows, self._logits_of)
        return self._logits_of(teacher, rows) if isinstance(teacher, Dense | Head) else None

    def _logits_of(self, teacher: Dense | Head, rows: slice) -> Tensor:
        if isinstance(teacher, Dense):
            return teacher.logits[rows]
        part = teacher.hidden[rows].to(teacher.weight.dtype)
        return product(part, teacher.weight, teacher.bias, self._array("told", part, teacher.weight))

    def _chunk(self, logits_NV: Tensor, told_NU: Tensor | None, rows: slice) -> Tensor:
        """Each term's sum over a chunk; the gradient takes the place of the logits."""
        whole = self.rows.chunk(logits_NV, rows, told_NU, self.pool)
        plan = dense_kd.plan(self.rows.terms, whole) if all(self.rows.weights) else None
        if plan is not None:
            return self._in_one_kernel(plan, whole, rows)
        on_cpu = BLOCK if whole.support is None else BLOCK_FOLDED
        size = max(1, (on_cpu if logits_NV.device.type == "cpu" else BLOCK_ELSEWHERE) // logits_NV.shape[1])
        sums = logits_NV.new_zeros(len(self.rows.terms), dtype=self.exact)
        for start in range(0, len(logits_NV), size):
            block = slice(start, min(start + size, len(logits_NV)))
            mine_NV = self._exactly("student", logits_NV[block])
            theirs_NU = None if told_NU is None else self._exactly("told", told_NU[block])
            out_NV: Tensor | None = None
            if self.gradients is not None:
                out_NV = self.pool.take("out", mine_NV.shape, mine_NV).zero_()
            among = slice(rows.start + block.start, rows.start + block.stop)
            sums += self._block(self.rows.chunk(mine_NV, among, theirs_NU, self.pool), among, out_NV)
            if out_NV is not None:
                logits_NV[block] = out_NV
                if self.gradients is not None and self.gradients.bias is not None:
                    self.gradients.bias += out_NV.sum(0)
        return sums

    def _in_one_kernel(self, plan: dense_kd.Plan, chunk: Chunk, rows: slice) -> Tensor:
        """The same on an accelerator, for the terms that a kernel knows."""
        scales = [self._scale(i, rows, chunk).squeeze(1).float() for i in range(len(self.rows.terms))]
        hard_N = torch.zeros_like(scales[plan.soft]) if plan.hard is None else scales[plan.hard]
        write = self.gradients is not None
        values = dense_kd.evaluate(chunk, hard_N, scales[plan.soft], plan.temperature, write=write)
        if self.gradients is not None and self.gradients.bias is not None:
            self.gradients.bias += chunk.logits_NV.sum(0, dtype=self.exact)
        places = {plan.soft: values[1]} | ({} if plan.hard is None else {plan.hard: values[0]})
        return self._summed(places, rows)

    def _summed(self, values: Mapping[int, Tensor], among: slice) -> Tensor:
        counted = [(self.rows.counts(term, among), values[i]) for i, term in enumerate(self.rows.terms)]
        return torch.stack([(v_N if n_N is None else v_N * n_N).sum() for n_N, v_N in counted])

    def _exactly(self, name: str, logits: Tensor) -> Tensor:
        """Logits in the exact type, none below `LOWEST`; those of the caller are left as they are."""
        if logits.dtype != self.exact:
            out = self.pool.take((name, "exact"), logits.shape, logits.new_empty(0, dtype=self.exact))
            return out.copy_(logits).clamp_(min=LOWEST)
        if name == "told" and isinstance(self.rows.teacher, Dense):
            return torch.clamp(logits, min=LOWEST, out=self.pool.take((name, "exact"), logits.shape, logits))
        return logits.clamp_(min=LOWEST)

    def _block(self, chunk: Chunk, among: slice, out_NV: Tensor | None) -> Tensor:
        """Each term's sum over a block; adds the weighted gradient by its logits to `out_NV`."""
        values: dict[int, Tensor] = {}
        folded = Folded(chunk) if chunk.support is not None and chunk.shared is None else None
        buckets = None if folded is None else folded.as_dense(self.small)
        slopes_NC = None if folded is None else torch.zeros_like(folded.buckets_NC)
        for i in self.order:
            term, view, out = self.rows.terms[i], chunk, out_NV
            if chunk.support is not None and term.asks_teacher:
                if buckets is None or term.reads_labels:
                    continue
                view, out = buckets, slopes_NC
            if term.label in self.rows.learned:
                continue
            wanted = out_NV is not None and self.rows.weights[i]
            values_N = term.slopes(view, self._scale(i, among, chunk), out if wanted else None)
            if values_N is not None:
                values[i] = values_N
        if rest := [i for i in self.order if i not in values]:
            values |= self._by_autograd(rest, chunk, folded, among, out_NV, slopes_NC)
        if out_NV is not None and folded is not None and slopes_NC is not None:
            folded.add(slopes_NC, out_NV)
        return self._summed(values, among)

    def _scale(self, i: int, among: slice, chunk: Chunk) -> Tensor:
        """What a term's gradient is multiplied by, [N, 1]."""
        counts_N = self.rows.counts(self.rows.terms[i], among)
        if counts_N is None:
            return chunk.logits_NV.new_full((len(chunk.logits_NV), 1), self.rows.weights[i], dtype=self.exact)
        return counts_N[:, None] * self.rows.weights[i]

    def _by_autograd(
        self,
        wanted: Sequence[int],
        chunk: Chunk,
        folded: Folded | None,
        among: slice,
        out_NV: Tensor | None,
        slopes_NC: Tensor | None,
    ) -> dict[int, Tensor]:
        """Values of terms without a closed form here."""
        with torch.set_grad_enabled(out_NV is not None):
            logits = chunk.logits_NV.detach().requires_grad_(out_NV is not None)
            leaves = {k: v.detach().requires_grad_(out_NV is not None) for k, v in self.rows.learned.items()}
            view = replace(chunk, logits_NV=logits, learned=leaves, _made={}, _soft={})
            buckets = []
            if folded is not None:
                known = folded.support.logs_NC.shape[1]
                buckets = [folded.buckets_NC[:, :known].detach().requires_grad_(out_NV is not None)]
                view.put(buckets_NC=buckets[0])
            values = {i: self.rows.terms[i].rows(view) for i in wanted}
            heavy = [i for i in wanted if self.rows.weights[i]]
            total = sum((self._scale(i, among, chunk).squeeze(1) * values[i]).sum() for i in heavy)
        if out_NV is not None and isinstance(total, Tensor) and total.requires_grad:
            found = torch.autograd.grad(total, [logits, *buckets, *leaves.values()], allow_unused=True)
            if found[0] is not None:
                out_NV += found[0]
            if slopes_NC is not None and buckets and found[1] is not None:
                slopes_NC[:, : found[1].shape[1]] += found[1]
            assert self.gradients is not None
            for sum_, part in zip(self.gradients.learned.values(), found[1 + len(buckets) :], strict=True):
                if part is not None:
                    sum_ += part
        return {i: v_N.detach() for i, v_N in values.items()}


class FusedRows(torch.autograd.Function):
    """The sweep as one node of the graph: gradients are made in the forward pass and scaled in the backward.

    They are handed out without a copy, so that a second backward pass through the same graph makes them anew.
    """

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, rows, *learned):
        ctx.rows, ctx.work = rows, working_type(hidden_ND)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V)
        total, sums = FusedRows._sweep(ctx, hidden_ND, weight_VD, bias_V)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    def _sweep(ctx, hidden_ND, weight_VD, bias_V):
        ctx.gradients = Gradients(hidden_ND, weight_VD, bias_V, ctx.rows.learned, ctx.needs_input_grad, ctx.work)
        sweep = Sweep(ctx.rows, ctx.work, exact_type(hidden_ND.dtype), ctx.gradients)
        return sweep.run(hidden_ND, weight_VD, bias_V)

    @staticmethod
    @once_differentiable
    def backward(ctx, factor, _):
        if ctx.gradients is None:
            FusedRows._sweep(ctx, *ctx.saved_tensors)
        gradients, ctx.gradients = ctx.gradients, None
        hidden, weight, bias, *learned = gradients.handed_out(factor)
        return hidden, weight, bias, None, *learned
