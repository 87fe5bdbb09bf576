"""Pictures beside the examples."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from limbeck.core.types import Sample
from limbeck.evaluation.pictures import SIDE, add_pictures


def test_examples_get_their_pictures_and_no_others() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    samples = [
        Sample("a", {"image": Image.fromarray(noise)}),
        Sample("b", {"text": "no picture"}),
        Sample("c", {"image": Image.fromarray(noise[:8, :8, 0])}),
        Sample("d", {"image": Image.fromarray(noise)}),
    ]
    examples = [{"id": "c"}, {"id": "b"}, {"id": "a"}]
    add_pictures(examples, samples)
    assert "image" not in examples[1]
    shown = []
    for each in (examples[0], examples[2]):
        kind, _, data = each["image"].partition(",")
        assert kind == "data:image/png;base64"
        shown.append(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(np.asarray(shown[0]), noise[:8, :8, 0])
    assert max(shown[1].size) == SIDE
    assert len(examples[2]["image"]) < 40_000
