"""On simulated slides the default loses nothing and leaves next to no duplicates, where plain suppression does both."""

from __future__ import annotations

import pytest
from benchmarks.merge_simulation import Outcome, Scene, judge, simulate

from scale.merging import MergeSettings, Method, merge


def outcome(scene: Scene, method: Method, **fields: float | str | None) -> Outcome:
    chosen = MergeSettings(**fields)  # type: ignore[arg-type]
    merged = merge(scene.found, method=method, settings=chosen, grid=scene.grid).detections
    return judge(scene, merged.boxes, merged.scores)


@pytest.mark.parametrize(("overlap", "side_px"), [(0.2, 6000), (0.8, 3000)])
def test_a_steady_detector(overlap: float, side_px: int) -> None:
    scene = simulate(side_px=side_px, overlap=overlap, probability=1.0)
    ours, plain = outcome(scene, "drop-cut"), outcome(scene, "legacy")
    assert ours.recall_half == 1.0
    assert ours.leftovers <= 0.004 * len(scene.objects)
    assert plain.recall < 0.99
    assert plain.leftovers > 0.01 * len(scene.objects)
    strict = outcome(scene, "drop-cut", cut_boxes="drop")
    assert ours.leftovers <= strict.leftovers + 1


@pytest.mark.parametrize(("overlap", "side_px", "least"), [(0.2, 6000, 0.9), (0.8, 3000, 0.998)])
def test_an_unsteady_detector(overlap: float, side_px: int, least: float) -> None:
    scene = simulate(side_px=side_px, overlap=overlap, probability=0.85)
    ours, strict = outcome(scene, "drop-cut"), outcome(scene, "drop-cut", cut_boxes="drop")
    assert ours.recall >= max(least, strict.recall)
    assert ours.leftovers <= 0.004 * len(scene.objects)
    assert outcome(scene, "owner").recall < ours.recall
