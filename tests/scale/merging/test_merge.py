"""Each method on scenes small enough to see by eye, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scale.merging.scenes import boxes_of, content, found_of, grid_of, slides, with_outlines

from redline.core.errors import InputError
from scale.merging import BOTTOM, LEFT, METHODS, RIGHT, TOP, Found, MergeSettings, Method, merge
from scale.merging.nms_numba import NumbaKernels
from scale.merging.nms_numpy import NumpyKernels
from scale.regions.grid import Grid

# Two windows, 0 to 100 and 75 to 175, side by side.
WHOLE_LEFT = ([60, 10, 95, 40], 0.9, 0, 0, 0)
CUT_RIGHT_COPY = ([75, 10, 95, 40], 0.95, 0, 1, LEFT)


def test_a_cut_copy_goes_whatever_its_score() -> None:
    merged = merge(found_of(CUT_RIGHT_COPY, WHOLE_LEFT))
    assert boxes_of(merged) == [[60, 10, 95, 40]]
    assert merged.cuts.tolist() == [0]


def test_two_views_of_an_object_become_the_better_one() -> None:
    merged = merge(found_of(([80, 10, 95, 40], 0.8, 0, 0, 0), ([81, 11, 95, 40], 0.9, 0, 1, 0)))
    assert boxes_of(merged) == [[81, 11, 95, 40]]
    assert merged.windows.tolist() == [1]


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("legacy", "union")])
def test_boxes_of_one_window_are_different_objects(method: Method) -> None:
    found = found_of(([10, 10, 40, 40], 0.9, 0, 0, 0), ([12, 12, 40, 40], 0.8, 0, 0, 0))
    assert len(merge(found, method=method, grid=grid_of(175, 25))) == 2


@pytest.mark.parametrize("method", METHODS)
def test_classes_never_meet(method: Method) -> None:
    found = found_of(([80, 10, 95, 40], 0.9, 0, 0, 0), ([80, 10, 95, 40], 0.8, 1, 1, 0))
    assert merge(found, method=method, grid=grid_of(175, 25)).detections.classes.tolist() == [0, 1]


def test_touching_objects_that_two_windows_see_stay_two() -> None:
    """The best box resembles both of the other window: it is matched with the one that resembles it most."""
    one, other = [80, 10, 98, 28], [83, 12, 101, 30]
    found = found_of((one, 0.9, 0, 0, 0), (one, 0.6, 0, 1, 0), (other, 0.8, 0, 1, 0))
    assert boxes_of(merge(found)) == [one, other]
    assert boxes_of(merge(found, method="nms")) == [one]


@pytest.mark.parametrize("overlap", [0, 25, 50])
def test_an_object_larger_than_the_overlap_is_whole_again(overlap: int) -> None:
    edge, start = 100, 100 - overlap
    left, right = ([20, 10, edge, 60], 0.7, 0, 0, RIGHT), ([start, 11, 170, 60], 0.8, 0, 1, LEFT)
    merged = merge(found_of(left, right))
    assert boxes_of(merged) == [[20, 10, 170, 60]]
    assert merged.detections.scores.tolist() == [np.float32(0.8)]
    assert merged.cuts.tolist() == [0]
    assert len(merge(found_of(left, right), settings=MergeSettings(cut_boxes="drop"))) == 0


def test_an_object_cut_by_four_windows_and_more_is_whole_again() -> None:
    grid = grid_of(325, 25)
    x0, y0, x1, y1 = 30, 40, 290, 300
    rows = []
    for window in grid:
        right, bottom = window.x0 + 100, window.y0 + 100
        box = [max(x0, window.x0), max(y0, window.y0), min(x1, right), min(y1, bottom)]
        cuts = LEFT * (x0 < window.x0) + TOP * (y0 < window.y0) + RIGHT * (x1 > right) + BOTTOM * (y1 > bottom)
        rows.append((box, 0.5 + window.index / 100, 0, window.index, cuts))
    assert len(rows) == 16
    assert boxes_of(merge(found_of(*rows))) == [[x0, y0, x1, y1]]
    assert boxes_of(merge(found_of(*rows), settings=MergeSettings(coverage=0.5))) == [[x0, y0, x1, y1]]


def test_pieces_of_two_objects_one_above_the_other_stay_two() -> None:
    rows = [
        ([40, 10, 100, 50], 0.9, 0, 0, RIGHT), ([75, 10, 140, 50], 0.8, 0, 1, LEFT),
        ([40, 45, 100, 90], 0.7, 0, 0, RIGHT), ([75, 45, 140, 90], 0.6, 0, 1, LEFT),
    ]  # fmt: skip
    assert boxes_of(merge(found_of(*rows))) == [[40, 10, 140, 50], [40, 45, 140, 90]]


def test_pieces_of_one_window_are_different_objects() -> None:
    rows = [([40, 10, 100, 50], 0.9, 0, 0, RIGHT), ([45, 12, 100, 50], 0.8, 0, 0, RIGHT)]
    assert boxes_of(merge(found_of(*rows))) == [row[0] for row in rows]


@pytest.mark.parametrize("turned", [False, True])
def test_of_equally_good_boxes_the_upper_left_one_stays(turned: bool) -> None:
    rows = [([80, 10, 95, 40], 0.8, 0, 1, 0), ([79, 10, 95, 40], 0.8, 0, 0, 0), ([79, 11, 95, 40], 0.8, 0, 2, 0)]
    assert boxes_of(merge(found_of(*(rows[::-1] if turned else rows)))) == [[79, 10, 95, 40]]


def test_a_lone_piece_stays_and_says_where_it_is_cut() -> None:
    merged = merge(found_of(([40, 10, 100, 50], 0.9, 0, 0, RIGHT)))
    assert merged.cuts.tolist() == [RIGHT]


def test_outlines_of_joined_pieces_are_united() -> None:
    square = [
        np.array([[20, 10], [99, 10], [99, 60], [20, 60]]),
        np.array([[101, 10], [170, 10], [170, 60], [101, 60]]),
    ]
    found = found_of(([20, 10, 100, 60], 0.7, 0, 0, RIGHT), ([100, 10, 170, 60], 0.8, 0, 1, LEFT), polygons=square)
    polygons = merge(found).detections.polygons
    assert polygons is not None
    assert len(polygons) == 1
    (ring,) = polygons.rings()
    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([20, 10], [170, 60])


def test_owner_takes_each_window_at_its_word_for_its_part() -> None:
    grid = grid_of(175, 25)
    # The line between the two windows is x = 87.5.
    found = found_of(
        ([60, 10, 70, 20], 0.9, 0, 0, 0),
        ([76, 10, 80, 20], 0.9, 0, 1, 0),
        ([82, 30, 90, 40], 0.5, 0, 0, 0),
        ([83, 30, 91, 40], 0.6, 0, 1, 0),
    )
    assert boxes_of(merge(found, method="owner", grid=grid)) == [[60, 10, 70, 20], [83, 30, 91, 40]]
    unseen = merge(found, method="owner", grid=grid, processed=[False, True, True, True])
    assert [76, 10, 80, 20] in boxes_of(unseen)


def test_owner_without_a_grid_says_what_to_do() -> None:
    with pytest.raises(InputError, match="needs the grid of windows; give it, or take 'drop-cut'"):
        merge(found_of(WHOLE_LEFT), method="owner")


def test_owner_refuses_windows_that_the_grid_has_not() -> None:
    with pytest.raises(InputError, match="windows of the grid of 2 rows x 2"):
        merge(found_of(([0, 0, 1, 1], 0.5, 0, 4, 0)), method="owner", grid=grid_of(175, 25))


def test_nmm_takes_the_box_around_and_wbf_the_weighted_mean() -> None:
    found = found_of(([80, 10, 100, 30], 0.9, 0, 0, 0), ([82, 12, 102, 32], 0.3, 0, 1, 0))
    assert boxes_of(merge(found, method="nmm")) == [[80, 10, 102, 32]]
    mean = merge(found, method="wbf")
    np.testing.assert_allclose(boxes_of(mean), [[80.5, 10.5, 100.5, 30.5]], rtol=1e-6)
    np.testing.assert_allclose(mean.detections.scores, [0.6], rtol=1e-6)


def test_settings_are_of_a_class() -> None:
    pair = [([80, 10, 100, 30], 0.9, 0, 0, 0), ([84, 10, 104, 30], 0.8, 0, 1, 0)]
    found = found_of(*pair, *[(box, score, 1, window, cuts) for box, score, _, window, cuts in pair])
    merged = merge(found, settings={1: MergeSettings(iou=0.9)})
    assert merged.detections.classes.tolist() == [0, 1, 1]
    assert len(merge(found, settings=MergeSettings(iou=None))) == 4


@given(slide=slides(), method=st.sampled_from(METHODS), seed=st.integers(0, 1000), outlines=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_order_in_which_windows_were_looked_at_plays_no_role(
    slide: tuple[list[Found], Grid], method: Method, seed: int, outlines: bool
) -> None:
    found = Found.concatenate(slide[0])
    found = with_outlines(found) if outlines else found
    mixed = found.take(np.random.default_rng(seed).permutation(len(found)))
    wanted = merge(found, method=method, grid=slide[1])
    got = merge(mixed, method=method, grid=slide[1])
    assert boxes_of(got) == boxes_of(wanted)
    assert content(got) == content(wanted)


@given(slide=slides(), method=st.sampled_from(METHODS), coverage=st.sampled_from([None, 0.3]))
@settings(max_examples=60, deadline=None)
def test_numpy_and_numba_give_the_same(slide: tuple[list[Found], Grid], method: Method, coverage: float | None) -> None:
    found, chosen = Found.concatenate(slide[0]), MergeSettings(coverage=coverage)
    results = [
        merge(found, method=method, settings=chosen, grid=slide[1], kernels=kernels)
        for kernels in (NumbaKernels(), NumpyKernels())
    ]
    assert content(results[0]) == content(results[1])


@given(slide=slides())
@settings(max_examples=60, deadline=None)
def test_drop_cut_explains_every_box(slide: tuple[list[Found], Grid]) -> None:
    """Whatever is left out lies, for the most part, in something that is not."""
    found = Found.concatenate(slide[0])
    merged = merge(found)
    kept = merged.detections.boxes.astype(np.float64)
    for box, index in zip(found.detections.boxes.astype(np.float64), found.detections.classes, strict=True):
        same = kept[merged.detections.classes == index]
        width = np.minimum(same[:, 2], box[2]) - np.maximum(same[:, 0], box[0])
        height = np.minimum(same[:, 3], box[3]) - np.maximum(same[:, 1], box[1])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        assert shared.max() >= 0.4 * (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_becomes_nothing(method: Method) -> None:
    assert len(merge(Found.empty(), method=method, grid=grid_of(175, 25))) == 0


def test_an_unknown_method_is_told() -> None:
    with pytest.raises(InputError, match="no merge method 'nmw', expected one of drop-cut, owner"):
        merge(Found.empty(), method="nmw")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"iou": 1.0}, {"iou": -0.1}, {"coverage": 2}, {"margin_px": -1}, {"cut_boxes": "keep"}]
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*, expected"):
        MergeSettings(**wrong)  # type: ignore[arg-type]
