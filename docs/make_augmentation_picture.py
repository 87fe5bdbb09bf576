"""Draw docs/images/augmentation.png: digits, and what each augmentation makes of them.

python docs/make_augmentation_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from limbeck.core.parts import build
from limbeck.core.recipe import Data, Stage
from limbeck.data.dataset import load_splits
from limbeck.tasks.image_classification import ImageClassification
from limbeck.training.augment import Augmenter

COLUMNS = {
    "as it is": [],
    "crop": [{"type": "crop", "padding": 2}],
    "flip": [{"type": "flip", "probability": 1}],
    "rotate": [{"type": "rotate", "degrees": 30}],
    "color_jitter": [{"type": "color_jitter", "brightness": 0.6, "contrast": 0.6}],
    "mixup": [{"type": "mixup", "alpha": 4}],
    "cutmix": [{"type": "cutmix", "alpha": 2}],
}
ROWS, STEP = 4, 3


def main() -> None:
    task = ImageClassification()
    splits = load_splits(Data(train=build("source", "digits")), task)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
    codec = task.codec(processor, splits.label_names)
    features = codec.encode(splits.train[4 : 4 + ROWS]).features
    figure, axes = plt.subplots(ROWS, len(COLUMNS), figsize=(7, 4.8), dpi=80)
    for column, (title, augment) in enumerate(COLUMNS.items()):
        stage = Stage(name="picture", terms=[{"type": "cross_entropy"}], augment=augment)  # type: ignore[list-item]
        (batch,) = Augmenter(stage, codec, 0).batches(features, [list(range(ROWS))], STEP)
        for row, pixels in enumerate(batch.inputs["pixel_values"][:, 0]):
            axis = axes[row, column]
            axis.imshow(pixels, cmap="gray_r", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            label = splits.label_names[batch.labels[row]]
            if batch.blend is not None:
                share, other = float(batch.blend.share[row]), splits.label_names[batch.blend.labels[row]]
                label = f"{1 - share:.2f} '{label}', {share:.2f} '{other}'"
            axis.set_xlabel(label, fontsize=7, labelpad=2)
            if row == 0:
                axis.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4, h_pad=1.4)
    figure.savefig(Path(__file__).parent / "images" / "augmentation.png")


if __name__ == "__main__":
    main()
