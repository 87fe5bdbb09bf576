"""A step's micro-batches, augmented before teacher or student sees them: both get the same tensors.

Every change is a function of the run's seed, the step, and the sample's id. So a resumed run repeats it, and neither
micro-batches nor processes change it, blending with another sample included: partners are drawn from the whole
step's batch, which every process knows.

Shapes: B batch, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from limbeck.core.errors import RecipeError
from limbeck.core.parts import config_of, find, names
from limbeck.core.recipe import Stage
from limbeck.core.types import Batch, Blend
from limbeck.data.augmentation import (
    SCHEME,
    Augmentation,
    BlendAugmentation,
    Blending,
    DrawKey,
    TextAugmentation,
    partners,
    refuse_disorder,
)
from limbeck.tasks import Codec, Feature

PIXELS = "pixel_values"
"""The input that blending acts on."""


class Augmenter:
    """Makes a stage's batches.

    Args:
        stage: its `augment` and `views` say what is done.
        codec: makes batches, and changes samples.
        seed: the run's.

    Raises:
        RecipeError: the task's samples, the stage's views or its batch size do not fit an augmentation or a term.
        MissingExtra: an augmentation needs a library that is not installed.
    """

    def __init__(self, stage: Stage, codec: Codec, seed: int):
        asked = cast(Sequence[Augmentation], stage.augment)
        self.codec, self.seed, self.views = codec, seed, list(stage.views)
        self.single = [each for each in asked if not isinstance(each, BlendAugmentation)]
        self.blends = [each for each in asked if isinstance(each, BlendAugmentation)]
        self.active = bool(asked) or len(self.views) > 1
        where = f"stage {stage.name}"
        refuse_disorder(asked)
        _refuse_unfit(asked, codec, where)
        refuse_blends(stage)
        if self.blends and (len(self.views) > 1 or stage.global_batch_size < 2):
            got = f"views {self.views}, global_batch_size {stage.global_batch_size}"
            allowed = "one view, and two samples or more in a step"
            raise RecipeError(f"{where}: '{self.blends[0].type()}' cannot blend", got=got, allowed=allowed)
        for term in stage.terms:
            if len(self.views) < getattr(term, "needs_views", 1):
                what = f"{where}: the term '{term.type()}' compares views of a sample"
                raise RecipeError(what, got=f"views {self.views}", fix="views: [clean, augmented]")
        for each in self.single:  # says now what is not installed
            if isinstance(each, TextAugmentation):
                each.text("text", DrawKey(seed, 0).draws("", 0))

    @property
    def longest(self) -> int | None:
        """Tokens that an augmented text may have: a mistyped word is more of them. None where no text grows."""
        grows = any(isinstance(each, TextAugmentation) for each in self.single)
        return getattr(self.codec, "max_length", None) if grows else None

    def batches(self, drawn: Sequence[Feature], parts: Sequence[Sequence[int]], step: int) -> list[Batch]:
        """This process's micro-batches of a step.

        Args:
            drawn: all samples of the step, over all processes.
            parts: of every micro-batch, the places of its samples in `drawn`.
            step: the step's number in the whole run.
        """
        if not self.active:
            return [self.codec.collate([drawn[i] for i in part]) for part in parts]
        keys = [DrawKey(self.seed, step, view) for view in range(len(self.views))]
        if self.blends:
            return self._blended(drawn, parts, keys[0])
        return [self._in_views([drawn[i] for i in part], keys) for part in parts]

    def _in_views(self, features: Sequence[Feature], keys: Sequence[DrawKey]) -> Batch:
        """Each sample once for every view: first all in the first view, then all in the second."""
        rows: list[Feature] = []
        draws: list[str | None] = []
        for kind, key in zip(self.views, keys, strict=True):
            rows += self._changed(features, key) if kind == "augmented" else features
            draws += [key.name(each.id) if kind == "augmented" and self.single else None for each in features]
        return replace(self.codec.collate(rows), views=len(self.views), draws=tuple(draws))

    def _blended(self, drawn: Sequence[Feature], parts: Sequence[Sequence[int]], key: DrawKey) -> list[Batch]:
        """Every sample with a part of its partner, which may belong to another micro-batch or process."""
        other = partners(len(drawn), key.draws("", len(self.single)))
        seen = sorted({i for part in parts for i in part} | {int(other[i]) for part in parts for i in part})
        changed = dict(zip(seen, self._changed([drawn[i] for i in seen], key), strict=True))
        made = []
        for part in parts:
            rows = self.codec.collate([changed[i] for i in part])
            others = self.codec.collate([changed[int(other[i])] for i in part])
            height, width = rows.inputs[PIXELS].shape[-2:]
            how = [self._blending(drawn[i].id, height, width, key) for i in part]
            alone = [key.name(each) if self.single else None for each in rows.ids]
            both = [f"{key.name(one)}+{two}" for one, two in zip(rows.ids, others.ids, strict=True)]
            draws = tuple(a if each is None else b for a, b, each in zip(alone, both, how, strict=True))
            made.append(replace(blend(rows, others, how), draws=draws))
        return made

    def _changed(self, features: Sequence[Feature], key: DrawKey) -> Sequence[Feature]:
        return self.codec.augmented(features, self.single, key) if self.single else features

    def _blending(self, sample: str, height: int, width: int, key: DrawKey) -> Blending | None:
        for place, each in enumerate(self.blends, start=len(self.single)):
            draws = key.draws(sample, place)
            if each.happens(draws):
                return each.blending(height, width, draws)
        return None


def blend(batch: Batch, others: Batch, how: Sequence[Blending | None]) -> Batch:
    """Pictures with parts of other pictures, and both labels.

    Args:
        batch: pixels [B, C, H, W] and labels [B].
        others: whom each row is blended with, of the same shapes.
        how: of every row; None leaves it as it is, with a share of 0 for the other label.
    """
    pixels_BCHW, theirs_BCHW = batch.inputs[PIXELS].clone(), others.inputs[PIXELS]
    for row, each in enumerate(how):
        if each is None:
            continue
        if each.box is None:
            pixels_BCHW[row] = (1 - each.share) * pixels_BCHW[row] + each.share * theirs_BCHW[row]
        else:
            top, bottom, left, right = each.box
            pixels_BCHW[row, :, top:bottom, left:right] = theirs_BCHW[row, :, top:bottom, left:right]
    share_B = torch.tensor([0.0 if each is None else each.share for each in how], device=pixels_BCHW.device)
    inputs = {**batch.inputs, PIXELS: pixels_BCHW}
    return replace(batch, inputs=inputs, blend=Blend(others.labels, share_B))


def refuse_blends(stage: Stage) -> None:
    """Refuse terms that need one true class where samples are blended of two.

    Raises:
        RecipeError: the stage has both.
    """
    blends = [each.type() for each in stage.augment if isinstance(each, BlendAugmentation)]
    lost = [term for term in stage.terms if not getattr(term, "takes_blends", True)]
    if blends and lost:
        raise RecipeError(
            f"stage {stage.name}: the term '{lost[0].type()}' tells one true class from all others",
            got=f"samples that were blended of two ({blends[0]})",
            fix="take another term, such as kl, or train without mixup and cutmix",
        )


def _refuse_unfit(asked: Sequence[Augmentation], codec: Codec, where: str) -> None:
    """Refuse what acts on something that the task's samples do not have: texts have no pixels to mix."""
    for each in asked:
        if each.matter not in codec.augments:
            known = [name for name in names("augmentation") if _matter(name) in codec.augments]
            raise RecipeError(
                f"{where}: '{each.type()}' changes {each.matter}, which samples of this task do not have",
                got=each.type(),
                allowed=", ".join(known) or "no augmentation",
            )


