from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scale.outputs.samples import detections, in_pieces

from redline.detection.results import Detections
from scale.outputs.sorting import SortedRows, in_order
from scale.outputs.table import rows_of


def rows(tops: list[float]) -> pa.Table:
    count = len(tops)
    boxes = np.zeros((count, 4), np.float32)
    boxes[:, 1], boxes[:, 0] = tops, np.arange(count)[::-1]
    return rows_of(Detections(boxes=boxes, scores=np.ones(count, np.float32), classes=np.zeros(count, np.int32)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=8),
    st.integers(1, 1500),
    st.integers(1, 5),
)
def test_any_pieces_come_out_in_order(pieces: list[list[float]], run_bytes: int, batch_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sorter = SortedRows(Path(folder), run_bytes=run_bytes, batch_rows=batch_rows)
        for tops in pieces:
            sorter.add(rows(tops))
        drained = list(sorter.drain())
        got = pa.concat_tables(drained) if drained else rows([])
        assert got.equals(in_order(pa.concat_tables([rows([]), *map(rows, pieces)])))
        assert list(Path(folder).iterdir()) == []


def test_outlines_go_with_their_rows(tmp_path: Path) -> None:
    sorter = SortedRows(tmp_path, run_bytes=4000, batch_rows=16)
    for piece in in_pieces(detections(), 30):
        sorter.add(rows_of(piece))
    got = pa.concat_tables(sorter.drain())
    assert got.equals(in_order(rows_of(detections())))
    assert got["polygon"].null_count == 250


def test_it_gives_tables_of_bounded_size_where_rows_came_nearly_in_order(tmp_path: Path) -> None:
    sorter = SortedRows(tmp_path, run_bytes=4000, batch_rows=16)
    for top in range(40):
        sorter.add(rows([top + 0.5, top] * 20))
    sizes = [len(table) for table in sorter.drain()]
    assert sum(sizes) == 1600
    assert max(sizes) < 100


def test_closing_without_draining_leaves_nothing(tmp_path: Path) -> None:
    sorter = SortedRows(tmp_path, run_bytes=1)
    sorter.add(rows([1.0]))
    sorter.close()
    assert list(tmp_path.iterdir()) == []
    assert list(sorter.drain()) == []


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_need_no_disk(count: int, tmp_path: Path) -> None:
    sorter = SortedRows(tmp_path / "absent")
    sorter.add(rows([1.0] * count))
    assert sum(len(table) for table in sorter.drain()) == count
