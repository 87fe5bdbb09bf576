"""Augmentations of texts and tokens."""

from __future__ import annotations

import builtins
from collections import Counter
from typing import Any

import numpy as np
import pytest

from limbeck.core.errors import MissingExtra
from limbeck.core.parts import build
from limbeck.data.augmentation import DrawKey
from limbeck.data.augmentation.homophone import _common
from limbeck.data.augmentation.typo import _neighbours

ENGLISH = "I want to change my PIN, what do I need to do? 12 ÄÖ"
CHINESE = "我想在北京订一个hotel,价格500元以下。"


def make(name: str, **fields: Any) -> Any:
    return build("augmentation", {"type": name, **fields})


def draws(step: int = 0) -> np.random.Generator:
    return DrawKey(0, step).draws("a", 0)


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_deletion_keeps_the_order_and_leaves_its_share_out(rate: float) -> None:
    places = list(range(3, 43))
    kept = [make("token_deletion", rate=rate).tokens(places, draws(step)) for step in range(100)]
    assert all(k == sorted(k) and set(k) <= set(places) for k in kept)
    assert np.mean([1 - len(k) / 40 for k in kept]) == pytest.approx(rate, abs=0.03)


def test_deletion_leaves_one_token_at_least() -> None:
    left = [make("token_deletion", rate=0.99).tokens([4, 5], draws(step)) for step in range(50)]
    assert {tuple(each) for each in left} == {(4,), (5,)}
    assert make("token_deletion", rate=0.99).tokens([7], draws()) == [7]


def test_a_swap_moves_two_and_loses_none() -> None:
    for step in range(20):
        moved = make("token_swap", rate=0.01).tokens([5, 6, 7, 8], draws(step))
        assert sorted(moved) == [5, 6, 7, 8]
        assert sum(a != b for a, b in zip(moved, [5, 6, 7, 8], strict=True)) == 2
    assert make("token_swap").tokens([9], draws()) == [9]
    many = make("token_swap", rate=1.0).tokens(list(range(50)), draws())
    assert sum(a != b for a, b in enumerate(many)) > 25


def test_typos_touch_english_letters_only_and_at_their_rate() -> None:
    text, changes = "a b c d e f g h i j " * 50, 0
    for step in range(20):
        typed = make("typo", rate=0.1).text(text, draws(step))
        changes += sum(
            len(word) != 1 or word != old for word, old in zip(typed.split(" "), text.split(" "), strict=True)
        )
    # A letter that stands alone cannot change places, so that a fourth of the slips does nothing.
    assert changes / (20 * 500) == pytest.approx(0.075, abs=0.01)
    assert make("typo", rate=1.0).text("12, ÄÖ 北京!", draws()) == "12, ÄÖ 北京!"


def test_the_four_slips() -> None:
    first = {*"qwsz", "aa", ""}
    second = {*"GHVN", "BB", "", "B"}  # nothing follows it that it could change places with
    expected = {one + two or "aB" for one in first for two in second} | {"Ba"}
    seen = Counter(make("typo", rate=1.0).text("aB", draws(step)) for step in range(3000))
    assert set(seen) == expected
    assert seen["Ba"] == pytest.approx(3000 / 4, rel=0.1)
    assert seen["aaBB"] == pytest.approx(3000 / 16, rel=0.25)


def test_neighbouring_keys() -> None:
    keys = _neighbours()
    assert len(keys) == 26
    assert set(keys["s"]) == set("weadzx")
    assert set(keys["p"]) == set("ol")
    assert all(one in keys[two] for one in keys for two in keys[one])


def test_homophones_sound_alike_and_are_common() -> None:
    pinyin = pytest.importorskip("pypinyin")
    common = "".join(_common(True).values())
    changed = Counter[str]()
    for text in ("我想在北京订房间", "价格在五百元以下", "绿色的女孩"):
        told = [each[0] for each in pinyin.pinyin(text, style=pinyin.Style.TONE3)]
        for step in range(20):
            written = make("homophone", rate=1.0).text(text, draws(step))
            for old, new, reading in zip(text, written, told, strict=True):
                if new != old:
                    changed[old] += 1
                    assert new in common
                    assert pinyin.pinyin(new, style=pinyin.Style.TONE3) == [[reading]]
    assert all(count >= 20 for count in changed.values())
    assert set("想京房间价格元以下色") <= set(changed)
    assert "北" not in changed  # no other character of everyday use is read like it


def test_what_is_not_chinese_stays() -> None:
    pytest.importorskip("pypinyin")
    written = make("homophone", rate=1.0).text(CHINESE, draws())
    assert len(written) == len(CHINESE)
    assert [c for c in written if not "\u4e00" <= c <= "\u9fff"] == list("hotel,500。")
    assert make("homophone", rate=1.0).text(ENGLISH, draws()) == ENGLISH


def test_without_the_tone_there_are_more_homophones() -> None:
    pytest.importorskip("pypinyin")
    assert sum(map(len, _common(True).values())) == sum(map(len, _common(False).values())) == 3755
    assert "妈" in _common(False)["ma"]
    assert "马" in _common(False)["ma"]
    assert "马" not in _common(True)["ma1"]
    tones = [{make("homophone", rate=1.0, same_tone=t).text("妈", draws(s)) for s in range(60)} for t in (True, False)]
    assert tones[0] == {"妈"}
    assert {"吗", "麻", "马", "骂"} <= tones[1]
    assert "妈" not in tones[1]


def test_a_reading_follows_the_words_around_it() -> None:
    pytest.importorskip("pypinyin")
    walk, bank = ({make("homophone", rate=1.0).text(t, draws(s))[1] for s in range(80)} for t in ("步行", "银行"))
    assert walk & bank <= {"行"}
    assert "航" in bank
    assert "形" in walk


def test_the_rate_is_the_share_that_is_replaced() -> None:
    pytest.importorskip("pypinyin")
    text = "想在北京订一个价格便宜的房间" * 20
    share = [
        np.mean(
            [
                a != b
                for step in range(5)
                for a, b in zip(text, make("homophone", rate=r).text(text, draws(step)), strict=True)
            ]
        )
        for r in (0.1, 1.0)
    ]
    assert share[0] == pytest.approx(0.1 * share[1], rel=0.2)  # some have no homophone


def test_a_missing_library_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pypinyin":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    _common.cache_clear()
    with pytest.raises(MissingExtra, match=r"limbeck\[chinese\]"):
        make("homophone").text("no Chinese at all", draws())
