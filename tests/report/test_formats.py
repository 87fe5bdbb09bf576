"""Numbers as people read them."""

from __future__ import annotations

import pytest

from limbeck.report import formats
from limbeck.report.formats import Kind


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (formats.share, 0.978, "97.8 %"),
        (formats.share, 1, "100.0 %"),
        (formats.share, 0.0004, "0.04 %"),
        (formats.share, 0, "0.0 %"),
        (formats.points, 0.021, "+2.1 points"),
        (formats.points, -0.01, "-1.0 point"),
        (formats.points, 0.0, "0.0 points"),
        (formats.relative, -0.0431, "-4.2 %"),
        (formats.count, 3080, "3,080"),
        (formats.magnitude, 22_743_000, "22.7 M"),
        (formats.magnitude, 999_960, "1.0 M"),
        (formats.magnitude, 671e9, "671 B"),
        (formats.magnitude, 410, "410"),
        (formats.size, 90_972_000, "91.0 MB"),
        (formats.size, 512, "512 B"),
        (formats.milliseconds, 1.44, "1.4 ms"),
        (formats.milliseconds, 0.3138, "0.31 ms"),
        (formats.milliseconds, 123.4, "123 ms"),
        (formats.milliseconds, 1250, "1.25 s"),
        (formats.duration, 0.42, "0.42 s"),
        (formats.duration, 192.4, "3 min 12 s"),
        (formats.duration, 59.7, "1 min 0 s"),
        (formats.duration, 7500, "2 h 5 min"),
        (formats.duration, 7199, "2 h 0 min"),
        (formats.times, 3.2, "3.2x"),
        (formats.times, 13.96, "14x"),
        (formats.probability, 0.0312, "0.031"),
        (formats.probability, 0.0002, "<0.001"),
        (formats.plain("nats"), 0.04567, "0.0457 nats"),
        (formats.plain(), 1_234_567, "1,234,567"),
        (formats.share, None, "-"),
        (formats.share, float("nan"), "-"),
    ],
)
def test_values(kind: Kind, value: object, expected: str) -> None:
    assert plain_text(formats.text(value, kind)) == expected


def plain_text(text: str) -> str:
    signs = {"\u00a0": " ", "\u2212": "-", "\u00d7": "x", "\u2013": "-"}
    return text.translate(str.maketrans(signs))


def test_intervals_are_in_the_unit_of_their_value() -> None:
    assert formats.interval(0.971, 0.999, formats.share, 0.98) == "[97.1, 99.9]"
    assert plain_text(formats.interval(0.9, 1100.0, formats.milliseconds, 2.0)) == "[0.90 ms, 1.10 s]"
    assert formats.interval(None, 0.9, formats.share, 0.5) == ""


def test_a_bound_beside_zero_does_not_read_as_zero() -> None:
    assert formats.interval(0.0003, 0.02, formats.points, 0.01) == "[+0.03, +2.00]"


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(13.96, "1/14"), (2.0, "1/2"), (2.4, "42 %"), (1.45, "69 %"), (0.8, "1.2 times"), (1234.0, "1/1,234")],
)
def test_part(ratio: float, expected: str) -> None:
    assert plain_text(formats.part(ratio, " times")) == expected
