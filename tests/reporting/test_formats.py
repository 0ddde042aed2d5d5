"""Numbers for people: what was not measured is a dash, and nothing is rounded up to perfect."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.measurement.summary import Row
from redline.reporting import formats


def row(**values: object) -> Row:
    base = {"variant": "v", "title": "V", "backend": "b", "requested": "fp32", "precision": "fp32"}
    return Row(**{**base, "layers_text": "fp32", "batch": 1, **values})  # type: ignore[arg-type]


NUMBERS = (
    formats.digits,
    formats.milliseconds,
    formats.megabytes,
    formats.times,
    formats.percent,
    formats.points,
    formats.cosine,
)


@pytest.mark.parametrize("write", [*NUMBERS, formats.error, formats.count])
def test_a_missing_number_is_a_dash(write) -> None:
    assert write(None) == "–"


@given(st.floats(-1e100, 1e100) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_no_number_is_written_as_nan_or_inf(value: float) -> None:
    for write in NUMBERS:
        text = write(value)
        assert "nan" not in text
        assert "inf" not in text


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_less_than_all_never_reads_as_all(fraction: float) -> None:
    assert formats.percent(fraction) != "100 %"
    assert formats.cosine(fraction) != "1"


def test_too_few_samples_for_a_p99_say_how_many() -> None:
    few = row(windows_s=((0.01,) * 40,), p99_s=0.02)
    enough = row(windows_s=((0.01,) * 50,) * 2, p99_s=0.02)
    assert [formats.p99(few), formats.p99(enough), formats.p99(row())] == ["n=40", "20.0", "–"]


def test_no_difference_is_said_in_words() -> None:
    assert formats.verdict(row(speedup=1.02, verdict="no difference")) == "no difference"
    assert formats.verdict(row(speedup=0.5, verdict="slower")) == "2.00× slower"
    assert formats.verdict(row()) == "–"


def test_an_infinite_error_is_shown_as_it_is() -> None:
    assert formats.error(math.inf) == "inf"
