from __future__ import annotations

import numpy as np
import pytest
from tests.scale.viewer.made import COLORS, NAMES, marks

from scale.viewer.marks import Filter, Marks

EVERYWHERE = (-1e6, -1e6, 1e6, 1e6)


def few(scores: list[float], classes: list[int]) -> Marks:
    boxes = np.array([[10 * n, 0, 10 * n + 4, 8] for n in range(len(scores))], np.float32)
    return Marks(boxes, np.array(scores, np.float32), np.array(classes), names=NAMES, colors=COLORS)


@pytest.mark.parametrize("hundredths", range(101))
def test_a_confidence_is_at_least_itself(hundredths: int) -> None:
    """0.7 in float32 is less than 0.7."""
    one = few([hundredths / 100], [1])
    assert len(one.select(EVERYWHERE, Filter(least=hundredths / 100))) == 1
    assert one.described[1].count_at[hundredths] == 1
    assert hundredths == 100 or one.described[1].count_at[hundredths + 1] == 0


def test_counts_by_confidence_are_those_of_the_filter() -> None:
    found = marks(1000)
    for step in (0, 13, 50, 99, 100):
        places = found.select(EVERYWHERE, Filter(least=step / 100))
        assert found.counts(places).tolist() == [one.count_at[step] for one in found.described]


def test_a_filter_of_classes() -> None:
    found = few([0.5, 0.5, 0.5], [0, 1, 1])
    assert sorted(found.select(EVERYWHERE, Filter(classes=frozenset({1})))) == [1, 2]
    assert len(found.select(EVERYWHERE, Filter(classes=frozenset()))) == 0
    assert sorted(found.select((0, 0, 12, 3), Filter())) == [0, 1]


def test_a_class_that_was_not_found_is_described() -> None:
    absent = few([0.5], [0]).described[2]
    assert (absent.count_at[0], absent.median_px, absent.crowded) == (0, 0, 0)
    assert few([0.5, 0.6], [0, 0]).described[0].median_px == 8


def test_no_detections_at_all() -> None:
    none = few([], [])
    assert len(none.select(EVERYWHERE, Filter())) == 0
    assert none.counts(none.select(EVERYWHERE, Filter())).tolist() == [0, 0, 0]
