"""Numbers as people read them: 22.7 M, 1.4 ms, 97.8 %.

A `Kind` takes a value and the values shown beside it, its interval for one, and returns digits and unit;
the neighbours decide how many decimals are needed to tell them from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from limbeck.report.facts import finite

NBSP, MINUS, TIMES, DASH = "\u00a0", "\u2212", "\u00d7", "\u2013"
Kind = Callable[..., tuple[str, str]]


def fixed(value: float, digits: int, signed: bool = False) -> str:
    """Thousands set apart, a true minus sign, and never a negative zero."""
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(c in "123456789" for c in text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, whole numbers never cut."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e12:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return fixed(value, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def decimals(*values: float, least: int = 1, most: int = 4) -> int:
    """Decimals that keep every value that is not zero from reading as zero."""
    smallest = min((abs(v) for v in values if v), default=1.0)
    return next((d for d in range(least, most) if round(smallest, d) > 0), most)


def share(value: float, *peers: float) -> tuple[str, str]:
    """0.978 as 97.8 %."""
    return percent(100 * value, *(100 * p for p in peers))


def percent(value: float, *peers: float) -> tuple[str, str]:
    """97.8, a share in hundredths already, as 97.8 %."""
    return fixed(value, decimals(value, *peers)), f"{NBSP}%"


def points(value: float, *peers: float) -> tuple[str, str]:
    """A difference of two shares, 0.021 as +2.1 points."""
    return percentage_points(100 * value, *(100 * p for p in peers))


def percentage_points(value: float, *peers: float) -> tuple[str, str]:
    """A difference in hundredths already, 2.1 as +2.1 points."""
    text = fixed(value, decimals(value, *peers), signed=True)
    return text, f"{NBSP}point" if text.lstrip("+" + MINUS) == "1.0" else f"{NBSP}points"


def relative(value: float, *peers: float) -> tuple[str, str]:
    """A difference of logarithms as a change of the quantity itself, -0.043 as -4.2 %."""
    change, *others = (100 * math.expm1(v) for v in (value, *peers))
    return fixed(change, decimals(change, *others), signed=True), f"{NBSP}%"


def count(value: float, *_: float) -> tuple[str, str]:
    """3080 as 3,080."""
    return (fixed(value, 0), "") if float(value).is_integer() else (significant(value), "")


def _stepped(value: float, units: tuple[str, ...], base: float = 1000.0) -> tuple[str, str]:
    power = 0
    while abs(value) >= base * 0.9995 and power < len(units) - 1:  # 999,960 is 1.0 M, not 1000 k
        value, power = value / base, power + 1
    digits = 0 if power == 0 and float(value).is_integer() else 1 if abs(value) < 100 else 0
    return fixed(value, digits), f"{NBSP}{units[power]}" if units[power] else ""


def magnitude(value: float, *_: float) -> tuple[str, str]:
    """22,700,000 as 22.7 M; a thousand million is B, as is the custom for parameters."""
    return _stepped(value, ("", "k", "M", "B", "T"))


def size(value: float, *_: float) -> tuple[str, str]:
    """Bytes by powers of a thousand: 90.9 MB."""
    return _stepped(value, ("B", "kB", "MB", "GB", "TB"))


def milliseconds(value: float, *_: float) -> tuple[str, str]:
    """1.4 ms; from a second on 1.25 s."""
    if value >= 999.5:
        return significant(value / 1000), f"{NBSP}s"
    return significant(value, 2 if value < 100 else 3), f"{NBSP}ms"


def duration(value: float, *_: float) -> tuple[str, str]:
    """Seconds as 0.42 s, 12 s, 3 min 12 s, 2 h 5 min."""
    if value < 59.5:
        return significant(value, 2), f"{NBSP}s"
    if value < 3599.5:
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes}{NBSP}min {seconds}{NBSP}s", ""
    hours, minutes = divmod(round(value / 60), 60)
    return f"{hours:,}{NBSP}h {minutes}{NBSP}min", ""


def times(value: float, *_: float) -> tuple[str, str]:
    """A ratio, 3.2 as 3.2x with a proper sign."""
    return significant(value, 2 if value < 100 else 3), TIMES


def probability(value: float, *_: float) -> tuple[str, str]:
    """A p value: 0.031; smaller than anyone needs to know as <0.001."""
    return ("<0.001" if 0 <= value < 0.001 else fixed(value, 3)), ""


def plain(unit: str = "") -> Kind:
    """Three significant digits and a unit of the caller's."""
    suffix = f"{NBSP}{unit}" if unit else ""
    return lambda value, *_: (significant(value), suffix)


def text(value: object, kind: Kind, *peers: float) -> str:
    """A value with its unit, a dash where there is none."""
    return "".join(kind(value, *peers)) if finite(value) else DASH


def interval(low: object, high: object, kind: Kind, value: float) -> str:
    """`[0.9, 3.3]`, in the unit of the value it belongs to; empty where a bound is missing."""
    if not (finite(low) and finite(high)):
        return ""
    unit = kind(value, low, high)[1].replace("points", "point")
    ends = [kind(end, value, low, high) for end in (low, high)]
    same = all(suffix.replace("points", "point") == unit for _, suffix in ends)
    return "[" + ", ".join(digits if same else digits + suffix for digits, suffix in ends) + "]"


def part(ratio: float, times: str) -> str:
    """How large something is beside what is `ratio` times its size: 1/14, 42 %, 1.3 times (in the words given)."""
    if ratio >= 9.5 or (ratio >= 1.9 and abs(ratio - round(ratio)) <= 0.04 * ratio):
        return f"1/{fixed(round(ratio), 0)}"
    return f"{fixed(100 / ratio, 0)}{NBSP}%" if ratio > 1 else f"{significant(1 / ratio, 2)}{times}"
