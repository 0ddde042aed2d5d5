"""How numbers are written for people: units, digits, and a dash for what was not measured."""

from __future__ import annotations

import math
from collections.abc import Iterable

from redline.findings.claims import ratio_text
from redline.study.rows import SAMPLES_FOR_P99, Row

DASH = "–"
P99_SAMPLES = SAMPLES_FOR_P99


def digits(value: float | None, significant: int = 3) -> str:
    """A number with so many significant digits, thousands separated, never in exponent form.

    >>> [digits(x) for x in (0.004123, 5.384, 34.12, 241.04, 1934.2, None)]
    ['0.00412', '5.38', '34.1', '241', '1,934', '–']
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.{_decimals(value, significant)}f}"


def milliseconds(seconds: float | None, decimals: int | None = None) -> str:
    """Seconds as milliseconds, without the unit; ``decimals`` lines up a column.

    >>> milliseconds(0.00538), milliseconds(0.0341, decimals=2), milliseconds(None)
    ('5.38', '34.10', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return DASH
    return digits(seconds * 1e3) if decimals is None else f"{seconds * 1e3:,.{decimals}f}"


def column_decimals(values: Iterable[float | None], significant: int = 3) -> int:
    """Decimals that give the smallest value of a column that many significant digits.

    >>> column_decimals([0.0054, None, 0.241])
    5
    """
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    return _decimals(min(known), significant) if known else 0


def megabytes(size_bytes: float | None) -> str:
    """Bytes as megabytes (10^6), without the unit.

    >>> megabytes(12_000_000), megabytes(212_400_000), megabytes(310_000), megabytes(None)
    ('12.0', '212', '0.31', '–')
    """
    if size_bytes is None or not math.isfinite(size_bytes):
        return DASH
    value = size_bytes / 1e6
    return f"{value:,.{0 if value >= 100 else 1 if value >= 1 else 2}f}"


def times(ratio: float | None) -> str:
    """A ratio such as a speed-up.

    >>> times(6.344), times(0.4773), times(12.04), times(None)
    ('6.34×', '0.48×', '12.0×', '–')
    """
    if ratio is None or not math.isfinite(ratio):
        return DASH
    return f"{ratio:,.{1 if ratio >= 10 else 2}f}×"


def percent(fraction: float | None, decimals: int = 1) -> str:
    """A fraction as a percentage; what is not whole is never rounded up to 100 %.

    >>> percent(0.9938), percent(1.0), percent(0.99996), percent(None)
    ('99.4 %', '100 %', '>99.9 %', '–')
    """
    if fraction is None or not math.isfinite(fraction):
        return DASH
    text = f"{fraction:.{decimals}%}".removesuffix("%")
    if float(text) == 100:
        return "100 %" if fraction >= 1 else f">{100 - 10**-decimals:.{decimals}f} %"
    return f"{text} %"


def points(drop: float | None) -> str:
    """A loss of accuracy as percentage points, with its sign.

    >>> points(0.0023), points(-0.001), points(0.0), points(None)
    ('−0.2 points', '+0.1 points', '±0 points', '–')
    """
    if drop is None or not math.isfinite(drop):
        return DASH
    if drop == 0:
        return "±0 points"
    value = abs(drop) * 100
    return f"{'−' if drop > 0 else '+'}{value:.{1 if value >= 0.05 else 2}f} points"


def error(value: float | None) -> str:
    """An absolute error, in two digits and exponent form where it is small.

    >>> error(0.0), error(3.8e-6), error(0.42), error(2.1e-3), error(None)
    ('0', '3.8e-6', '0.42', '0.0021', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def cosine(value: float | None) -> str:
    """A cosine similarity, with as many nines as it has and never rounded up to 1.

    >>> cosine(1.0), cosine(0.99994), cosine(0.9968), cosine(0.9999999), cosine(None)
    ('1', '0.99994', '0.9968', '0.999999', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if value >= 1:
        return "1"
    return f"{math.floor(value * 1e6) / 1e6:.6f}".rstrip("0").ljust(6, "0")


def count(value: float | None) -> str:
    """A whole number with its thousands separated.

    >>> count(11689512), count(None)
    ('11,689,512', '–')
    """
    return DASH if value is None else f"{value:,.0f}"


_WIDEST = 50


def interval(low: float | None, high: float | None) -> str:
    """A confidence interval of a ratio.

    >>> interval(6.21, 6.444), interval(0.001, 900.0), interval(None, None)
    ('6.21–6.44', 'too wide to say', '')
    """
    if low is None or high is None:
        return ""
    decimals = 1 if low >= 10 else 2
    if high > _WIDEST * low:
        return "too wide to say"
    return f"{low:.{decimals}f}–{high:.{decimals}f}"


def precise_ms(row: Row, value_s: float | None) -> str:
    """Milliseconds with no more digits than the spread between a row's processes bears.

    The middle half of the processes' means is what the last digit may not undercut.
    """
    means = [sum(kept) / len(kept) for p in row.processes if (kept := [s for s in p.means_s if s is not None])]
    if value_s is None or len(means) < 2:
        return milliseconds(value_s)
    half = (max(means) - min(means)) / 2
    return ratio_text(1e3 * value_s, 1e3 * (value_s - half), 1e3 * (value_s + half))


def gate(row: Row) -> str:
    """Whether the answers were good enough, or why not."""
    if row.passed is None:
        return "not verified"
    return "passed" if row.passed else f"not passed: {row.gate_reason or 'no reason was recorded'}"


def _decimals(value: float, significant: int) -> int:
    if value == 0:
        return 0
    return max(0, significant - 1 - math.floor(math.log10(abs(value))))
