"""Ratios of cells that were not measured together hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from redline.grid.derive import GridRow, Windows
from redline.grid.unpaired import process_spread, unpaired_ratio


def windows(rng: np.random.Generator, seconds: float, *, processes: float = 0.0, repeats: int = 2) -> Windows:
    own = np.exp(rng.normal(0, processes, repeats))
    return tuple(
        tuple(tuple(float(s) for s in seconds * factor * (1 + rng.exponential(0.05, 8))) for _ in range(8))
        for factor in own
    )


def row(found: Windows) -> GridRow:
    names = {"cell": "c", "model": "m", "variant": "v", "title": "V", "backend": "b", "device": "cpu"}
    ran = {"requested": "fp32", "precision": "fp32", "layers_text": "fp32", "loader": "dummy"}
    return GridRow(**names, **ran, batch=1, height=8, width=8, windows_s=found)


def test_equals_are_level_and_five_percent_are_seen() -> None:
    rng = np.random.default_rng(0)
    level, seen = 0, 0
    for _ in range(200):
        before = windows(rng, 1.0)
        same, late = (
            unpaired_ratio(before, windows(rng, 1.0), spread=0.0),
            unpaired_ratio(before, windows(rng, 1.05), spread=0.0),
        )
        assert same is not None
        assert late is not None
        level += same.low <= 1 <= same.high
        seen += late.low > 1
    assert level >= 196
    assert seen >= 190


def test_what_differs_between_processes_is_in_the_interval() -> None:
    rng = np.random.default_rng(1)
    spread = process_spread([row(windows(rng, 1.0, processes=0.03)) for _ in range(300)])
    assert spread == pytest.approx(0.03, rel=0.25)
    level = 0
    for _ in range(200):
        pair = windows(rng, 1.0, processes=0.03), windows(rng, 1.0, processes=0.03)
        ratio = unpaired_ratio(*pair, spread=spread)
        assert ratio is not None
        level += ratio.low <= 1 <= ratio.high
    assert level >= 194


def test_the_ratio_is_the_second_over_the_first() -> None:
    ratio = unpaired_ratio((((1.0,),) * 3,), (((2.0,),) * 3,), spread=None)
    assert ratio is not None
    assert ratio.value == pytest.approx(2.0)
    assert (ratio.low, ratio.high) == (pytest.approx(1.98, abs=0.01), pytest.approx(2.02, abs=0.01))


def test_as_many_calls_of_the_one_as_of_the_other_are_looked_at() -> None:
    rng = np.random.default_rng(2)
    few = (tuple(tuple(1 + rng.exponential(0.5, 4)) for _ in range(60)),)
    many = (tuple(tuple(1 + rng.exponential(0.5, 80)) for _ in range(60)),)
    ratio = unpaired_ratio(few, many, spread=None)
    assert ratio is not None
    assert ratio.low <= 1 <= ratio.high


@pytest.mark.parametrize("short", [(), ((),), ((), ((1.0,), (1.0,)))])
def test_under_three_rounds_there_is_no_ratio(short: Windows) -> None:
    enough = (((1.0,),) * 4,)
    assert unpaired_ratio(short, enough, spread=None) is None
    assert unpaired_ratio(enough, short, spread=None) is None


def test_missing_windows_are_left_out() -> None:
    ratio = unpaired_ratio((((1.0,), (), (1.0,), (1.0,)), ()), (((3.0,), (3.0,), (3.0,), ()),), spread=None)
    assert ratio is not None
    assert ratio.value == pytest.approx(3.0)


def test_without_repeats_the_spread_is_unknown() -> None:
    assert process_spread([row((((1.0,),) * 4,))]) is None
    assert process_spread([]) is None
