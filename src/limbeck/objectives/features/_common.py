"""What feature terms share: precision, samples and positions that count, forms of layers.

A layer is rows [B, D], a sequence [B, T, D] or a map [B, C, H, W]. All of them can be seen as positions [B, P, D].

Shapes: B batch, T positions of a text, P positions of any layer, D width, C channels, H height, W width, N positions
of a batch that count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from limbeck.alignment.projectors import describe
from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch
from limbeck.objectives.base import Context, FeatureLoss, Layer, Pair


@dataclass(frozen=True)
class Told:
    """The samples that the teacher was asked about.

    Attributes:
        batch: these samples alone.
        weights_B: the teacher's say in each of them, above zero.
        of: how many samples the micro-batch has.
    """

    batch: Batch
    weights_B: Tensor
    of: int

    @property
    def mask_BT(self) -> Tensor | None:
        """Which positions of the student's texts are real; None for pictures, which have no padding."""
        return self.batch.real

    @property
    def teacher_mask_BT(self) -> Tensor | None:
        """Which positions of the teacher's texts are real."""
        return (self.batch.teacher or self.batch).real

    def counts(self, feature: Tensor) -> Tensor:
        """What each position of a layer counts, [B, P]: of a text, 1 if it is real and 0 if it is padding.

        The positions of a picture count 1 together. Where a layer has no positions of the text, each sample
        counts as many as its text has. The teacher's say multiplies all.

        Raises:
            RecipeError: the layer has another length than the texts.
        """
        size = _positions(feature)
        mask_BT = self.mask_BT
        if mask_BT is None:
            each_BP = self.weights_B.new_full((len(feature), size), 1 / size)
        elif feature.ndim == 3:
            self.check_length(feature)
            each_BP = mask_BT.to(self.weights_B.dtype)
        else:
            each_BP = (mask_BT.sum(1, keepdim=True) / size).to(self.weights_B.dtype).expand(-1, size)
        return each_BP * self.weights_B[:, None]

    def real(self, feature_BTD: Tensor) -> Tensor:
        """Which positions of a sequence are real, [B, T]; all of a picture's are."""
        if self.mask_BT is None:
            return torch.ones(feature_BTD.shape[:2], dtype=torch.bool, device=feature_BTD.device)
        self.check_length(feature_BTD)
        return self.mask_BT

    def check_length(self, feature_BTD: Tensor) -> None:
        """Make sure that a sequence has the positions of the texts."""
        if self.mask_BT is not None and self.mask_BT.shape[1] != feature_BTD.shape[1]:
            raise RecipeError(
                "a layer has other positions than the text that it reads",
                got=f"{feature_BTD.shape[1]} positions for {self.mask_BT.shape[1]} tokens",
                fix="match a layer that gives one row for each token",
            )

    def check_enough(self, least: int, training: bool) -> None:
        """Make sure that the micro-batches of a training have so many samples that these can be compared."""
        if training and self.of < least:
            raise RecipeError(
                f"samples are compared with each other, and a micro-batch has fewer than {least}",
                got=f"{self.of} of them",
                fix="a larger per_device_train_batch_size, of which the global batch is a multiple",
            )

    def check_same_text(self) -> None:
        """Make sure that student and teacher read the same tokens, so that positions can be compared one by one.

        Their ids may differ (a trimmed vocabulary), but not where a text is cut.
        """
        if self.batch.spans is not None and self.mask_BT is not None:
            raise RecipeError(
                "student and teacher cut texts into different tokens, so their positions cannot be compared",
                fix="a term that compares whole samples: cka, rkd, similarity_preserving, pkt or crd",
            )

    def check_picture(self) -> None:
        """Make sure that a sequence is made of patches of a picture, before it is laid out as a map."""
        if self.mask_BT is not None:
            raise RecipeError("the positions of a text are no map", fix="this term is for pictures; take `hidden`")


