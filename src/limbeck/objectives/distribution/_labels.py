"""Where the true classes stand among the classes that student and teacher share.

Shapes: N rows, S classes that both have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limbeck.core.errors import ModelError

if TYPE_CHECKING:
    from limbeck.objectives.chunked import Chunk


def true_classes(chunk: Chunk) -> list[tuple[Tensor, Tensor | float]]:
    """The true classes of every row, as columns among the shared classes, [N, 1], each with its share.

    There is one with share 1, or two with shares [N, 1] where samples were blended of two. Where the teacher has no
    say, a class that is not shared has any column.

    Raises:
        ModelError: a true class is not among the shared ones, so that the teacher has no probability for it.
    """
    first_N1 = _among_shared(chunk, chunk.labels_N)
    if chunk.other_labels_N is None:
        return [(first_N1, 1.0)]
    assert chunk.other_share_N is not None
    share_N1 = chunk.other_share_N[:, None]
    return [(first_N1, 1 - share_N1), (_among_shared(chunk, chunk.other_labels_N), share_N1)]


def _among_shared(chunk: Chunk, labels_N: Tensor) -> Tensor:
    if chunk.shared is None:
        return labels_N[:, None]
    columns_N = torch.searchsorted(chunk.shared, labels_N).clamp(max=len(chunk.shared) - 1)
    strange_N = chunk.shared[columns_N] != labels_N
    if chunk.asked_N is not None:
        strange_N = strange_N & chunk.asked_N
    if strange_N.any():
        raise ModelError(
            "a true class is not among the classes that student and teacher share",
            got=f"class {int(labels_N[strange_N][0])}",
            fix="take a term that does not read the true class, such as kl",
        )
    return columns_N[:, None]
