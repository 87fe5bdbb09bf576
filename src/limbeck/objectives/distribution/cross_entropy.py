"""Cross-entropy with the true label."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.base import DistributionTerm
from limbeck.objectives.chunked import Chunk


@part
class CrossEntropy(DistributionTerm):
    """Cross-entropy with the true label (hard targets).

    -(1 - e) log q[y] - e/V sum_v log q[v], with q the student's probabilities and e the label smoothing. Of samples
    that were blended of two, -log q[y] is that of both labels, each by its share.
    Do not smooth a model that is to teach: smoothing erases how it relates the classes (Mueller et al.,
    2019, arXiv:1906.02629).

    Reference:
        Szegedy et al., Rethinking the Inception Architecture, 2016, arXiv:1512.00567 (label smoothing).
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over all classes."""

    @property
    def reads_labels(self) -> bool:
        return True

    def rows(self, chunk: Chunk) -> Tensor:
        log_probs_NV = chunk.log_probs()
        hard_N = -log_probs_NV.gather(1, chunk.labels_N[:, None]).squeeze(1)
        if chunk.other_labels_N is not None and chunk.other_share_N is not None:
            other_N = -log_probs_NV.gather(1, chunk.other_labels_N[:, None]).squeeze(1)
            hard_N = torch.lerp(hard_N, other_N, chunk.other_share_N)
        if not self.label_smoothing:
            return hard_N
        return (1 - self.label_smoothing) * hard_N - self.label_smoothing * log_probs_NV.mean(1)

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        student, even = chunk.soft(), self.label_smoothing
        values_N = -student.log_probs_at(chunk.labels_N)
        if chunk.other_labels_N is not None and chunk.other_share_N is not None:
            values_N = torch.lerp(values_N, -student.log_probs_at(chunk.other_labels_N), chunk.other_share_N)
        if even:
            mean_N = (student.scaled_NV.mean(1, keepdim=True) - student.log_sum_N1).squeeze(1)
            values_N = (1 - even) * values_N - even * mean_N
        if out_NV is not None:
            student.add_to(out_NV, scale_N1)
            hard_N1 = -(1 - even) * scale_N1
            if chunk.other_labels_N is not None and chunk.other_share_N is not None:
                other_N1 = chunk.other_share_N[:, None]
                out_NV.scatter_add_(1, chunk.other_labels_N[:, None], hard_N1 * other_N1)
                hard_N1 = hard_N1 * (1 - other_N1)
            out_NV.scatter_add_(1, chunk.labels_N[:, None], hard_N1)
            if even:
                out_NV.sub_(scale_N1 * (even / out_NV.shape[1]))
        return values_N
