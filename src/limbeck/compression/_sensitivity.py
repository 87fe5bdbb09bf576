"""Which layers suffer most: each compressed alone, on the same rows.

hurt(layer) = mean_n KL(p_n || q_n),   p: the student's answer, q: with this one layer compressed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.compression._base import Compressor
from limbeck.compression._graph import layers_of, read
from limbeck.core.patterns import named
from limbeck.core.progress import bar
from limbeck.runtime import Arrays

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Hurt:
    """What compressing one layer alone does.

    Attributes:
        layer: its name.
        kl: mean divergence of the answers, in nats.
        changed: share of rows with another answer.
    """

    layer: str
    kl: float
    changed: float


def sensitivity(
    part: Compressor,
    source: Path,
    scratch: Path,
    rows: Sequence[Arrays],
    logits: Callable[[Path], Floats],
    title: str | None = "layers",
) -> list[Hurt]:
    """Every layer that is compressed, the one that suffers most first.

    Args:
        part: how layers are compressed.
        source: an ONNX file of the student.
        scratch: a folder for models that are thrown away; they lie in `one-layer` there.
        rows: batches for calibration.
        logits: what a model file says of the rows that are compared, [N, C].
        title: of the progress bar; None: no bar.
    """
    names = list(layers_of(read(source)))
    left = named(part.keep, names, "compress.keep")
    whole = _log_probs(logits(source))
    found: list[Hurt] = []
    trial = scratch / "one-layer" / source.name
    trial.parent.mkdir(exist_ok=True)
    with bar("layers", title is not None) as progress:
        task = progress.add_task(title or "", total=len(names) - len(left), figures="")
        for name in (each for each in names if each not in left):
            part.compress(source, trial, rows, only=name)
            said = _log_probs(logits(trial))
            kl = float((np.exp(whole) * (whole - said)).sum(1).mean())
            found.append(Hurt(name, max(0.0, kl), float((whole.argmax(1) != said.argmax(1)).mean())))
            progress.update(task, advance=1)
    trial.unlink(missing_ok=True)
    return sorted(found, key=lambda each: -each.kl)


def _log_probs(logits_NC: Floats) -> NDArray[np.float64]:
    wide = logits_NC.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    logs: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    return logs
