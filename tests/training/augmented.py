"""Small picture and text jobs for the tests of augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from limbeck.core.recipe import Model, Stage
from limbeck.core.types import Sample
from limbeck.tasks.image_classification import ImageClassification
from limbeck.tasks.text_classification import TextClassification

SIDE = 12
NAMES = ("a", "b", "c")
TEXT = "what is the exchange rate and why was my card declined at the shop today"


def picture_codec(colours: int = 3, **more: Any) -> Any:
    mean, std = [0.2, 0.5, 0.7][:colours], [0.3, 0.25, 0.5][:colours]
    size = {"height": SIDE, "width": SIDE}
    return ImageClassification().codec(ViTImageProcessorPil(size=size, image_mean=mean, image_std=std, **more), NAMES)


def pictures(count: int = 8, colours: int = 3) -> list[Sample]:
    """Random pixels, and a class for each."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    images = [Image.fromarray(p if colours == 3 else p[:, :, 0]) for p in pixels]
    return [Sample(f"train/{i}", {"image": image}, NAMES[i % 3]) for i, image in enumerate(images)]


def texts(count: int = 8, pairs: bool = False) -> list[Sample]:
    """Random words, and a class for each."""
    draw = np.random.default_rng(0)
    some = lambda: " ".join(draw.choice(TEXT.split(), draw.integers(4, 12)))  # noqa: E731
    inputs = [{"text": some()} | ({"text_pair": some()} if pairs else {}) for _ in range(count)]
    return [Sample(f"train/{i}", each, NAMES[i % 3]) for i, each in enumerate(inputs)]


def text_codec(max_length: int = 512) -> Any:
    spec = Model(config={"model_type": "bert"}, tokenizer={"vocab_size": 300})
    task = TextClassification(max_length=max_length)
    tokenizer = task.new_processor(spec, [Sample("", {"text": TEXT}, "a")])
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return task.codec(tokenizer, NAMES)


def stage(**fields: Any) -> Stage:
    plain = {"name": "distil", "max_steps": 4, "global_batch_size": 8, "terms": [{"type": "cross_entropy"}]}
    return Stage(**{**plain, **fields})


def resnet(seed: int, colours: int = 3) -> Any:
    """A few hundred parameters."""
    torch.manual_seed(seed)
    config = transformers.ResNetConfig(
        num_channels=colours, embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config)


def vit(seed: int) -> Any:
    """A model without batch norm: what it says of a sample does not depend on the others."""
    torch.manual_seed(seed)
    config = transformers.ViTConfig(
        image_size=SIDE, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    config.num_labels = 3
    return transformers.ViTForImageClassification(config)
