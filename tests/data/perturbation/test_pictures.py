"""Perturbations of pictures, and of sounds.

Shapes: H height, W width, C colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from limbeck.core.parts import find, names
from limbeck.core.types import Sample
from limbeck.data.perturbation import Perturbed, Refused, perturb_all
from limbeck.data.perturbation._audio import SoundPerturbation
from limbeck.data.perturbation._images import PicturePerturbation

PICTURES = [name for name in names("perturbation") if issubclass(find("perturbation", name), PicturePerturbation)]
SOUNDS = [name for name in names("perturbation") if issubclass(find("perturbation", name), SoundPerturbation)]
DRAWN = np.random.default_rng(0).random((24, 20, 3))
SMOOTH = gaussian_filter(DRAWN, (2, 2, 0))
LEVELS = ((SMOOTH - SMOOTH.min()) / np.ptp(SMOOTH) * 200).astype(np.uint8)
WAVE = np.sin(np.arange(400) / 5).astype(np.float32) * np.linspace(0.2, 0.8, 400, dtype=np.float32)


def changed(kind: str, value: Any, severity: int = 3, seed: int = 0) -> Any:
    name = "audio" if isinstance(value, np.ndarray) else "image"
    part: Any = find("perturbation", kind)(severity=severity)  # type: ignore[call-arg]
    found = part.perturb(Sample("a", {name: value, "other": 1}, "label", {"x": 1}), seed)
    assert isinstance(found, Perturbed), found
    assert found.keeps_answer
    assert found.sample.target == "label"
    assert found.sample.meta == {"x": 1, "perturbation": kind, "perturbed_from": "a"}
    assert found.sample.inputs["other"] == 1
    return found.sample.inputs[name]


def apart(kind: str, value: Any, severity: int) -> float:
    """The mean difference from what is given, over draws."""
    before = np.asarray(value, dtype=float)
    return float(np.mean([np.abs(np.asarray(changed(kind, value, severity, s)) - before).mean() for s in range(8)]))


def test_there_are_families_of_both() -> None:
    assert len(PICTURES) >= 11
    assert len(SOUNDS) >= 4


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_keeps_its_size_and_colours(kind: str, mode: str) -> None:
    given = Image.fromarray(LEVELS).convert(mode)
    kept = given.copy()
    new = changed(kind, given)
    assert (new.size, new.mode) == (given.size, mode)
    assert given == kept
    assert new != given
    assert new == changed(kind, given)


@pytest.mark.parametrize(("kind", "given"), [("shot_noise", Image.fromarray(LEVELS)), ("white_noise", WAVE)])
def test_the_seed_and_the_id_decide_the_draws(kind: str, given: Any) -> None:
    part: Any = find("perturbation", kind)()
    name = "audio" if isinstance(given, np.ndarray) else "image"

    def bytes_of(id: str, seed: int) -> bytes:
        return np.asarray(part.perturb(Sample(id, {name: given}, "x"), seed).sample.inputs[name]).tobytes()

    first = bytes_of("a", 0)
    assert first == bytes_of("a", 0)
    assert len({first, bytes_of("a", 1), bytes_of("b", 0)}) == 3


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("side", [8, 32])
def test_five_severities_of_pictures_are_ever_stronger(kind: str, side: int) -> None:
    given = Image.fromarray(LEVELS).resize((side, side), Image.Resampling.BICUBIC)
    ways = [apart(kind, given, severity) for severity in range(1, 6)]
    assert ways == sorted(ways)
    assert ways[4] > 1.25 * ways[0]


@pytest.mark.parametrize("kind", SOUNDS)
def test_five_severities_of_sounds_are_ever_stronger(kind: str) -> None:
    if kind == "time_shift":  # a sine that is moved by a whole period looks the same
        ways = [float((changed(kind, WAVE + 2.0, severity) == 0).sum()) for severity in range(1, 6)]
        assert ways == [16, 32, 48, 64, 80]
    else:
        ways = [apart(kind, WAVE, severity) for severity in range(1, 6)]
    assert ways == sorted(ways)
    assert ways[4] > 1.5 * ways[0]


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize("given", [WAVE, np.stack([WAVE, WAVE[::-1]]), WAVE.astype(np.float64)])
def test_a_sound_keeps_its_shape_and_type(kind: str, given: np.ndarray) -> None:
    kept = given.copy()
    new = changed(kind, given)
    assert (new.shape, new.dtype) == (given.shape, given.dtype)
    assert np.array_equal(given, kept)


def test_noise_has_the_ratio_that_it_says() -> None:
    long = np.tile(WAVE, 50)
    for severity, decibel in enumerate((25, 20, 15, 10, 5), 1):
        noise = changed("white_noise", long, severity) - long
        assert 10 * np.log10((long**2).mean() / (noise**2).mean()) == pytest.approx(decibel, abs=0.2)


def test_gain_and_clipping_do_what_they_say() -> None:
    np.testing.assert_allclose(20 * np.log10(changed("gain", WAVE, 2)[1:] / WAVE[1:]), -12, rtol=1e-4)
    cut = changed("clipping", WAVE, 5)
    assert (np.abs(WAVE) > np.abs(cut).max()).mean() == pytest.approx(0.4, abs=0.01)


def test_noise_of_pictures_has_its_deviation() -> None:
    grey = Image.new("L", (128, 128), 128)
    assert np.asarray(changed("gaussian_noise", grey, 2)).std() / 255 == pytest.approx(0.12, rel=0.05)
    assert np.asarray(changed("shot_noise", grey, 1)).std() / 255 == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.05)


def test_a_blur_leaves_what_has_no_edges_and_smears_along_one_line() -> None:
    part: Any = find("perturbation", "gaussian_blur")(severity=5)  # type: ignore[call-arg]
    assert part.perturb(Sample("a", {"image": Image.new("L", (9, 9), 70)}), 0) == Refused("nothing_changed")
    dot = np.zeros((33, 33), dtype=np.uint8)
    dot[16, 16] = 255
    place = np.argwhere(np.asarray(changed("motion_blur", Image.fromarray(dot), 5)) > 8)
    ways = np.sort(np.linalg.eigvalsh(np.cov(place.T)))
    assert ways[1] > 4 * ways[0]


def test_haze_and_contrast_take_the_edges_away() -> None:
    given = Image.fromarray(LEVELS)
    for kind in ("haze", "contrast"):
        new = np.asarray(changed(kind, given, 5))
        assert new.std() < 0.6 * LEVELS.std()
    assert np.asarray(changed("haze", given, 5)).mean() > LEVELS.mean() + 40
    assert abs(np.asarray(changed("contrast", given, 5)).mean() - LEVELS.mean()) < 1


def test_what_has_no_picture_or_sound_is_refused() -> None:
    rows = [Sample("t", {"text": "Hello there."}), Sample("s", {"audio": np.zeros(9)}), Sample("w", {"audio": WAVE})]
    parts: list[Any] = [find("perturbation", kind)() for kind in ("jpeg", "gain", "typos")]
    found, counts = perturb_all(rows, parts, seed=0, variants=2)
    assert [each.sample.id for each in found if each.tag == "gain"] == ["w~gain"]
    assert counts["gain: repeated"] == 1
    assert counts["jpeg: no_image"] == 6
    assert counts["gain: no_audio"] == 2
    assert counts["gain: silent"] == 2
    assert counts["typos: no_text"] == 4


def test_pictures_with_a_palette_or_two_levels_are_changed_as_models_see_them() -> None:
    given = Image.fromarray(LEVELS)
    for mode, wanted in (("P", "RGB"), ("1", "L"), ("RGBA", "RGB")):
        assert changed("brightness", given.convert(mode)).mode == wanted
