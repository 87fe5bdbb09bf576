"""What a recipe will take: memory and disk, computed from models without weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import nn

from limbeck.core.recipe import Recipe, Stage, Student, Teacher
from limbeck.core.recipe.training import asking
from limbeck.core.types import IGNORE, Needs
from limbeck.doctor.plan import Plan, Read
from limbeck.models.heads import signal
from limbeck.models.load import parameters
from limbeck.tasks import Feature

_FLOAT = 4
_TOKEN = 5
"""Bytes of text, generously: four of English, three of Chinese."""
_CHECKPOINT = 3
"""What is learned, and two moments of it."""


@dataclass(frozen=True)
class Device:
    """Where a process trains.

    Attributes:
        name: of the device.
        free: bytes of memory that nobody uses now.
        count: how many of its kind are here.
    """

    name: str
    free: int
    count: int = 1


def device() -> Device:
    """The device that a run would train on."""
    if torch.cuda.is_available():
        return Device(torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0], torch.cuda.device_count())
    return Device("the CPU", psutil.virtual_memory().available)


def count(reader: Read) -> int:
    """Parameters of a model."""
    assert reader.model is not None
    return parameters(reader.model)


def stored_bytes(plan: Plan) -> int | None:
    """Bytes of all weights and checkpoints at the run's fullest; None where the models cannot be seen.

    A checkpoint stays until the next one is written, and so do the best weights; the checkpoints of a step are removed
    at its end.
    """
    readers = [reader for reader, _ in plan.trained]
    if any(reader.model is None for reader in readers):
        return None
    sizes = {reader.name: _FLOAT * count(reader) for reader in readers}
    learned = {reader.name: _FLOAT * _trained(reader) for reader in readers}
    kept = sum(sizes.values()) + (sizes["student"] if plan.recipe.baseline else 0)
    at_work = max(2 * (sizes[name] + (_CHECKPOINT - 1) * learned[name]) + 2 * sizes[name] for name in sizes)
    return kept + at_work


def recorded_bytes(plan: Plan) -> int | None:
    """Bytes of the teacher's recording; None where there is none, or the teacher cannot be seen.

    What the terms read of layers comes on top.
    """
    cache = plan.recipe.cache
    model = plan.teachers[0].model if plan.teachers else None
    if cache is None or model is None:
        return None
    writes = model.get_output_embeddings() is not None
    classes: Any = model.config.get_text_config().vocab_size if writes else model.config.num_labels
    number = {"float16": 2, "float32": 4}[cache.dtype]
    each = 100.0 if cache.bytes_per_token is None else cache.bytes_per_token
    if cache.k is not None:
        each = min(cache.k, classes) * (4 + number)
    elif cache.type == "full" or (cache.bytes_per_token is None and not writes):
        each = classes * number
    read = {id(rows): rows for rows in (plan.encoded(s, plan.student) for s in plan.recipe.stages if asking(s))}
    return round(each * sum(_labels(feature) for rows in read.values() for feature in rows.features))


def _labels(feature: Feature) -> int:
    """Distributions that a sample has: one for each label; a class is one."""
    return sum(label != IGNORE for label in feature.values.get("labels", (0,)))


def written_bytes(plan: Plan) -> int:
    """Bytes of answers that are written, at most: in the ledger with their prompts, and as rows."""
    return 2 * _TOKEN * sum(each.tokens for each in plan.writing())


def training_bytes(plan: Plan, reader: Read, stage: Stage, processes: int = 1) -> dict[str, int | None] | None:
    """Bytes of memory of a stage's training in one process, by what they are for; None where nothing is known.

    A part is None where it could not be added up.

    Args:
        plan: what is trained.
        reader: who learns.
        stage: its stage.
        processes: how many share each batch; every one of them holds all weights.
    """
    if reader.model is None:
        return None
    found: dict[str, int | None] = {
        "weights": _FLOAT * count(reader),
        "gradients and optimizer": _FLOAT * _CHECKPOINT * _trained(reader),
    }
    if isinstance(reader.spec, Student) and plan.recipe.cache is None:
        for each in (each for each in plan.teachers if each.model is not None):
            found[each.name] = count(each) * _width(each)
    size = stage.per_device_train_batch_size or max(1, stage.global_batch_size // processes)
    found["activations"] = _activations(plan.recipe, reader, size, plan.encoded(stage, reader).features)
    return found


def _trained(reader: Read) -> int:
    """Parameters that learn; with LoRA the added ones alone."""
    assert reader.model is not None
    lora = reader.spec.lora if isinstance(reader.spec, Student) else None
    if lora is None:
        return count(reader)
    head = reader.model.get_output_embeddings()
    layers = {n: m for n, m in reader.model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    chosen = [m for n, m in layers.items() if lora.target_modules is None or n.endswith(tuple(lora.target_modules))]
    return sum(lora.r * (layer.in_features + layer.out_features) for layer in chosen)


def _width(reader: Read) -> int:
    """Bytes of a teacher's weight; one that was trained here is in float32."""
    assert reader.model is not None
    assert isinstance(reader.spec, Teacher)
    if reader.spec.finetune is not None:
        return _FLOAT
    stored = getattr(reader.model.config, "dtype", None) if reader.spec.dtype == "auto" else None
    chosen = stored or (torch.float32 if reader.spec.dtype == "auto" else getattr(torch, reader.spec.dtype))
    return int(chosen.itemsize)


def _activations(recipe: Recipe, reader: Read, size: int, features: list[Feature]) -> int | None:
    """What is kept for the backward pass; None for a model that looks at values, which `meta` has not."""
    longest = sorted(features, key=lambda f: -f.length)[:size]
    if not longest or not longest[0].length:
        return None
    assert reader.model is not None
    try:
        batch = reader.codec.collate(longest)
        kept = _of_text(reader.model, batch) if "input_ids" in batch.inputs else _kept(reader.model, batch)
    except (RuntimeError, NotImplementedError):
        return None
    if recipe.training.precision != "fp32":
        kept //= 2
    if recipe.training.gradient_checkpointing:
        kept = 2 * kept // max(1, getattr(reader.model.config, "num_hidden_layers", 1))
    return kept


def _of_text(model: Any, batch: Any) -> int:
    """The same for tokens [B, T], from passes over a few of them.

    What is kept is a polynomial in T: a constant, what each position has, and, where scores are written out, T^2. A
    fused attention keeps none of the latter, but on `meta` there is none. A mask of four dimensions is taken as it
    is; a model would look at the values of any other.
    """
    rows, tokens = batch.inputs["input_ids"].shape

    def kept(length: int) -> int:
        flat = {n: v for n, v in batch.inputs.items() if n != "attention_mask" and tuple(v.shape) == (rows, tokens)}
        inputs = {name: torch.zeros(rows, length, dtype=value.dtype) for name, value in flat.items()}
        inputs["attention_mask"] = torch.zeros(rows, 1, length, length)
        return _kept(model, replace(batch, inputs=inputs))

    one, two, three = kept(8), kept(16), kept(24)
    square = (three - 2 * two + one) / 128
    line = (two - one) / 8 - 24 * square
    rest = one - 8 * line - 64 * square
    written_out = getattr(model.config, "_attn_implementation", None) == "eager"
    return round(rest + line * tokens + (square * tokens**2 if written_out else 0))


def _kept(model: Any, batch: Any) -> int:
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}  # the tensors too: what is freed gives its place to another

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        said = signal(model, batch.to("meta"), Needs(dist=True))
    del said
    return sum(t.untyped_storage().nbytes() for place, t in seen.items() if place not in own)
