from __future__ import annotations

import json

import pytest

from redline.core.plain import to_line
from scale.pipeline.timing import StageClock


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_stages_add_up_also_where_they_fail() -> None:
    hand = Hand()
    clock = StageClock(hand)
    for seconds in (1, 2):
        with clock.stage("read"):
            hand.now += seconds
    with pytest.raises(ValueError, match="torn"), clock.stage("read"):
        hand.now += 4
        raise ValueError("torn")
    timing = clock.report({})
    assert (timing.stages_s["read"], timing.counts["read"], timing.wall_s) == (7, 3, 7)
    assert timing.stages_s["merge"] == 0


def test_the_models_wait_where_none_of_them_works() -> None:
    hand = Hand()
    clock = StageClock(hand)
    hand.now += 50  # opening the slide is no waiting
    clock.begin_models()
    hand.now += 2
    with clock.busy("infer:a"):
        hand.now += 1
        with clock.busy("infer:b"):
            hand.now += 4
        hand.now += 1
    clock.add("wait:b", 3)
    hand.now += 10  # writing neither
    timing = clock.report({"a": 8, "b": 4})
    assert timing.waited_share == pytest.approx(2 / 8)
    assert [(m.name, m.windows, m.infer_s, m.waited_s) for m in timing.models] == [("a", 8, 6, 0), ("b", 4, 4, 3)]
    assert timing.models[1].waited_share == pytest.approx(3 / 7)
    assert timing.windows == 12


def test_a_report_is_json_and_rows_of_every_stage() -> None:
    clock = StageClock(Hand())
    clock.add("decode", 0.5, count=3)
    timing = clock.report({"nuclei": 0})
    assert json.loads(to_line(timing))["stages_s"]["decode"] == 0.5
    assert [row[0] for row in timing.lines()] == ["read", "decode", "pre", "infer nuclei", "post", "merge", "write"]
    assert timing.waited_share == 0
