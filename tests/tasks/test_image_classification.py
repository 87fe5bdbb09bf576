"""Image classification: what counts as a picture, and what a model sees of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from limbeck.core.errors import DataError, ModelError
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.tasks import image_classification
from limbeck.tasks.image_classification import ImageClassification, picture

NAMES = ("cat", "dog")
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], -1)


def png(pixels: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def codec(channels: int = 3, **more: Any) -> Any:
    half = [0.5] * channels
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=half, image_std=half, **more)
    return ImageClassification().codec(processor, NAMES)


def seen(made: Any, *pictures: Image.Image) -> torch.Tensor:
    samples = [Sample(str(i), {"image": p}, "dog") for i, p in enumerate(pictures)]
    return made.collate(made.encode(samples).features).inputs["pixel_values"]


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(COLOUR), COLOUR),
        (GREY, GREY),
        (GREY[:, :, None], GREY),
        (GREY[:, :1], GREY[:, :1]),
        (COLOUR, COLOUR),
        (png(GREY), GREY),
        (png(COLOUR), COLOUR),
        (png(COLOUR, "BMP"), COLOUR),
        ({"bytes": png(COLOUR), "path": None}, COLOUR),
    ],
)
def test_pictures_come_in_many_forms(value: Any, pixels: np.ndarray[Any, Any]) -> None:
    made = picture(value, "row 0")
    assert made.mode == ("L" if pixels.ndim == 2 else "RGB")
    assert (np.asarray(made) == pixels).all()


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (GREY / 255, "pixels of type float64; uint8 is wanted"),
        (GREY.astype(np.int64), "pixels of type int64"),
        (COLOUR.transpose(2, 0, 1), "Cannot handle"),
        (GREY[0], "shape"),
        (GREY[:0], "shape"),
        (b"no picture", "cannot identify"),
        (png(COLOUR)[:60], ""),
        (png(GREY.astype(np.uint16) * 300), "I;16"),
        ({"bytes": None, "path": "gone.png"}, "NoneType"),
        (None, "NoneType"),
        ("cat.png", "str"),
    ],
)
def test_what_is_no_picture_is_refused_by_row(value: Any, got: str) -> None:
    with pytest.raises(DataError, match=rf"pets\.csv, row 12: the image (.|\n)*{got}"):
        picture(value, "pets.csv, row 12")


def test_a_picture_beyond_all_bounds_is_refused() -> None:
    header = bytearray(png(GREY, "BMP"))
    header[18:22] = (60_000).to_bytes(4, "little")
    header[22:26] = (60_000).to_bytes(4, "little")
    with pytest.raises(DataError, match="row 0: the image cannot be read"):
        picture(bytes(header), "row 0")


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_take_the_colours_that_the_processor_knows(channels: int) -> None:
    made = codec(channels)
    grey, colour = seen(made, Image.fromarray(GREY)), seen(made, Image.fromarray(COLOUR))
    assert grey.shape == colour.shape == (1, channels, 8, 8)
    torch.testing.assert_close(grey[0, -1], torch.from_numpy(GREY / 127.5 - 1).float())
    wanted = np.asarray(Image.fromarray(COLOUR).convert("L"))[:, :, None] if channels == 1 else COLOUR
    torch.testing.assert_close(colour[0], torch.from_numpy(wanted / 127.5 - 1).float().permute(2, 0, 1))
    assert made.settings()["num_channels"] == channels


def test_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    made = codec()
    samples = [
        Sample("a", {"image": Image.fromarray(GREY)}, "dog"),
        Sample("b", {"image": Image.fromarray(COLOUR)}, "cat"),
    ]
    found = made.encode(samples)
    assert [f.length for f in found.features] == [1, 1]
    batch = made.collate(found.features)
    assert batch.ids == ("a", "b")
    assert batch.labels.tolist() == [1, 0]
    monkeypatch.setattr(image_classification, "_KEEP_BYTES", 0)  # too many to keep: prepared batch by batch
    late = made.collate(made.encode(samples).features)
    torch.testing.assert_close(late.inputs, batch.inputs)
    assert len(made.encode([])) == 0


def test_pictures_of_any_size_are_scaled() -> None:
    wide = Image.fromarray(np.repeat(COLOUR, 3, axis=1))
    assert seen(codec(), wide, Image.fromarray(GREY)).shape == (2, 3, 8, 8)


def test_new_processors_fit_config_and_pictures() -> None:
    task, sample = ImageClassification(), Sample("a", {"image": Image.fromarray(np.zeros((6, 10), np.uint8))}, "cat")
    own = task.new_processor(Model(config={"model_type": "resnet", "num_channels": 1}), [sample])
    assert (own.size["height"], own.size["width"], len(own.image_mean)) == (6, 10, 1)
    vit = task.new_processor(Model(config={"model_type": "vit", "image_size": 16}), [sample])
    assert (vit.size["height"], vit.size["width"], len(vit.image_mean)) == (16, 16, 3)
    assert task.same_reading(own, own)
    assert not task.same_reading(own, vit)
    with pytest.raises(ModelError, match="there is no image processor at"):
        task.new_processor(Model(config={"model_type": "vit"}, tokenizer="./nowhere"), [sample])


def test_a_saved_processor_reads_the_same(tmp_path: Any) -> None:
    made = codec(1)
    made.save(tmp_path)
    again = ImageClassification().load_processor(str(tmp_path), revision=None, trust_remote_code=False)
    assert ImageClassification().same_reading(made.processor, again)
    torch.testing.assert_close(
        seen(ImageClassification().codec(again, NAMES), Image.fromarray(GREY)), seen(made, Image.fromarray(GREY))
    )
