"""Unions of regions, and the reference's two steps as they are defined."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scale.merging.scenes import boxes_of, content, found_of, grid_of, slides, with_outlines

from redline.core.errors import MissingDependencyError
from redline.core.tensor import Array
from scale.domain import Box, Coords, Polygon, Prediction
from scale.merging import METHODS, Found, MergeSettings, merge
from scale.regions.grid import Grid


def by_definition(predictions: list[Prediction], nms: float, coverage: float) -> list[Prediction]:
    """Greedy suppression by IoU; then each, from the largest box on, is united with what it overlaps enough."""

    def box_iou(a: Prediction, b: Prediction) -> float:
        shared = a.box.overlap(b.box)
        return shared / (a.box.area + b.box.area - shared)

    kept: list[Prediction] = []
    for one in predictions:
        if all(box_iou(one, other) <= nms for other in kept):
            kept.append(one)
    standing: list[Prediction] = []
    for one in sorted(kept, key=lambda found: (found.box.area, found.conf), reverse=True):
        hits = [other for other in standing if max(one.covered_by(other), other.covered_by(one)) > coverage]
        merged = one
        for other in hits:
            merged = merged.merge_with(other)
        standing = [other for other in standing if other not in hits] + [merged]
    return standing


def predictions_of(found: Found) -> list[Prediction]:
    """With the numbers as they are, not as their shortest decimals: equal areas must stay equal."""
    given = found.detections
    rings = [None] * len(found) if given.polygons is None else given.polygons.rings()
    return [
        Prediction(
            Box(Coords(*box[:2]), Coords(*box[2:])),
            None if ring is None else Polygon([Coords(*point) for point in ring.tolist()]),
            score,
        )
        for box, score, ring in zip(given.boxes.tolist(), given.scores.tolist(), rings, strict=True)
    ]


def distinct(found: Found) -> Found:
    """One of each box, all of one class and of scores that differ, best first."""
    boxes = found.detections.boxes
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    chosen = found.take(solid)
    _, first = np.unique(chosen.detections.boxes, axis=0, return_index=True)
    rows = [
        (chosen.detections.boxes[index].tolist(), 1 - place / 1000, 0, int(chosen.windows[index]), 0)
        for place, index in enumerate(np.random.default_rng(0).permutation(first))
    ]
    return found_of(*rows)


@given(slide=slides(), outlines=st.booleans(), nms=st.sampled_from([0.4, 0.7]), coverage=st.sampled_from([0.1, 0.4]))
# Drawn once for all: where areas are equal, float32 and the outlines' float64 may order them otherwise.
@settings(max_examples=50, deadline=None, derandomize=True)
def test_legacy_is_the_two_steps(slide: tuple[list[Found], Grid], outlines: bool, nms: float, coverage: float) -> None:
    found = distinct(Found.concatenate(slide[0]))
    found = with_outlines(found) if outlines else found
    merged = merge(found, method="legacy", settings=MergeSettings(iou=nms, coverage=coverage))
    wanted = by_definition(predictions_of(found), nms, coverage)
    got = predictions_of(merged)

    def told(several: list[Prediction]) -> Array:
        rows = [
            (p.box.start.x, p.box.start.y, p.box.end.x, p.box.end.y, p.conf, p.polygon.area if p.polygon else 0)
            for p in several
        ]
        return np.array(sorted(rows)).reshape(-1, 6)

    assert len(got) == len(wanted)
    np.testing.assert_allclose(told(got), told(wanted), rtol=1e-4, atol=1e-2)


def test_legacy_suppresses_in_one_window_too_and_zero_means_no_step() -> None:
    found = found_of(([10, 10, 40, 40], 0.9, 0, 0, 0), ([12, 12, 40, 40], 0.8, 0, 0, 0))
    assert len(merge(found, method="legacy", settings=MergeSettings(iou=0.4))) == 1
    assert len(merge(found, method="legacy", settings=MergeSettings(iou=None))) == 2
    assert len(merge(found, method="legacy", settings=MergeSettings(iou=0.0))) == 2
    joined = merge(found, method="legacy", settings=MergeSettings(iou=None, coverage=0.4))
    assert boxes_of(joined) == [[10, 10, 40, 40]]


def test_union_follows_a_chain_of_regions() -> None:
    chain = [([start, 0, start + 30, 20], 0.5 + start / 1000, 0, start, 0) for start in range(0, 100, 10)]
    apart = ([200, 0, 230, 20], 0.1, 0, 99, 0)
    merged = merge(found_of(*chain, apart), method="union")
    assert boxes_of(merged) == [[0, 0, 120, 20], [200, 0, 230, 20]]
    np.testing.assert_allclose(merged.detections.scores, [0.59, 0.1], rtol=1e-6)


def test_a_class_with_a_coverage_is_united_by_every_method_but_legacy() -> None:
    found = found_of(([0, 0, 30, 20], 0.5, 0, 0, 0), ([10, 0, 40, 20], 0.6, 0, 0, 0))
    for method in ("drop-cut", "nms", "nmm", "wbf", "union"):
        assert boxes_of(merge(found, method=method, settings=MergeSettings(coverage=0.5))) == [[0, 0, 40, 20]]


def test_outlines_decide_where_there_are_any() -> None:
    """Two triangles in the same box that share only their long side."""
    triangles = [np.array([[0, 0], [20, 0], [0, 20]]), np.array([[20, 0.5], [20, 20], [0.5, 20]])]
    rows = [([0, 0, 20, 20], 0.9, 0, 0, 0), ([0, 0, 20, 20], 0.8, 0, 1, 0)]
    assert len(merge(found_of(*rows), method="union")) == 1
    assert len(merge(found_of(*rows, polygons=triangles), method="union")) == 2


def test_what_regions_surround_is_theirs() -> None:
    """Four bars around a hole: an outline has none, so what lies in it is covered."""
    bars = [[0, 0, 60, 10], [50, 0, 60, 60], [0, 50, 60, 60], [0, 0, 10, 60]]
    rows = [(bar, 0.9 - place / 10, 0, place, 0) for place, bar in enumerate([*bars, [20, 20, 40, 40]])]
    outlines = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) for (x0, y0, x1, y1), *_ in rows]
    merged = merge(found_of(*rows, polygons=outlines), method="legacy", settings=MergeSettings(iou=None, coverage=0.1))
    assert boxes_of(merged) == [[0, 0, 60, 60]]


def test_a_broken_outline_is_repaired_and_a_missing_one_is_its_box() -> None:
    bow_tie = np.array([[0, 0], [20, 20], [20, 0], [0, 20]], np.float32)
    found = found_of(
        ([0, 0, 20, 20], 0.9, 0, 0, 0), ([10, 0, 40, 20], 0.8, 0, 1, 0), polygons=[bow_tie, np.zeros((0, 2))]
    )
    merged = merge(found, method="union", settings=MergeSettings(coverage=0.3))
    assert boxes_of(merged) == [[0, 0, 40, 20]]
    assert merged.detections.polygons is not None
    assert len(merged.detections.polygons.ring(0)) >= 4
    assert content(merged) != content(found)


def test_without_shapely_outlines_say_what_to_type_and_boxes_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shapely", None)
    monkeypatch.delitem(sys.modules, "scale.merging.shapes", raising=False)
    rows = [([0, 0, 30, 20], 0.5, 0, 0, 0), ([10, 0, 40, 20], 0.6, 0, 1, 0)]
    for method in METHODS:
        assert len(merge(found_of(*rows), method=method, grid=grid_of(175, 25))) <= 2
    with pytest.raises(MissingDependencyError, match=r"shapely is not installed; type: pip install 'redline.scale.'"):
        merge(with_outlines(found_of(*rows)), method="union")
