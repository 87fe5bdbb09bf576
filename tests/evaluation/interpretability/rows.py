"""Rows, codecs and tiny models that the tests here look into."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from limbeck.core.types import Sample
from limbeck.evaluation.interpretability.view import View
from limbeck.tasks import Codec
from limbeck.tasks._text import train_bpe
from limbeck.tasks.causal_lm import CausalLM
from limbeck.tasks.image_classification import ImageClassification
from limbeck.tasks.text_classification import TextClassification
from tests.models.conftest import new
from tests.training.ragged import samples as prompts

SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>"}


def language(count: int = 6, answer_pattern: str | None = None, packing: bool = False) -> tuple[list[Sample], Codec]:
    """Prompts and answers of different lengths."""
    rows = prompts(count)
    texts = [s.target for s in prompts()] + [s.inputs["messages"][0]["content"] for s in prompts()]
    tokenizer = train_bpe(texts, 270, {"pad_token": "<pad>", "eos_token": "<eos>"})
    return rows, CausalLM(answer_pattern=answer_pattern, packing=packing).codec(tokenizer, None)


def texts(count: int = 6) -> tuple[list[Sample], Codec]:
    """Texts of different lengths in two classes."""
    rows = [Sample(str(i), {"text": "abc " * (i + 1) + "de"[i % 2]}, "xy"[i % 2]) for i in range(count)]
    return rows, TextClassification().codec(train_bpe([s.inputs["text"] for s in rows], 262, SPECIAL), ("x", "y"))


def pictures(count: int = 6, side: int = 8) -> tuple[list[Sample], Codec]:
    """Grey pictures in two classes."""
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 255, (side, side), dtype=np.uint8)) for _ in range(count)]
    rows = [Sample(str(i), {"image": image}, "xy"[i % 2]) for i, image in enumerate(images)]
    task, spec = ImageClassification(), type("Spec", (), {"tokenizer": None, "config": {"num_channels": 1}})
    return rows, task.codec(task.new_processor(spec, rows), ("x", "y"))


def model_for(name: str, codec: Codec, seed: int = 0, **fields: Any) -> Any:
    """A tiny model for a codec's rows, in float64, so that no difference hides behind rounding."""
    torch.manual_seed(seed)
    more = {} if name in ("vit", "resnet") else {"vocab_size": len(codec.processor), "max_position_embeddings": 128}
    channels = {"num_channels": 1} if name == "resnet" else {}
    return new(name, **{**more, **channels, **fields}).double()


def view_of(model: Any, rows: list[Sample], codec: Codec, name: str = "student") -> View:
    return View(name, model, codec, rows)


def plain(model: Any, view: View, sample: str, **more: Any) -> Any:
    """What transformers itself says of one row, without padding."""
    with torch.no_grad():
        inputs = view.batch([sample]).inputs
        return model(**{k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}, **more)
