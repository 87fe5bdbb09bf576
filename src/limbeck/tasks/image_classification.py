"""Image classification: one picture to one class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
import transformers
from PIL import Image
from pydantic import Field

from limbeck.core.errors import DataError, ModelError
from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.core.types import Batch, Sample
from limbeck.data.augmentation import Augmentation, DrawKey, Matter, PixelAugmentation
from limbeck.tasks._base import Codec, Encoded, Feature, Task, label_settings

_KEEP_BYTES = 2**30
"""Prepared pixels up to this size stay in memory; more are prepared again for each batch."""


@part
class ImageClassification(Task):
    """One picture to one class."""

    image_size: int | None = Field(default=None, gt=0)
    """Pixels a side that a new model's pictures are scaled to. Left out: the config's own `image_size`, or else
    the size of the first picture. A model from the hub brings its own processor."""

    roles: ClassVar[Mapping[str, bool]] = {"image": True, "label": True}
    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    unit: ClassVar[str] = "samples"

    def read(self, fields: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        return {"image": picture(fields["image"], where)}, fields["label"], {}

    def load_processor(self, name: str, *, revision: str | None, trust_remote_code: bool) -> Any:
        try:
            return transformers.AutoImageProcessor.from_pretrained(
                name, revision=revision or "main", trust_remote_code=trust_remote_code
            )
        except (OSError, ValueError) as error:
            fix = "name one: tokenizer: NAME"
            raise ModelError(f"there is no image processor at '{name}'", got=error, fix=fix) from error

    def new_processor(self, spec: Model, samples: Sequence[Sample]) -> Any:
        """Pixels scaled to [-1, 1]; for the size see `image_size`."""
        if isinstance(spec.tokenizer, str):
            return self.load_processor(spec.tokenizer, revision=None, trust_remote_code=spec.trust_remote_code)
        config = spec.config or {}
        width, height = samples[0].inputs["image"].size
        if side := self.image_size or config.get("image_size"):
            width = height = side
        channels = config.get("num_channels", 3)
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        half = [0.5] * channels
        return ViTImageProcessorPil(size={"height": height, "width": width}, image_mean=half, image_std=half)

    def codec(self, processor: Any, label_names: tuple[str, ...] | None) -> Codec:
        assert label_names is not None, "a classifier needs its classes"
        return ImageCodec(processor, label_names)

    def same_reading(self, one: Any, other: Any) -> bool:
        return one.to_dict() == other.to_dict()


def picture(value: Any, where: str) -> Image.Image:
    """A picture from what sources give: a picture, pixels (H, W) or (H, W, C) of 0..255, or a file's bytes."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    try:
        if isinstance(value, bytes):
            value = Image.open(io.BytesIO(value))
            value.load()
        if isinstance(value, np.ndarray):
            if value.dtype != np.uint8:
                raise ValueError(f"pixels of type {value.dtype}; uint8 is wanted")
            if value.ndim not in (2, 3) or not value.size:
                raise ValueError(
                    f"an array of shape {value.shape}; (height, width) or (height, width, colours) is wanted"
                )
            value = Image.fromarray(value.squeeze(-1) if value.shape[2:] == (1,) else value)
    except (OSError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: the image cannot be read", got=error) from error
    if not isinstance(value, Image.Image):
        raise DataError(f"{where}: the image is missing or not an image", got=type(value).__name__)
    if value.mode[0] in "IF":  # Pillow would cut off all above 255: a 16-bit picture turns white
        raise DataError(f"{where}: the image has more than 8 bits a colour", got=value.mode, fix="scale it to 0..255")
    return value


class ImageCodec(Codec):
    """Pictures with an image processor; grey or RGB as the processor's statistics say."""

    augments: ClassVar[frozenset[Matter]] = frozenset({"pixels"})

    def __init__(self, processor: Any, label_names: tuple[str, ...]):
        self.processor, self.label_names = processor, label_names
        self.index = {name: i for i, name in enumerate(label_names)}
        self.mode = "L" if len(getattr(processor, "image_mean", None) or [0, 0, 0]) == 1 else "RGB"

    def settings(self) -> dict[str, Any]:
        return {**label_settings(self.label_names or ()), "num_channels": len(self.mode)}

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        samples = list(samples)
        keep = bool(samples) and len(samples) * self._pixels([samples[0]]).nbytes <= _KEEP_BYTES
        features = []
        for sample in samples:
            image = self._pixels([sample])[0] if keep else sample
            features.append(Feature(sample.id, 1, {"image": image, "label": self.index[sample.target]}, sample))
        return Encoded(features)

    def collate(self, features: Sequence[Feature]) -> Batch:
        images = [f.values["image"] for f in features]
        pixels = np.stack([self._pixels([i])[0] if isinstance(i, Sample) else i for i in images])
        labels = torch.tensor([f.values["label"] for f in features])
        return Batch(tuple(f.id for f in features), {"pixel_values": torch.from_numpy(pixels)}, labels)

    def augmented(
        self, features: Sequence[Feature], augmentations: Sequence[Augmentation], key: DrawKey
    ) -> list[Feature]:
        black, range_ = self._levels
        changed = []
        for feature in features:
            image = feature.values["image"]
            pixels_CHW = ((self._pixels([image])[0] if isinstance(image, Sample) else image) - black) / range_
            for place, each in enumerate(cast(Sequence[PixelAugmentation], augmentations)):
                draws = key.draws(feature.id, place)
                if each.happens(draws):
                    pixels_CHW = each.pixels(pixels_CHW, draws)
            image = (pixels_CHW * range_ + black).astype(np.float32)
            changed.append(replace(feature, values={**feature.values, "image": image}))
        return changed

    @cached_property
    def _levels(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """What the processor makes of black, and of the way from black to white, each [C, 1, 1].

        It is asked, not read from its settings: there are several ways to set up the same scale.
        """
        plain = [Image.new(self.mode, (64, 64), level if self.mode == "L" else (level,) * 3) for level in (0, 255)]
        both = self._pixels([Sample("", {"image": image}) for image in plain])
        black, white = both[:, :, both.shape[2] // 2, both.shape[3] // 2, None, None].astype(np.float32)
        return black, white - black

    def _pixels(self, samples: Sequence[Sample]) -> np.ndarray[Any, Any]:
        arrays = [np.asarray(s.inputs["image"].convert(self.mode)) for s in samples]
        arrays = [a[:, :, None] if a.ndim == 2 else a for a in arrays]
        return self.processor(images=arrays, return_tensors="np", input_data_format="channels_last")["pixel_values"]
