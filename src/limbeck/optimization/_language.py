"""Language models as they are run by torch: answers token by token, with one cache or another.

Shapes: N rows, S steps, V vocabulary.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.core.artifacts import MANIFEST, write_json
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.models.load import load_model
from limbeck.optimization._base import Optimization, Subject, decoding_by
from limbeck.optimization._forms import Cost, Form, Likeness, in_batches, weights
from limbeck.runtime.card import CARD, Card
from limbeck.runtime.decoding import FACT, Decoding
from limbeck.runtime.student import codec_of, task_in
from limbeck.tasks._decode import end_tokens
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LanguageForm(Form):
    """A language model in torch.

    Args:
        subject: the student.
        passes: in their order.
        tokens: that each answer has.
        like: another form of it, whose model is shared where its layers are the same.
    """

    def __init__(self, subject: Subject, passes: Sequence[Optimization], tokens: int, like: LanguageForm | None = None):
        super().__init__(subject, passes)
        self.codec = cast(CausalCodec, codec_of(subject.folder, subject.card))
        self.steps, self.decoding = tokens, decoding_by(self.passes)
        if self.decoding.compile is not None and self.decoding.room is None:
            self.decoding = replace(self.decoding, room=_positions(subject))
        self.model: PreTrainedModel
        if like is not None and like.decoding.fused == self.decoding.fused:
            self.model = like.model
        else:
            model = load_model(Model(model=str(subject.folder)), task_in(subject.card).auto_class, settings={})
            self.model = self.decoding.changed(model).eval()
            torch.nn.Module.to(self.model, subject.device)

    @torch.inference_mode()
    def answers(self, rows: Sequence[Sample], tokens: int) -> Any:
        """What transformers' loop makes of rows: `sequences`, `logits` step by step, `past_key_values`."""
        prompts = [self.codec.prompt_ids(row) for row in rows]
        told = {"min_new_tokens": tokens, "output_logits": True, "return_dict_in_generate": True}
        return self.decoding.generate(self.model, prompts, self.codec.processor.pad_token_id, [], tokens, **told)

    def readable(self, samples: Sequence[Sample], count: int) -> list[Sample]:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        longest = positions - self.steps if isinstance(positions, int) else None
        lengths = {i: len(self.codec.prompt_ids(sample)) for i, sample in enumerate(samples)}
        order = [i for i in sorted(lengths, key=lambda i: lengths[i]) if 0 < lengths[i] <= (longest or lengths[i])]
        places = np.linspace(0, max(len(order) - 1, 0), min(count, len(order))).round().astype(int).tolist()
        return [samples[i] for i in sorted(order[k] for k in places)]

    def request(self, rows: Sequence[Sample], size: int) -> Callable[[int], Any]:
        batches = in_batches(rows, size)
        return lambda i: self.answers(batches[i % len(batches)], self.steps)

    def likeness(self, reference: Form, rows: Sequence[Sample]) -> Likeness:
        assert isinstance(reference, LanguageForm), "both are language models"
        most = largest = 0.0
        same = answers = 0
        ends = torch.tensor(sorted(end_tokens(self.codec.processor, self.model)))
        for ours, theirs in zip(self._each(rows), reference._each(rows), strict=True):
            over_S = torch.isin(theirs[0], ends)
            whole = int(over_S.int().argmax()) + 1 if over_S.any() else len(over_S)  # nobody reads what comes behind
            alike_S = ours[0][:whole] == theirs[0][:whole]
            same, answers = same + int(alike_S.sum()), answers + len(alike_S)
            # Behind the first other token both continue another text: their logits say nothing of each other.
            until = int(alike_S.int().argmin()) + 1 if not alike_S.all() else len(alike_S)
            most = float(np.maximum(most, float((ours[1][:until] - theirs[1][:until]).abs().max())))  # NaN stays
            largest = max(largest, float(theirs[1][:until].abs().max()))
        return Likeness(most, most / max(largest, 1e-6), same / answers, answers)

    def _each(self, rows: Sequence[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
        """New tokens [S] and logits [S, V] of each row, by itself."""
        for row in rows:
            found = self.answers([row], self.steps)
            yield found.sequences[0, -self.steps :].cpu(), torch.cat(found.logits).float().cpu()

    def cost(self, rows: Sequence[Sample]) -> Cost:
        made = self.answers(rows, self.steps)
        few, more = (partial(self.answers, rows[:1], tokens) for tokens in (2, 3))
        compiled, on_gpu = self.decoding.compile is not None, self.subject.device.type == "cuda"
        operators = None if compiled else _operators(more) - _operators(few)  # a compiler's kernels are none
        launches = _launches(more) - _launches(few) if on_gpu else None
        return Cost(operators, launches, weights(self.subject), held(made.past_key_values))

    def save(self, folder: Path) -> Card:
        for path in sorted(self.subject.folder.iterdir()):
            if path.is_file() and path.name not in (MANIFEST, CARD):
                shutil.copyfile(path, folder / path.name)
        _write_generation_config(folder, self.decoding)
        card = self.subject.card
        return replace(card, facts={**card.facts, FACT: self.decoding.told()} if self.passes else card.facts)


def _positions(subject: Subject) -> int | None:
    """The most that a row of the task has, so that what is compiled fits all of them."""
    told = (
        subject.card.task.get("max_length"),
        getattr(subject.model and subject.model.config, "max_position_embeddings", None),
    )
    return min((each for each in told if isinstance(each, int)), default=None)


def _write_generation_config(folder: Path, decoding: Decoding) -> None:
    """Tell transformers of the cache, in its own file."""
    if decoding.cache is None:
        return
    path = folder / "generation_config.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    told["cache_implementation"] = decoding.cache
    told |= {"cache_config": decoding.cache_config} if decoding.cache_config else {}
    told |= {"max_cache_len": decoding.room} if decoding.room is not None else {}
    write_json(path, told)


def held(cache: Any) -> int:
    """Bytes that a cache holds: all tensors of its layers, those within tensors of packages too."""
    found: dict[int, int] = {}

    def look(value: Any) -> None:
        if isinstance(value, Tensor) and hasattr(value, "__tensor_flatten__"):
            for name in value.__tensor_flatten__()[0]:
                look(getattr(value, name))
        elif isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            look(list(value.values()))
        elif isinstance(value, list | tuple):
            for each in value:
                look(each)

    for layer in cache.layers:
        look(vars(layer))
    return sum(found.values())


class _Calls(TorchDispatchMode):
    """Counts the operators of torch that are called, those that others are made of not counted twice."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def _operators(work: Callable[[], Any]) -> int:
    with _Calls() as calls:
        work()
    return calls.count


def _launches(work: Callable[[], Any]) -> int:
    """Kernels that a GPU starts."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    work()  # what is compiled, is compiled now
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        work()
    return sum(each.device_type == DeviceType.CUDA for each in seen.events() or [])