class Compared(FeatureLoss, ABC):
    """A loss that is a mean over pairs of layers. It is computed in float32, or float64 for float64 models.

    Samples that the teacher was not asked about are taken out before anything is computed.

    Args:
        pairs: the layers that are compared.
    """

    def __init__(self, pairs: Sequence[Pair]):
        super().__init__()
        self.pairs = tuple(pairs)
        self.projectors = nn.ModuleList()

    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        first = student[0][0]
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        told, rows = _asked(context, len(first), first.device, dtype)
        with torch.autocast(first.device.type, enabled=False):
            mine = [[_cut(x, rows).to(dtype) for x in taps] for taps in student]
            theirs = [[_cut(x.detach(), rows).to(dtype) for x in taps] for taps in teacher]
            return self.compare(mine, theirs, told)

    def compare(self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], told: Told) -> Tensor:
        """The term's sum over its units: the mean over the pairs."""
        values = [
            self.compare_pair(i, mine, theirs, told)
            for i, (mine, theirs) in enumerate(zip(student, teacher, strict=True))
        ]
        return torch.stack(values).mean()

    @abstractmethod
    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        """One pair's sum over the units, a scalar.

        Args:
            place: the pair's number.
            student: what each tap of the student's layer gave.
            teacher: the same of the teacher's.
            told: the samples.
        """

    def between(self) -> list[str]:
        return [describe(projector) for projector in self.projectors]


def _asked(context: Context, count: int, device: torch.device, dtype: torch.dtype) -> tuple[Told, Tensor | None]:
    """The samples that the teacher was asked about, and their places (None: all)."""
    if context.weights is None:
        return Told(context.batch, torch.ones(count, dtype=dtype, device=device), count), None
    rows = (context.weights > 0).nonzero().squeeze(1)
    return Told(context.batch.rows(rows), context.weights[rows].to(dtype), count), rows


def _cut(feature: Tensor, rows: Tensor | None) -> Tensor:
    return feature if rows is None else feature[rows]


def _positions(feature: Tensor) -> int:
    if feature.ndim == 2:
        return 1
    return feature.shape[1] if feature.ndim == 3 else feature.shape[2] * feature.shape[3]


def places(pair: Pair) -> str:
    """Both layers of a pair with their shapes, for a message."""
    mine, theirs = layers(pair)
    return f"student {mine.path} {list(mine.shapes[0])} and teacher {theirs.path} {list(theirs.shapes[0])}"


def layers(pair: Pair) -> tuple[Layer, Layer]:
    """The student's layer and the teacher's."""
    assert pair.teacher is not None, "feature terms always match a teacher's layer"
    return pair.student, pair.teacher


Mixed = Literal["no", "maps", "any"]
"""Which forms may stand beside each other: equal ones, maps and sequences of patches too, or any."""


def check_pairs(pairs: Sequence[Pair], ranks: Sequence[int], *, mixed: Mixed = "no") -> None:
    """Make sure that there are pairs and that a term can compare their forms and lengths.

    Args:
        pairs: what was matched.
        ranks: numbers of dimensions that the term reads.
        mixed: which forms may stand beside each other; with `any`, lengths may differ as well.

    Raises:
        RecipeError: one of these does not hold; the message names both layers.
    """
    if not pairs:
        raise RecipeError("a term matches no layers", fix="`match:` names a student's layer and a teacher's")
    for pair in pairs:
        one, other = (layer.shapes[0] for layer in layers(pair))
        if len(one) not in ranks or len(other) not in ranks:
            allowed = " or ".join(_FORMS[rank] for rank in ranks)
            raise RecipeError("a layer has a form that the term does not read", got=places(pair), allowed=allowed)
        if mixed == "any":
            continue
        if len(one) != len(other) and (mixed == "no" or 2 in (len(one), len(other))):
            raise RecipeError("layers of different forms cannot be compared", got=places(pair))
        if len(one) == len(other) == 3 and one[1] != other[1]:
            raise RecipeError("sequences of different lengths cannot be compared", got=places(pair))


_FORMS = {2: "[B, D]", 3: "[B, T, D]", 4: "[B, C, H, W]"}


def check_lengths(student_BTD: Tensor, teacher_BTD: Tensor, pair: Pair) -> None:
    """Make sure that two sequences have as many positions."""
    if student_BTD.shape[1] != teacher_BTD.shape[1]:
        raise RecipeError(
            "sequences of different lengths cannot be compared",
            got=f"{student_BTD.shape[1]} and {teacher_BTD.shape[1]} positions at {places(pair)}",
        )


