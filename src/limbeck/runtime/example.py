"""Made-up rows for a model: what it takes, where nobody has given any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from limbeck.core.types import Sample
from limbeck.runtime._base import Tensors
from limbeck.tasks import Codec
from limbeck.tasks.image_classification import ImageCodec

_WORDS = ("what", "is", "my", "card", "balance", "please", "tell", "me", "how", "the", "order", "12", "of", "7")


def example(codec: Codec, rows: int = 2) -> dict[str, Any]:
    """Made-up rows as one batch of torch tensors: what a model for this codec takes.

    Args:
        codec: of the student.
        rows: how many, of different lengths.
    """
    return dict(codec.collate(codec.encode(made_up(codec, rows)).features).inputs)


def made_up(codec: Codec, count: int) -> list[Sample]:
    """Rows out of nothing, of different lengths: enough to run a model, not to judge it."""
    from PIL import Image

    draw = np.random.default_rng(0)
    target = codec.label_names[0] if codec.label_names else "it is 3"
    found = []
    for i in range(count):
        text = " ".join(_WORDS[k] for k in draw.integers(0, len(_WORDS), 3 + 5 * (i % 7)))
        inputs: dict[str, Any] = {"text": text}
        if isinstance(codec, ImageCodec):
            inputs = {"image": Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8))}
        elif codec.label_names is None:
            inputs = {"messages": [{"role": "user", "content": text}]}
        found.append(Sample(f"made-up-{i}", inputs, target))
    return found


def signature(inputs: Mapping[str, Any]) -> dict[str, Tensors]:
    """Types and shapes of a batch whose rows, and positions where there are any, may be of any number.

    Args:
        inputs: an example, from `example`.
    """
    return {
        name: Tensors(str(x.dtype).removeprefix("torch."), tuple(
            None if axis in free_axes(name, x.ndim) else size for axis, size in enumerate(x.shape)
        ))
        for name, x in inputs.items()
    }  # fmt: skip


def free_axes(name: str, rank: int) -> dict[int, str]:
    """The axes of an input that any size fits, by place, and what they are called.

    Token ids and masks are [batch, length], a mask of steps [batch, 1, length, length], pixels [batch, C, H, W].
    """
    if name == "pixel_values":
        return {0: "batch"}
    return {0: "batch", 2: "length", 3: "length"} if rank == 4 else {0: "batch", 1: "length"}