def _matter(name: str) -> Any:
    return getattr(find("augmentation", name), "matter", None)


def draw_record(stage: Stage, seed: int) -> dict[str, Any]:
    """What decides every draw of a stage, as JSON values: a recording keeps it, so that it can be replayed."""
    plan = {name: getattr(stage, name) for name in ("views", "global_batch_size", "epochs", "max_steps")}
    return {
        "scheme": SCHEME,
        "seed": seed,
        "augment": [config_of(each) for each in stage.augment],
        **plan,
        "group_by_length": stage.group_by_length,
    }


def refuse_without_replay(stage: Stage, teacher: Any, seed: int) -> None:
    """Refuse a teacher whose answers were recorded on other pictures or texts than the student will see.

    A teacher that answers from a recording has the attribute `recorded`: the `draw_record` under which it was made,
    or None if it saw the samples as they are. A live teacher has no such attribute: it reads each batch itself.

    Raises:
        RecipeError: the draws differ, or cannot be repeated.
    """
    asked = cast(Sequence[Augmentation], stage.augment)
    if not asked or not hasattr(teacher, "recorded"):
        return
    if lost := [each.type() for each in asked if not each.replayable]:
        raise RecipeError(
            f"stage {stage.name}: a recorded teacher cannot follow '{lost[0]}', whose draws cannot be repeated",
            fix="a live teacher, or leave it out of `augment`",
        )
    recorded: Mapping[str, Any] | None = teacher.recorded
    wanted = draw_record(stage, seed)
    if recorded != wanted:
        differing = [name for name in wanted if recorded is not None and recorded.get(name) != wanted[name]]
        raise RecipeError(
            f"stage {stage.name}: the recorded teacher saw other draws than the student will",
            got="recorded without augmentation" if recorded is None else f"another {', '.join(differing)}",
            fix="record it again with this stage, or use a live teacher",
        )
