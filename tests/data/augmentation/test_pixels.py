"""Augmentations of pictures.

Shapes: C colours, H height, W width.
"""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build
from limbeck.data.augmentation import DrawKey

SINGLE = ["crop", "flip", "rotate", "color_jitter"]
PICTURE = np.random.default_rng(0).random((3, 10, 12), dtype=np.float32)


def make(name: str, **fields: Any) -> Any:
    return build("augmentation", {"type": name, **fields})


def draws(step: int = 0) -> np.random.Generator:
    return DrawKey(0, step).draws("a", 0)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("colours", [1, 3])
def test_shape_and_range_stay_and_the_given_picture_is_left_alone(name: str, colours: int) -> None:
    given = PICTURE[:colours].copy()
    changed = [make(name).pixels(given, draws(step)) for step in range(10)]
    assert all(c.shape == given.shape and c.dtype == np.float32 for c in changed)
    assert all(c.min() >= -1e-6 and c.max() <= 1 + 1e-6 for c in changed)
    assert (given == PICTURE[:colours]).all()
    assert np.array_equal(changed[3], make(name).pixels(given, draws(3)))


@pytest.mark.parametrize("fill", ["black", "reflect"])
def test_a_crop_is_a_window_of_the_widened_picture(fill: str) -> None:
    mode = "constant" if fill == "black" else "reflect"
    wide = np.pad(PICTURE, ((0, 0), (2, 2), (2, 2)), mode=mode)  # type: ignore[call-overload]
    places = set()
    for step in range(200):
        cut = make("crop", padding=2, fill=fill).pixels(PICTURE, draws(step))
        places |= {(y, x) for y in range(5) for x in range(5) if np.array_equal(cut, wide[:, y : y + 10, x : x + 12])}
    assert places == {(y, x) for y in range(5) for x in range(5)}


def test_a_picture_is_not_mirrored_further_than_its_size() -> None:
    with pytest.raises(RecipeError, match="padding 10, a picture of 12 x 10"):
        make("crop", padding=10, fill="reflect").pixels(PICTURE, draws())


def test_a_flip_mirrors() -> None:
    assert np.array_equal(make("flip").pixels(PICTURE, draws()), PICTURE[:, :, ::-1])
    assert np.array_equal(make("flip", direction="vertical").pixels(PICTURE, draws()), PICTURE[:, ::-1])


def test_a_turn_keeps_to_its_angle() -> None:
    line = np.zeros((1, 41, 41), dtype=np.float32)
    line[0, 20, 20:38] = 1  # from the centre to the right
    y, x = np.mgrid[:41, :41]
    angles = []
    for step in range(60):
        turned = make("rotate", degrees=30).pixels(line, draws(step))[0]
        angles.append(np.degrees(np.arctan2((turned * (y - 20)).sum(), (turned * (x - 20)).sum())))
    assert -31 < min(angles) < -20
    assert 20 < max(angles) < 31


def test_brightness_multiplies_and_contrast_leaves_the_mean() -> None:
    dim = PICTURE * 0.5  # nothing is cut off
    light = make("color_jitter", brightness=0.4, contrast=0).pixels(dim, draws(1))
    factor = light / dim
    assert factor.max() - factor.min() < 1e-5
    assert 0.6 <= factor.mean() <= 1.4
    assert abs(factor.mean() - 1) > 0.01
    grey = 0.25 + dim[:1]
    sharp = make("color_jitter", brightness=0, contrast=0.4).pixels(grey, draws(1))
    np.testing.assert_allclose(sharp.mean(), grey.mean(), rtol=1e-5)
    assert abs(sharp.std() / grey.std() - 1) > 0.01


def test_saturation_leaves_the_grey_picture_and_hue_the_sum_of_colours() -> None:
    luma = np.array([0.299, 0.587, 0.114])
    pale = 0.4 + 0.1 * PICTURE
    faded = make("color_jitter", brightness=0, contrast=0, saturation=0.9).pixels(pale, draws(1))
    np.testing.assert_allclose(np.tensordot(luma, faded, 1), np.tensordot(luma, pale, 1), rtol=1e-5)
    assert np.abs(faded - pale).max() > 1e-3
    turned = make("color_jitter", brightness=0, contrast=0, hue=0.5).pixels(pale, draws(1))
    np.testing.assert_allclose(turned.sum(0), pale.sum(0), rtol=1e-5)
    assert np.abs(turned - pale).max() > 1e-3


def test_a_third_of_a_turn_makes_red_green() -> None:
    from limbeck.data.augmentation.color_jitter import _turn

    third = _turn(2 * np.pi / 3) @ np.array([0.8, 0.1, 0.1], dtype=np.float32)
    hue = colorsys.rgb_to_hsv(*third.tolist())[0]
    assert hue == pytest.approx(1 / 3, abs=1e-5)


@pytest.mark.parametrize("fields", [{"saturation": 0.1}, {"hue": 0.1}])
def test_grey_pictures_have_no_colours_to_change(fields: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="neither saturation nor hue"):
        make("color_jitter", **fields).pixels(PICTURE[:1], draws())


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_draws_from_the_beta_distribution(alpha: float) -> None:
    shares = np.array([make("mixup", alpha=alpha).blending(8, 8, draws(step)).share for step in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)  # of Beta(alpha, alpha)


def test_the_share_of_cutmix_is_that_of_its_box() -> None:
    sizes = []
    for step in range(500):
        how = make("cutmix").blending(9, 13, draws(step))
        top, bottom, left, right = how.box
        assert 0 <= top <= bottom <= 9
        assert 0 <= left <= right <= 13
        assert how.share == (bottom - top) * (right - left) / (9 * 13)
        sizes.append(how.share)
    assert min(sizes) < 0.05
    assert max(sizes) > 0.7
