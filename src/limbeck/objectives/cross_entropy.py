"""Cross-entropy with the true label."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives._base import DistributionTerm
from limbeck.objectives._chunked import Chunk


@part
class CrossEntropy(DistributionTerm):
    """Cross-entropy with the true label (hard targets).

    -(1 - e) log q[y] - e/V sum_v log q[v], with q the student's probabilities and e the label smoothing.
    Do not smooth a model that is to teach: smoothing erases how it relates the classes (Mueller et al.,
    2019, arXiv:1906.02629).

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, 2016, arXiv:1512.00567 (label smoothing).
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes."""

    def rows(self, chunk: Chunk) -> Tensor:
        log_probs_NV = chunk.log_probs()
        hard_N = -log_probs_NV.gather(1, chunk.labels_N[:, None]).squeeze(1)
        if not self.label_smoothing:
            return hard_N
        return (1 - self.label_smoothing) * hard_N - self.label_smoothing * log_probs_NV.mean(1)
