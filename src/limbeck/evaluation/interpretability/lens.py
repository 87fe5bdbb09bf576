"""The logit lens: what a model would answer if it stopped after each of its layers.

The model is run again with what a layer gives put in the place of what its last layer gives, so that final norm,
pooler and head are the model's own, whatever they are.

Shapes: T positions, D width, V vocabulary or classes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.core.types import IGNORE, Batch, Dense, Head, Needs
from limbeck.evaluation.interpretability.view import View
from limbeck.models.heads import signal
from limbeck.models.taps import Taps
from limbeck.tasks.causal_lm import CausalCodec


@torch.no_grad()
def path_of(view: View, sample: str) -> list[dict[str, Any]]:
    """The likeliest answer after each layer, and its probability then: [{layer, answer, probability}].

    A language model reads the row's own answer and is asked for one token of it: where the final answer begins, or
    else the first token.

    Args:
        view: the model.
        sample: the row's id.

    Raises:
        ModelError: its layers give tensors of different shapes, as the stages of a convolutional model.

    Reference:
        nostalgebraist, interpreting GPT: the logit lens, 2020, lesswrong.com/posts/AcKRB8wDpdaN6v6ru.
    """
    batch = view.batch([sample])
    place = asked_for(view.codec, batch.labels[0]) if isinstance(view.codec, CausalCodec) else None
    with Taps(view.model, view.layers) as taps:
        said = _said(view, batch, place)
    held = taps.features()
    if len({value.shape for value in held.values()}) > 1:
        raise ModelError("its layers give tensors of different shapes")
    last = view.model.get_submodule(view.layers[-1])
    found = []
    for layer in view.layers:
        if layer != view.layers[-1]:
            hook = last.register_forward_hook(_instead(held[layer]))
            try:
                said_V = _said(view, batch, place)
            finally:
                hook.remove()
        else:
            said_V = said
        probability, answer = said_V.softmax(-1).max(-1)
        found.append({"layer": layer, "answer": _in_words(view, int(answer)), "probability": float(probability)})
    return found


def _instead(held: Tensor) -> Any:
    def give(module: Any, given: Any, output: Any) -> Any:
        return held if isinstance(output, Tensor) else (held, *output[1:])

    return give


def _said(view: View, batch: Batch, place: int | None) -> Tensor:
    """The logits of the one answer that is looked at, [V], in at least float32; a language model's at a place."""
    dist = signal(view.model, batch, Needs(dist=True)).dist
    if isinstance(dist, Head):
        hidden_D = dist.hidden[0, place].to(dist.weight.dtype)
        logits_V = torch.nn.functional.linear(hidden_D, dist.weight, dist.bias)
    else:
        assert isinstance(dist, Dense)
        logits_V = dist.logits[0]
    return logits_V if logits_V.dtype == torch.float64 else logits_V.float()


def asked_for(codec: CausalCodec, labels_T: Tensor) -> int:
    """The position whose next token begins the final answer, or the whole answer where none can be told.

    Args:
        codec: knows how a final answer is written.
        labels_T: the tokens that follow; `IGNORE` outside of the answer.
    """
    places = (labels_T != IGNORE).nonzero().flatten().tolist()
    ids = labels_T[places].tolist()
    hits = list(re.finditer(codec.task.answer_pattern or "(?!)", codec.processor.decode(ids)))
    if hits:
        begins = hits[-1].start(1)
        first = bisect_right(range(len(ids)), begins, key=lambda i: len(codec.processor.decode(ids[: i + 1])))
        return int(places[first])
    return int(places[0])


def _in_words(view: View, answer: int) -> str:
    names = view.codec.label_names
    return str(view.codec.processor.decode([answer])) if names is None else names[answer]
