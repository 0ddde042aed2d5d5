"""numba's and NumPy's loops give what the definition gives, box by box."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.core.tensor import Array
from scale.merging import nms_grid
from scale.merging.cells import cells_over
from scale.merging.geometry import components, ious, match
from scale.merging.nms_grid import Kernels, best_kernels
from scale.merging.nms_numba import NumbaKernels
from scale.merging.nms_numpy import NumpyKernels

ALL: list[Kernels] = [NumbaKernels(), NumpyKernels()]


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Array, Array]:
    """Boxes on a coarse raster, so that many are equal, touch or hold each other; and their windows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 40))
    spread = draw(st.sampled_from([5, 40, 4000]))
    starts = rng.integers(-spread, spread, (count, 2))
    sizes = rng.choice([0, 2, 3, 9, 200], (count, 2), p=[0.05, 0.3, 0.3, 0.3, 0.05])
    return np.concatenate([starts, starts + sizes], axis=1).astype(np.float64), rng.integers(0, 4, count)


def suppress_one_by_one(given: Array, windows: Array, *, threshold: float, of_smaller: bool, apart: bool) -> list[int]:
    kept: list[int] = []
    leaders = []
    for i in range(len(given)):
        leader = i
        for j in kept:
            hit = match(given[i : i + 1], given[j : j + 1], threshold=threshold, of_smaller=of_smaller)[0]
            if hit and not (apart and windows[i] == windows[j]):
                leader = j
                break
        leaders.append(leader)
        kept += [i] if leader == i else []
    return leaders


def one_to_one_by_definition(given: Array, windows: Array, threshold: float) -> list[int]:
    count = len(given)

    alike = np.array([ious(np.tile(one, (count, 1)), given) for one in given])

    def best(i: int, window: int) -> int:
        others = [(-alike[i, j], j) for j in range(count) if windows[j] == window]
        return next((j for likeness, j in sorted(others) if -likeness > threshold), -1)

    leaders = list(range(count))
    for j in range(count):
        for i in range(j):
            if leaders[i] == i and windows[i] != windows[j] and best(i, windows[j]) == j and best(j, windows[i]) == i:
                leaders[j] = i
                break
    return leaders


@pytest.mark.parametrize("kernels", ALL, ids=lambda kernels: kernels.name)
@given(given=boxes(), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]), of_smaller=st.booleans(), apart=st.booleans())
@settings(deadline=None)
def test_suppression(
    kernels: Kernels, given: tuple[Array, Array], threshold: float, of_smaller: bool, apart: bool
) -> None:
    found = kernels.suppress(*given, threshold=threshold, of_smaller=of_smaller, apart=apart)
    assert found.tolist() == suppress_one_by_one(*given, threshold=threshold, of_smaller=of_smaller, apart=apart)


@pytest.mark.parametrize("kernels", ALL, ids=lambda kernels: kernels.name)
@given(given=boxes(), threshold=st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=60, deadline=None)
def test_matching_one_to_one(kernels: Kernels, given: tuple[Array, Array], threshold: float) -> None:
    found = kernels.one_to_one(*given, threshold=threshold)
    assert found.tolist() == one_to_one_by_definition(*given, threshold)


@pytest.mark.parametrize("kernels", ALL, ids=lambda kernels: kernels.name)
@given(a=boxes(), b=boxes(), reach=st.sampled_from([0.0, 1.0, 5.0]), same=st.booleans())
@settings(deadline=None)
def test_touching_pairs(
    kernels: Kernels, a: tuple[Array, Array], b: tuple[Array, Array], reach: float, same: bool
) -> None:
    ours, others = a[0], a[0] if same else b[0]
    i, j = kernels.touching(ours, others, reach_px=reach)
    gap = np.maximum(ours[:, None, :2], others[None, :, :2]) - np.minimum(ours[:, None, 2:], others[None, :, 2:])
    wanted = (gap <= reach).all(axis=2)
    pairs = sorted((min(p), max(p)) if same else p for p in zip(i.tolist(), j.tolist(), strict=True))
    expected = np.argwhere(np.triu(wanted, 1) if same else wanted)
    assert pairs == [tuple(pair) for pair in expected.tolist()]


@given(given=boxes())
@settings(deadline=None)
def test_cells_are_few(given: tuple[Array, Array]) -> None:
    cells = cells_over(given[0])
    column0, row0, column1, row1 = cells.spans(given[0])
    assert ((column1 - column0 + 1) * (row1 - row0 + 1)).sum() <= 16 * len(given[0])
    assert cells.columns * cells.rows <= 6 * len(given[0]) + 4096 + 1
    assert (column1 < cells.columns).all()
    assert (row1 < cells.rows).all()


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
@settings(deadline=None)
def test_components_are_those_of_a_walk(pairs: list[tuple[int, int]]) -> None:
    wanted = list(range(20))
    for _ in range(20):
        for i, j in pairs:
            wanted[i] = wanted[j] = min(wanted[i], wanted[j])
    given = np.array(pairs, np.int64).reshape(-1, 2)
    assert components(20, given[:, 0], given[:, 1]).tolist() == wanted


def test_numba_is_used_where_it_is_and_numpy_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    best_kernels.cache_clear()
    assert best_kernels().name == "numba"
    best_kernels.cache_clear()
    monkeypatch.setattr(nms_grid, "find_spec", lambda name: None)
    assert best_kernels().name == "numpy"
    best_kernels.cache_clear()


def test_a_numba_that_cannot_be_imported_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best_kernels.cache_clear()
    monkeypatch.setitem(sys.modules, "scale.merging.nms_numba", None)
    assert best_kernels().name == "numpy"
    assert "numba cannot be used" in caplog.text
    best_kernels.cache_clear()


@pytest.mark.parametrize("kernels", ALL, ids=lambda kernels: kernels.name)
@settings(deadline=None, max_examples=100)
@given(boxes(), st.randoms(use_true_random=False))
def test_a_pair_is_mutual_where_each_is_the_others_best_in_its_window(
    kernels: Kernels, given: tuple[Array, Array], random: Any
) -> None:
    found, windows = given
    windows = windows * 7 + 1000
    pairs = [(a, b) for a in range(len(found)) for b in range(a) if windows[a] != windows[b]]
    random.shuffle(pairs)
    i, j = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    likeness = np.round(ious(found[i], found[j]), 1)  # many are alike

    def best(box: int, window: int) -> int:
        others = [
            (-alike, a + b - box)
            for a, b, alike in zip(i.tolist(), j.tolist(), likeness.tolist(), strict=True)
            if box in (a, b) and windows[a + b - box] == window
        ]
        return min(others)[1]

    wanted = [best(a, windows[b]) == b and best(b, windows[a]) == a for a, b in pairs]
    assert kernels.mutual(i, j, likeness, windows).tolist() == wanted
