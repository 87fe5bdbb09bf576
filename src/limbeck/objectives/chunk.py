"""A few rows of logits, as the formulas of distribution terms see them.

Shapes: N rows (valid positions), V vocabulary of the student, U vocabulary of the teacher, S what they share,
K classes that a sparse teacher names, C its buckets: the K classes and, where it is known, all the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from limbeck.objectives.sparse import LOWEST, Support

INTEGER_POWERS = (2, 3, 4)
"""Ratios of temperatures at which one exponential is made out of another: exp(z) = exp(z/T)^T."""


class Pool:
    """Memory that is used again for every block of rows, one array for each name and type."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[object, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: object, shape: torch.Size | tuple[int, ...], like: Tensor) -> Tensor:
        """An array with any content; it is the same memory for the same name and type."""
        size = torch.Size(shape).numel()
        key = (name, like.dtype, like.device)
        flat = self._arrays.get(key)
        if flat is None or len(flat) < size:
            flat = self._arrays[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return flat[:size].view(shape)


@dataclass
class Soft:
    """softmax(z / T) of some rows, kept as exponentials and their sums, without gradients.

    Probabilities are `exp_NV / total_N1`: who multiplies by a factor of the row anyway divides for nothing.

    Attributes:
        logits_NV: z.
        temperature: T, a number, a scalar, or one for each row [N, 1].
        top_N1: the largest z of each row.
        exp_NV: exp((z - top) / T) times a factor of the row.
        total_N1: their sums.
        log_sum_N1: log sum_v exp((z - top) / T).
        pool: where arrays are taken from.
        name: what they are called there.
    """

    logits_NV: Tensor
    temperature: float | Tensor
    top_N1: Tensor
    exp_NV: Tensor
    total_N1: Tensor
    log_sum_N1: Tensor
    pool: Pool
    name: object

    @cached_property
    def scaled_NV(self) -> Tensor:
        """(z - top) / T: log-probabilities up to a constant of the row."""
        out = self.pool.take((self.name, "scaled"), self.logits_NV.shape, self.logits_NV)
        return scaled(self.logits_NV, self.top_N1, self.temperature, out)

    @cached_property
    def probs_NV(self) -> Tensor:
        """The probabilities."""
        out = self.pool.take((self.name, "probs"), self.exp_NV.shape, self.exp_NV)
        return torch.div(self.exp_NV, self.total_N1, out=out)

    def log_probs(self, name: str) -> Tensor:
        """The log-probabilities, in an array of that name which may be written to."""
        out = self.pool.take((self.name, name), self.logits_NV.shape, self.logits_NV)
        return torch.sub(self.scaled_NV, self.log_sum_N1, out=out)

    def add_to(self, out_NV: Tensor, factor_N1: Tensor) -> None:
        """Add the probabilities times a factor of the row."""
        out_NV.addcmul_(self.exp_NV, factor_N1 / self.total_N1)

    def log_probs_at(self, columns_N: Tensor) -> Tensor:
        """The log-probabilities of one class a row, [N]."""
        picked_N1 = self.logits_NV.gather(1, columns_N[:, None])
        return ((picked_N1 - self.top_N1) / self.temperature - self.log_sum_N1).squeeze(1)


def scaled(logits_NV: Tensor, top_N1: Tensor, temperature: float | Tensor, out: Tensor) -> Tensor:
    """(z - top) / T; z / T - top / T would lose the digits that an offset common to a row takes up."""
    torch.sub(logits_NV, top_N1, out=out)
    if isinstance(temperature, float | int):
        return out if temperature == 1 else out.mul_(1 / temperature)
    return out.mul_(1 / temperature)


@dataclass
class Chunk:
    """What the formulas see: a few rows of logits, and log-probabilities made once and shared.

    Attributes:
        logits_NV: the student's.
        labels_N: the true classes, all valid.
        teacher_NU: the teacher's logits; None where the stage has no teacher, or one that names a few classes only.
        shared: class ids that student and teacher have in common; None where they are the same.
        progress: share of the stage that is done, for what is on a schedule.
        other_labels_N: the second true classes of samples that were blended of two; None where none was.
        other_share_N: how much of the second there is.
        learned: by label of a term, what of it is learned and known before the pass, such as a temperature.
        support: what a sparse teacher says; None where the teacher gives logits.
        pool: memory for arrays that a closed form makes.
        asked_N: which rows the teacher has a say in; None: all. What is made of the others counts nothing.
        prefix: whether `shared` are the first classes, or all; None: to be found out, which waits for the device.
    """

    logits_NV: Tensor
    labels_N: Tensor
    teacher_NU: Tensor | None = None
    shared: Tensor | None = None
    progress: float = 0.0
    other_labels_N: Tensor | None = None
    other_share_N: Tensor | None = None
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    support: Support | None = None
    pool: Pool = field(default_factory=Pool)
    prefix: bool | None = None
    asked_N: Tensor | None = None
    _made: dict[object, tuple[object, Tensor]] = field(default_factory=dict)
    _soft: dict[object, Soft] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.prefix is None:
            self.prefix = is_prefix(self.shared)

    def log_probs(self) -> Tensor:
        """The student's log-probabilities over its whole vocabulary, [N, V]."""
        return self._once("all", 1.0, self.logits_NV)

    def student(self, temperature: float | Tensor) -> Tensor:
        """The student's log-probabilities at a temperature, [N, S]; [N, C] over a sparse teacher's buckets."""
        if self.support is not None:
            return self.support.student(self._buckets(), temperature)
        return self._once("all" if self.shared is None else "student", temperature, self.logits_NV)

    def teacher(self, temperature: float | Tensor) -> Tensor:
        """The teacher's log-probabilities at a temperature, [N, S]; [N, C] over a sparse teacher's buckets."""
        if self.support is not None:
            return self.support.teacher(temperature)
        assert self.teacher_NU is not None, "a term that asks for a teacher got none"
        return self._once("teacher", temperature, self.teacher_NU)

    def _once(self, whose: str, temperature: float | Tensor, logits: Tensor) -> Tensor:
        plain = isinstance(temperature, float | int)
        key = (whose, temperature if plain else id(temperature))
        if key not in self._made:
            if self.shared is not None and whose != "all":
                logits = self._columns(logits)
            softened = logits
            if not plain or temperature != 1:
                softened = (logits - logits.detach().amax(1, keepdim=True)) / temperature
            # The temperature is kept with the result, since the id of one that is gone may be given anew.
            self._made[key] = (temperature, torch.log_softmax(softened, dim=-1))
        return self._made[key][1]

    def _buckets(self) -> Tensor:
        if "buckets" not in self._made:
            assert self.support is not None
            self._made["buckets"] = (None, self.support.buckets(self._columns(self.logits_NV)))
        return self._made["buckets"][1]

    def _columns(self, logits: Tensor) -> Tensor:
        """What both have; a plain view where it is the first classes, as with padded vocabularies."""
        return self.common(logits) if self.shared is None or self.prefix else logits.index_select(1, self.shared)

    def put(self, buckets_NC: Tensor | None = None, soft: Soft | None = None) -> None:
        """Hand in what the pass has made already: the student's buckets, its softmax over the whole vocabulary."""
        if buckets_NC is not None:
            self._made["buckets"] = (None, buckets_NC)
        if soft is not None:
            self._soft["all", soft.temperature] = soft

    # What closed forms use; none of it carries gradients.

    def comparable(self, temperature: float | Tensor) -> bool:
        """Whether `soft_student` and `soft_teacher` can be had at this temperature."""
        fixed = not (isinstance(temperature, Tensor) and temperature.requires_grad)
        return fixed and self.support is None and bool(self.prefix)

    def soft(self) -> Soft:
        """The student's softmax over its whole vocabulary."""
        return self._softened("all", 1.0, self.logits_NV)

    def soft_student(self, temperature: float | Tensor) -> Soft:
        """The student's softmax at a temperature over the shared vocabulary, where `comparable`."""
        if self.shared is None:
            return self._softened("all", temperature, self.logits_NV)
        return self._softened("student", temperature, self.common(self.logits_NV))

    def soft_teacher(self, temperature: float | Tensor) -> Soft:
        """The teacher's softmax at a temperature over the shared vocabulary, where `comparable`."""
        assert self.teacher_NU is not None, "a term that asks for a teacher got none"
        return self._softened("teacher", temperature, self.common(self.teacher_NU))

    def common(self, columns_NV: Tensor) -> Tensor:
        """The columns that student and teacher share: a view, where `comparable`."""
        return columns_NV if self.shared is None else columns_NV[:, : len(self.shared)]

    def spare(self, name: str, like: Tensor) -> Tensor:
        """An array to write to, of the same shape; what it held is gone."""
        return self.pool.take(name, like.shape, like)

    def _softened(self, whose: str, temperature: float | Tensor, logits: Tensor) -> Soft:
        plain = isinstance(temperature, float | int)
        key = (whose, temperature if plain else id(temperature))
        if key not in self._soft:
            name = (whose, temperature if plain else "rows")
            powers = [k for k in INTEGER_POWERS if plain and (whose, k * temperature) in self._soft]
            if powers:
                self._soft[key] = _power(self._soft[whose, powers[0] * temperature], powers[0], name)
            else:
                self._soft[key] = _softmax(logits, temperature, self.pool, name)
        return self._soft[key]


def _softmax(logits: Tensor, temperature: float | Tensor, pool: Pool, name: object) -> Soft:
    top_N1 = logits.amax(1, keepdim=True)
    scaled_NV = scaled(logits, top_N1, temperature, pool.take((name, "scaled"), logits.shape, logits))
    # softmax is PyTorch's fastest exponential on CPU, but its sums are off by 1e-5 at 150,000 classes.
    exp_NV = torch.softmax(scaled_NV, 1, out=pool.take((name, "exp"), logits.shape, logits))
    total_N1 = exp_NV.sum(1, keepdim=True)
    log_sum_N1 = (total_N1 / exp_NV.amax(1, keepdim=True)).log()
    made = Soft(logits, temperature, top_N1, exp_NV, total_N1, log_sum_N1, pool, name)
    made.__dict__["scaled_NV"] = scaled_NV
    return made


def _power(softer: Soft, power: int, name: object) -> Soft:
    """The softmax at T out of the one at `power` times T."""
    exp_NV = softer.pool.take((name, "exp"), softer.exp_NV.shape, softer.exp_NV)
    torch.mul(softer.exp_NV, softer.exp_NV, out=exp_NV)
    for _ in range(power - 2):
        exp_NV.mul_(softer.exp_NV)
    total_N1 = exp_NV.sum(1, keepdim=True)
    log_sum_N1 = power * (softer.log_sum_N1 - softer.total_N1.log()) + total_N1.log()
    temperature = softer.temperature / power
    return Soft(softer.logits_NV, temperature, softer.top_N1, exp_NV, total_N1, log_sum_N1, softer.pool, name)


def floored(logits: Tensor) -> Tensor:
    """Logits none of which is below `LOWEST`; copied only where one is."""
    below = logits.numel() > 0 and bool(logits.detach().amin() < LOWEST)
    return logits.clamp(min=LOWEST) if below else logits


def is_prefix(ids: Tensor | None) -> bool:
    """Whether sorted, distinct ids are the first ones, or all."""
    return ids is None or len(ids) == 0 or int(ids[-1]) == len(ids) - 1
