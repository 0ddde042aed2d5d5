"""Numbers for people: what was not measured is a dash, and nothing is rounded up to perfect."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.reporting import formats

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


def test_an_infinite_error_is_shown_as_it_is() -> None:
    assert formats.error(math.inf) == "inf"
