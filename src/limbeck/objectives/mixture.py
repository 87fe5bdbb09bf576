"""Several teachers as one, row by row: their probabilities are mixed where their logits are made.

Shapes: N rows, M members, U vocabulary of the teachers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.core.types import Dense, Head


@dataclass(frozen=True)
class MixedRows:
    """The valid rows of a mixture.

    Attributes:
        members: each teacher's rows; they share one vocabulary.
        log_weights_NM: log of each one's say in each row.
    """

    members: tuple[Dense | Head, ...]
    log_weights_NM: Tensor

    def log_probs(self, rows: slice, logits: Callable[[Dense | Head, slice], Tensor]) -> Tensor:
        """log sum_m w_m p_m of some rows, [n, U], in float32; two arrays of the members' logits are held at a time.

        Args:
            rows: which.
            logits: makes a member's logits of some rows; the result may be overwritten by the next call.
        """
        mixed: Tensor | None = None
        for member, log_weights_N in zip(self.members, self.log_weights_NM[rows].T, strict=True):
            given = logits(member, rows)
            exact = given if given.dtype == torch.float64 else given.float()
            logs_NU = torch.log_softmax(exact, 1) + log_weights_N[:, None].to(exact.dtype)
            mixed = logs_NU if mixed is None else torch.logaddexp(mixed, logs_NU)
        assert mixed is not None, "a mixture has members"
        return mixed
