"""Augmented batches: the same for both models, for every split and for a resumed run.

Shapes: B batch, C colours, H height, W width, N rows, V classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import Batch, Dense, Signal
from limbeck.data.augmentation import Blending, DrawKey, PixelAugmentation
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.tasks._text import train_bpe
from limbeck.tasks.causal_lm import CausalLM
from limbeck.teachers.local import LocalTeacher
from limbeck.training.augment import Augmenter, blend, draw_record, refuse_without_replay
from limbeck.training.batches import share
from limbeck.training.distiller import Distiller
from tests.training.augmented import SIDE, picture_codec, pictures, resnet, stage, text_codec, texts

CROPS = [{"type": "crop", "padding": 2}, {"type": "flip"}, {"type": "rotate"}, {"type": "color_jitter", "hue": 0.1}]
MIXUP, CUTMIX = {"type": "mixup"}, {"type": "cutmix"}
WORDS = [{"type": "typo", "rate": 0.2}, {"type": "token_deletion", "rate": 0.2}, {"type": "token_swap"}]
ALL = [list(range(8))]


def picture_batches(augment: Any, step: int = 5, parts: Any = ALL, seed: int = 1, **fields: Any) -> list[Batch]:
    codec = picture_codec()
    features = codec.encode(pictures()).features
    return Augmenter(stage(augment=augment, **fields), codec, seed).batches(features, parts, step)


def text_batches(augment: Any, step: int = 5, parts: Any = ALL, pairs: bool = False, **fields: Any) -> list[Batch]:
    codec = text_codec()
    features = codec.encode(texts(pairs=pairs)).features
    return Augmenter(stage(augment=augment, **fields), codec, 1).batches(features, parts, step)


def pixels(batch: Batch) -> Tensor:
    return batch.inputs["pixel_values"]


def real_ids(batch: Batch, row: int) -> Tensor:
    return batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()]


def test_without_augmentation_a_batch_is_what_it_was() -> None:
    codec = picture_codec()
    (batch,), plain = picture_batches([]), codec.collate(codec.encode(pictures()).features)
    assert torch.equal(pixels(batch), pixels(plain))
    assert (batch.ids, batch.views, batch.draws, batch.blend) == (plain.ids, 1, None, None)


@pytest.mark.parametrize("augment", [CROPS, [MIXUP], [*CROPS, CUTMIX]], ids=["single", "mixup", "all"])
def test_a_draw_hangs_on_seed_and_step_alone(augment: Any) -> None:
    (first,), (again,) = picture_batches(augment), picture_batches(augment)  # the second one never saw steps 0 to 4
    assert torch.equal(pixels(first), pixels(again))
    assert first.draws == again.draws
    assert not torch.equal(pixels(first), pixels(picture_batches(augment, step=6)[0]))
    assert not torch.equal(pixels(first), pixels(picture_batches(augment, seed=2)[0]))


@pytest.mark.parametrize("augment", [CROPS, [MIXUP], [*CROPS, CUTMIX]], ids=["single", "mixup", "all"])
@pytest.mark.parametrize(("world", "micro"), [(1, 2), (1, 1), (2, 4), (2, 1)])
def test_neither_micro_batches_nor_processes_change_a_draw(augment: Any, world: int, micro: int) -> None:
    (whole,) = picture_batches(augment)
    for rank in range(world):
        parts = share(range(8), rank, world, micro)
        for part_, batch in zip(parts, picture_batches(augment, parts=parts), strict=True):
            assert batch.ids == tuple(whole.ids[i] for i in part_)
            assert batch.draws == tuple(whole.draws[i] for i in part_)  # type: ignore[index]
            assert torch.equal(pixels(batch), pixels(whole)[part_])
            if whole.blend is not None:
                assert batch.blend is not None
                assert torch.equal(batch.blend.labels, whole.blend.labels[part_])
                assert torch.equal(batch.blend.share, whole.blend.share[part_])


def test_teacher_and_student_get_the_same_tensors() -> None:
    (batch,) = picture_batches([*CROPS, MIXUP])
    teacher, student = resnet(1), resnet(2)
    seen: dict[str, Tensor] = {}
    for name, model in (("teacher", teacher), ("student", student)):
        model.register_forward_pre_hook(
            lambda module, given, named, name=name: seen.update({name: named["pixel_values"].clone()}), with_kwargs=True
        )
    terms = stage(terms=[{"type": "cross_entropy"}, {"type": "kl"}]).terms
    distiller = Distiller(student, terms)  # type: ignore[arg-type]
    distiller(batch, LocalTeacher(teacher).signal(batch, distiller.asks_teacher), [1.0, 1.0])
    assert torch.equal(seen["teacher"], seen["student"])
    assert torch.equal(seen["teacher"], pixels(batch))
    assert not torch.equal(seen["teacher"], pixels(picture_batches([])[0]))


class TestBlending:
    def test_mixup_is_the_mean_of_two_pictures(self) -> None:
        (batch,), (plain,) = picture_batches([MIXUP]), picture_batches([])
        assert batch.blend is not None
        assert batch.draws is not None
        assert torch.equal(batch.labels, plain.labels)
        others = [plain.ids.index(name.split("+")[1]) for name in batch.draws]
        assert all(i != other for i, other in enumerate(others))
        share_B111 = batch.blend.share[:, None, None, None]
        torch.testing.assert_close(pixels(batch), (1 - share_B111) * pixels(plain) + share_B111 * pixels(plain)[others])
        assert torch.equal(batch.blend.labels, plain.labels[others])

    def test_the_share_of_cutmix_is_that_of_the_pixels(self) -> None:
        for step in range(10):
            (batch,), (plain,) = picture_batches([CUTMIX], step=step), picture_batches([])
            assert batch.blend is not None
            assert batch.draws is not None
            others = [plain.ids.index(name.split("+")[1]) for name in batch.draws]
            foreign = (pixels(batch) != pixels(plain)).any(1)
            assert torch.equal(pixels(batch)[:, 0][foreign], pixels(plain)[others][:, 0][foreign])
            torch.testing.assert_close(foreign.float().mean((1, 2)), batch.blend.share)

    def test_a_known_box(self) -> None:
        zeros = Batch(("a",), {"pixel_values": torch.zeros(1, 3, 4, 4)}, torch.tensor([0]))
        ones = replace(zeros, inputs={"pixel_values": torch.ones(1, 3, 4, 4)}, labels=torch.tensor([2]))
        made = blend(zeros, ones, [Blending(6 / 16, (1, 3, 0, 3))])
        expected = torch.zeros(4, 4)
        expected[1:3, 0:3] = 1
        assert torch.equal(pixels(made), expected.expand(1, 3, 4, 4))
        assert made.blend is not None
        assert pixels(made).mean() == made.blend.share[0]
        assert pixels(zeros).sum() == 0

    def test_of_several_a_picture_takes_part_in_one(self) -> None:
        half = {**MIXUP, "probability": 0.5}
        parted = [picture_batches([half, CUTMIX], step=step)[0] for step in range(20)]
        plain = pixels(picture_batches([])[0])
        changed = torch.stack([(pixels(batch) != plain).flatten(1).float().mean(1) for batch in parted])
        mixed = changed > 0.95
        assert 0.3 < mixed.float().mean() < 0.7

    def test_what_is_not_drawn_stays(self) -> None:
        (batch,), (plain,) = picture_batches([{**MIXUP, "probability": 0.4}]), picture_batches([])
        assert batch.blend is not None
        alone = batch.blend.share == 0
        assert 0 < alone.sum() < 8
        assert torch.equal(pixels(batch)[alone], pixels(plain)[alone])
        assert [name is None for name in batch.draws or ()] == alone.tolist()

    def test_cross_entropy_takes_both_labels_by_their_shares(self) -> None:
        (batch,) = picture_batches([MIXUP])
        assert batch.blend is not None
        logits_NV = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
        logs_NV = logits_NV.log_softmax(1)
        own, other = (-logs_NV.gather(1, y[:, None]).squeeze(1) for y in (batch.labels, batch.blend.labels))
        expected = ((1 - batch.blend.share) * own + batch.blend.share * other).sum()
        total, sums = distribution_loss(
            Dense(logits_NV), None, batch.labels, [CrossEntropy()], [1.0], blend=batch.blend
        )
        torch.testing.assert_close(total, expected)
        torch.testing.assert_close(sums["cross_entropy"], expected.detach())
        student = resnet(2).eval()
        with torch.no_grad():
            _, values = Distiller(student, [CrossEntropy()])(batch, Signal(), [1.0])
            logs_NV = student(**batch.inputs).logits.log_softmax(1)
        own, other = (-logs_NV.gather(1, y[:, None]).squeeze(1) for y in (batch.labels, batch.blend.labels))
        torch.testing.assert_close(values["cross_entropy"], torch.lerp(own, other, batch.blend.share).sum())
        (got,), (wanted,) = torch.autograd.grad(total, logits_NV), torch.autograd.grad(expected, logits_NV)
        torch.testing.assert_close(got, wanted)


class TestPictures:
    @pytest.mark.parametrize("more", [{}, {"do_normalize": False}, {"do_rescale": False, "do_normalize": False}])
    @pytest.mark.parametrize("colours", [1, 3])
    def test_parts_see_pixels_from_0_to_1(self, colours: int, more: dict[str, Any]) -> None:
        codec, samples = picture_codec(colours, **more), pictures(2, colours)
        seen = []

        @part
        class Look(PixelAugmentation):
            """Keeps what it is shown."""

            def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
                seen.append(pixels_CHW)
                return pixels_CHW

        features = codec.encode(samples).features
        same = codec.augmented(features, [Look()], DrawKey(0, 0))
        for sample, shown, before, after in zip(samples, seen, features, same, strict=True):
            raw = np.asarray(sample.inputs["image"]).reshape(SIDE, SIDE, colours).transpose(2, 0, 1) / 255
            np.testing.assert_allclose(shown, raw, atol=1e-5)
            np.testing.assert_allclose(after.values["image"], before.values["image"], rtol=1e-4, atol=1e-5)
            assert shown.dtype == after.values["image"].dtype == np.float32

    def test_what_a_crop_adds_is_black(self) -> None:
        (batch,) = picture_batches([{"type": "crop", "padding": SIDE}])
        black = torch.tensor([-0.2 / 0.3, -0.5 / 0.25, -0.7 / 0.5])
        matches = (pixels(batch) - black[:, None, None]).abs().amax(1) < 1e-5
        assert matches.flatten(1).any(1).all()

    def test_pictures_that_are_prepared_late_get_the_same_draw(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (kept,) = picture_batches(CROPS)
        monkeypatch.setattr("limbeck.tasks.image_classification._KEEP_BYTES", 0)
        (late,) = picture_batches(CROPS)
        assert torch.equal(pixels(kept), pixels(late))


class TestTexts:
    def test_special_tokens_and_segments_stay(self) -> None:
        codec = text_codec()
        special = {codec.processor.cls_token_id, codec.processor.sep_token_id}
        (plain,), (batch,) = text_batches([], pairs=True), text_batches(WORDS[1:], pairs=True)
        for row in range(8):
            ids, types = batch.inputs["input_ids"][row], batch.inputs["token_type_ids"][row]
            real = batch.inputs["attention_mask"][row].bool()
            old, old_types = plain.inputs["input_ids"][row], plain.inputs["token_type_ids"][row]
            assert [i for i in ids[real].tolist() if i in special] == [i for i in old.tolist() if i in special]
            for segment in (0, 1):  # tokens stay in their own text
                ours = ids[real & (types == segment)].tolist()
                theirs = old[plain.inputs["attention_mask"][row].bool() & (old_types == segment)].tolist()
                assert not set(ours) - set(theirs)
                assert 0 < len(ours) < len(theirs) + 1
        assert not torch.equal(batch.inputs["attention_mask"].sum(1), plain.inputs["attention_mask"].sum(1))

    @pytest.mark.parametrize("augment", [WORDS, WORDS[:1]], ids=["all", "typos"])
    def test_the_draw_is_the_samples_own(self, augment: Any) -> None:
        (whole,), parts = text_batches(augment), share(range(8), 1, 2, 2)
        again = text_batches(augment, parts=parts)
        for part_, batch in zip(parts, again, strict=True):
            for row, place in enumerate(part_):
                assert torch.equal(real_ids(batch, row), real_ids(whole, place))
        assert not torch.equal(whole.inputs["input_ids"], text_batches([])[0].inputs["input_ids"])

    def test_typos_are_tokenized_and_cut(self) -> None:
        codec = text_codec(max_length=12)
        features = codec.encode(texts()).features
        (batch,) = Augmenter(stage(augment=[{"type": "typo", "rate": 0.5}]), codec, 0).batches(features, ALL, 0)
        assert batch.inputs["input_ids"].shape[1] == 12
        assert (batch.inputs["input_ids"][:, 0] == codec.processor.cls_token_id).all()
        words = [codec.processor.decode(row, skip_special_tokens=True) for row in batch.inputs["input_ids"]]
        originals = [sample.inputs["text"] for sample in texts()]
        assert not any(old.startswith(new.strip()) for old, new in zip(originals, words, strict=True))
        fresh = codec.encode(texts()).features
        assert [f.values["input_ids"] for f in features] == [
            f.values["input_ids"] for f in fresh
        ]  # not changed in place


class TestViews:
    def test_a_clean_one_and_an_augmented_one(self) -> None:
        (plain,), (batch,) = picture_batches([]), picture_batches(CROPS, views=["clean", "augmented"])
        assert batch.views == 2
        assert batch.ids == plain.ids * 2
        assert torch.equal(pixels(batch)[:8], pixels(plain))
        assert not torch.equal(pixels(batch)[8:], pixels(plain))
        assert torch.equal(batch.labels, plain.labels.repeat(2))
        assert [name is None for name in batch.draws or ()] == [True] * 8 + [False] * 8

    def test_two_augmented_ones_differ(self) -> None:
        (batch,) = picture_batches(CROPS, views=["augmented", "augmented"])
        assert not torch.equal(pixels(batch)[:8], pixels(batch)[8:])
        assert torch.equal(pixels(batch)[:8], pixels(picture_batches(CROPS)[0]))

    def test_texts_of_both_views_are_padded_to_one_width(self) -> None:
        (batch,) = text_batches(WORDS, views=["clean", "augmented"])
        assert batch.inputs["input_ids"].shape[0] == 16


class TestRefusals:
    @pytest.mark.parametrize("augment", [[MIXUP], [CUTMIX], CROPS[:1]])
    def test_texts_have_no_pixels(self, augment: Any) -> None:
        with pytest.raises(RecipeError, match=r"(?s)stage distil: '\w+' changes pixels.*allowed: homophone, token"):
            text_batches(augment)

    @pytest.mark.parametrize("augment", [WORDS[:1], WORDS[1:]])
    def test_pictures_have_no_words(self, augment: Any) -> None:
        with pytest.raises(RecipeError, match=r"(?s)changes (text|tokens).*allowed: color_jitter, crop, cutmix"):
            picture_batches(augment)

    def test_language_models_are_not_augmented(self) -> None:
        tokenizer = train_bpe(["some words"], 260, {"pad_token": "<pad>", "eos_token": "<eos>"})
        codec = CausalLM(answer_pattern=None).codec(tokenizer, None)
        with pytest.raises(RecipeError, match="allowed: no augmentation"):
            Augmenter(stage(augment=WORDS[:1]), codec, 0)

    def test_blending_needs_another_and_one_view(self) -> None:
        with pytest.raises(RecipeError, match="'mixup' cannot blend"):
            picture_batches([MIXUP], global_batch_size=1)
        with pytest.raises(RecipeError, match="'cutmix' cannot blend"):
            picture_batches([CUTMIX], views=["clean", "augmented"])

    def test_views_that_show_nothing(self) -> None:
        with pytest.raises(ValueError, match="no entry of `views` is `augmented`"):
            stage(augment=CROPS, views=["clean"])

    def test_consistency_needs_views(self) -> None:
        with pytest.raises(RecipeError, match=r"(?s)'consistency' compares views.*fix: views: \[clean, augmented\]"):
            picture_batches(CROPS, terms=[{"type": "consistency"}])


class TestRecordings:
    """A teacher that answers from a recording; here only what it says of itself."""

    class Recorded:
        def __init__(self, recorded: Any):
            self.recorded = recorded

    def test_a_live_teacher_sees_what_the_student_sees(self) -> None:
        refuse_without_replay(stage(augment=CROPS), LocalTeacher(resnet(1)), 0)

    def test_a_recording_without_augmentation_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="recorded without augmentation"):
            refuse_without_replay(stage(augment=CROPS), self.Recorded(None), 0)
        refuse_without_replay(stage(), self.Recorded(None), 0)

    @pytest.mark.parametrize("other", [{"seed": 1}, {"augment": CROPS[:1]}, {"global_batch_size": 4}])
    def test_a_recording_of_other_draws_is_refused(self, other: dict[str, Any]) -> None:
        seed = other.pop("seed", 0)
        recorded = draw_record(stage(**{"augment": CROPS, **other}), seed)
        with pytest.raises(RecipeError, match=r"another (seed|augment|global_batch_size)"):
            refuse_without_replay(stage(augment=CROPS), self.Recorded(recorded), 0)

    def test_the_same_draws_are_replayed(self) -> None:
        refuse_without_replay(stage(augment=CROPS), self.Recorded(draw_record(stage(augment=CROPS), 0)), 0)

    def test_draws_that_cannot_be_repeated_are_refused(self) -> None:
        @part
        class Dice(PixelAugmentation):
            """Asks the clock."""

            replayable = False

            def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
                return pixels_CHW

        with pytest.raises(RecipeError, match="cannot follow 'dice'"):
            refuse_without_replay(stage(augment=[Dice()]), self.Recorded(None), 0)
