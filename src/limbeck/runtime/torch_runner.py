"""A student run by torch: the reference that every export is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.core.errors import ModelError
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import fitting

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def on_threads(count: int | None) -> Iterator[None]:
    """So many threads for torch, and then as many as before: it counts them for the whole process.

    Args:
        count: None leaves them.
    """
    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchRunner(Runner):
    """A model in torch.

    Args:
        model: it is put into evaluation mode, and onto the device.
        inputs: what the task's batches hold.
        threads: of one request; None: as many as torch has.
        device: cpu, cuda, or `auto`: cuda where there is one.
    """

    engine = "torch"

    def __init__(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, Tensors],
        *,
        threads: int | None = None,
        device: str = "auto",
    ):
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.model, self.threads, self.device = model.eval(), threads, torch.device(chosen).type
        torch.nn.Module.to(self.model, torch.device(chosen))
        self.inputs = dict(inputs)
        rank = 3 if self.model.get_output_embeddings() is not None else 2
        self.outputs = {"logits": Tensors("float32", (None,) * rank)}

    @torch.inference_mode()
    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in fitting(inputs, self.inputs).items()}
        given = {k: x.to(self.model.device, self._type_of(x)) for k, x in tensors.items()}
        try:
            with on_threads(self.threads):
                logits = self.model(**given).logits
        except (IndexError, RuntimeError, ValueError) as error:  # ids beyond the vocabulary, rows too long
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ModelError("torch cannot run the model on this batch", got=str(error).splitlines()[0]) from error
        return {"logits": logits.float().cpu().numpy()}

    def _type_of(self, tensor: torch.Tensor) -> torch.dtype:
        return self.model.dtype if tensor.is_floating_point() else tensor.dtype