def map_shape(shape: Sequence[int], pair: Pair) -> tuple[int, int, int]:
    """Channels, height and width of a layer seen as a map.

    A sequence of patches [B, T, D] is a square map; one or two tokens before the patches (class, distillation) are
    left out.

    Raises:
        RecipeError: the number of patches is no square.
    """
    if len(shape) == 4:
        return shape[1], shape[2], shape[3]
    if len(shape) != 3:
        raise RecipeError("layers of different forms cannot be compared", got=places(pair))
    side = _square(shape[1])
    if side is None:
        raise RecipeError(
            "a sequence cannot be laid out as a square map",
            got=f"{shape[1]} positions at {places(pair)}",
            allowed="a square number, or one or two more for tokens that are no patches",
        )
    return shape[2], side, side


def _square(length: int) -> int | None:
    return next((isqrt(n) for n in range(length, max(0, length - 3), -1) if isqrt(n) ** 2 == n), None)


def to_map(feature: Tensor, pair: Pair, told: Told) -> Tensor:
    """A layer as a map [B, C, H, W]; see `map_shape`."""
    if feature.ndim == 4:
        return feature
    told.check_picture()
    channels, height, width = map_shape(feature.shape, pair)
    patches_BTD = feature[:, feature.shape[1] - height * width :]
    return patches_BTD.transpose(1, 2).reshape(len(feature), channels, height, width)


def same_size(student_BCHW: Tensor, teacher_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller height and width of the two; the larger one is averaged over areas."""
    one, other = student_BCHW.shape[-2:], teacher_BCHW.shape[-2:]
    size = (min(one[0], other[0]), min(one[1], other[1]))

    def fit(x: Tensor) -> Tensor:
        return x if tuple(x.shape[-2:]) == size else adaptive_avg_pool2d(x, size)

    return fit(student_BCHW), fit(teacher_BCHW)


def unit(rows: Tensor) -> Tensor:
    """Rows [..., D] divided by their length; rows of zeros stay, and nothing overflows on the way."""
    peak = rows.detach().abs().amax(-1, keepdim=True) if rows.numel() else rows.new_ones(*rows.shape[:-1], 1)
    scaled = rows / torch.where(peak > 0, peak, 1)  # the length does not depend on the scale
    squares = (scaled * scaled).sum(-1, keepdim=True)
    return scaled / torch.where(peak > 0, squares, 1).sqrt()


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cos of rows [..., D], as half the squared distance of the unit rows: exactly 0 for equal ones."""
    return (unit(student) - unit(teacher)).square().sum(-1) / 2


def rows_of(
    student: Tensor, teacher: Tensor, project: nn.Module, pair: Pair, told: Told
) -> tuple[Tensor, Tensor, Tensor]:
    """Two layers as rows that can be compared one by one.

    Sequences lose their padding before they are projected, so that what is there reaches nothing. A map beside a
    sequence of patches is compared as a map; maps are brought to one size.

    Returns:
        The student's projected rows [N, E], the teacher's [N, E], and what each counts [N].
    """
    if 4 in (student.ndim, teacher.ndim):
        mine, theirs = same_size(to_map(student, pair, told), to_map(teacher, pair, told))
        mine = project(mine)
        counts_BP = told.counts(mine)
        return _flat(mine), _flat(theirs), counts_BP.flatten()
    if student.ndim == 3:
        told.check_same_text()
        check_lengths(student, teacher, pair)
    counts_BP = told.counts(student)
    if student.ndim == 2:
        return project(student), teacher, counts_BP.squeeze(1)
    keep_BP = counts_BP > 0
    return project(student[keep_BP]), teacher[keep_BP], counts_BP[keep_BP]


def _flat(map_BCHW: Tensor) -> Tensor:
    return map_BCHW.permute(0, 2, 3, 1).flatten(0, 2)


def width(layer: Layer) -> int:
    """A layer's width D, or channels C."""
    return layer.shapes[0][1] if len(layer.shapes[0]) == 4 else layer.shapes[0][-1]


def is_map(pair: Pair) -> bool:
    """Whether a pair is compared as maps."""
    return any(len(layer.shapes[0]) == 4 for layer in layers(pair))
