from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.scale.outputs.samples import INFO, assert_same, detections, in_pieces, one

from redline.core.errors import DataError
from redline.detection.results import Detections
from scale.outputs import SlideInfo, open_writer, parquet
from scale.outputs.colours import colours_of
from scale.outputs.parquet import read_parquet, read_parquet_info
from scale.outputs.reading import read_detections, read_info

COLUMNS = {
    "x0": "float",
    "y0": "float",
    "x1": "float",
    "y1": "float",
    "score": "float",
    "class": "dictionary<values=string, indices=int32, ordered=0>",
    "model": "dictionary<values=string, indices=int32, ordered=0>",
    "polygon": "list<element: float not null>",
}


def written(found: Detections, path: Path, info: SlideInfo = INFO) -> Path:
    with open_writer("parquet", path, info) as writer:
        writer.add(found)
    return path


def by_position(found: Detections) -> Detections:
    return found.take(np.lexsort((found.boxes[:, 0], found.boxes[:, 1])))


def test_its_columns_and_what_it_says_of_its_slide(tmp_path: Path) -> None:
    path = written(detections(), tmp_path / "x.parquet")
    schema = pq.read_schema(path)
    assert {field.name: str(field.type).replace("item", "element") for field in schema} == COLUMNS
    assert [field.name for field in schema if field.nullable] == ["model", "polygon"]
    about = json.loads(schema.metadata[b"scale"])
    assert (about["version"], about["name"], about["mpp"]) == (1, "CMU-1.svs", 0.499)
    assert about["colours"] == {name: list(colour) for name, colour in colours_of(INFO.names).items()}
    assert read_parquet_info(path) == read_info(path) == INFO
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_have_names_and_an_object_without_an_outline_has_null(tmp_path: Path) -> None:
    found = by_position(detections())
    table = pq.read_table(written(found, tmp_path / "x.parquet"))
    assert table["class"].to_pylist() == [INFO.class_names[index] for index in found.classes]
    assert table["model"].to_pylist() == [INFO.models[index] for index in found.classes]
    assert found.polygons is not None
    rings = [ring.reshape(-1).tolist() or None for ring in found.polygons.rings()]
    assert table["polygon"].to_pylist() == rings


def test_without_models_and_outlines_their_columns_are_null(tmp_path: Path) -> None:
    info = SlideInfo(name="a", width_px=40_000, height_px=30_000, class_names=("A", "B", "C"))
    table = pq.read_table(written(detections(outlines=False), tmp_path / "x.parquet", info))
    assert (table["model"].null_count, table["polygon"].null_count) == (500, 500)


@pytest.mark.parametrize("outlines", [False, True])
def test_it_is_read_back_to_the_last_bit_from_top_to_bottom(*, outlines: bool, tmp_path: Path) -> None:
    found = by_position(detections(outlines=outlines))
    got, names = read_detections(written(found, tmp_path / "x.parquet"))
    assert names == INFO.names
    found.classes[:] = INFO.name_index[found.classes]
    assert_same(got, found)


def test_the_order_in_which_objects_come_changes_no_byte(tmp_path: Path) -> None:
    found = detections()
    shuffled = found.take(np.random.default_rng(3).permutation(len(found)))
    first = written(found, tmp_path / "a.parquet").read_bytes()
    assert written(shuffled, tmp_path / "b.parquet").read_bytes() == first


def test_sorting_on_disk_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written(detections(), tmp_path / "a.parquet").read_bytes()
    small = parquet.SortedRows
    monkeypatch.setattr(parquet, "SortedRows", lambda folder: small(folder, run_bytes=2000, batch_rows=8))
    with open_writer("parquet", tmp_path / "b.parquet", INFO) as writer:
        for piece in in_pieces(detections(), 20):
            writer.add(piece)
    assert (tmp_path / "b.parquet").read_bytes() == first


def test_groups_are_full_but_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 64)
    small = parquet.SortedRows
    monkeypatch.setattr(parquet, "SortedRows", lambda folder: small(folder, run_bytes=2000, batch_rows=8))
    file = pq.ParquetFile(written(detections(), tmp_path / "x.parquet"))
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert sizes == [64] * 7 + [52]
    tops = file.read()["y0"].to_numpy()
    assert (np.diff(tops) >= 0).all()


def test_only_what_touches_a_place_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 32)
    found = by_position(detections())
    path = written(found, tmp_path / "x.parquet")
    found.classes[:] = INFO.name_index[found.classes]
    read_groups: list[list[int]] = []
    original = pq.ParquetFile.read_row_groups

    def spying(self: pq.ParquetFile, groups: list[int]) -> pa.Table:
        read_groups.append(groups)
        return original(self, groups)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spying)
    place = (10_000.0, 5_000.0, 25_000.0, 8_000.0)
    got, _ = read_parquet(path, within=place)
    x0, y0, x1, y1 = found.boxes.T
    touching = (x0 < place[2]) & (y0 < place[3]) & (x1 > place[0]) & (y1 > place[1])
    assert 5 < touching.sum() < 100
    assert_same(got, found.take(touching))
    assert 0 < len(read_groups[0]) < 8
    nothing, names = read_parquet(path, within=(-9, -9, -5, -5))
    assert (len(nothing), names, read_groups[1]) == (0, INFO.names, [])


def test_another_programs_file_is_read_too(tmp_path: Path) -> None:
    columns = {name: pa.array([1.0, 2.0]) for name in ("x0", "y0", "x1", "y1", "score")}
    pq.write_table(pa.table({**columns, "class": pa.array(["B", "A"])}), tmp_path / "x.parquet")
    got, names = read_parquet(tmp_path / "x.parquet")
    assert (names, got.classes.tolist(), got.polygons) == (("B", "A"), [0, 1], None)
    assert got.boxes.tolist() == [[1] * 4, [2] * 4]
    assert read_parquet_info(tmp_path / "x.parquet") is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"x0": [1.0]}, "without the columns y0, x1, y1, score, class"),
        ({name: ["a"] for name in ("x0", "y0", "x1", "y1", "score", "class")}, "are not detections"),
        ({name: [None] for name in ("x0", "y0", "x1", "y1", "score", "class")}, "are not detections"),
    ],
)
def test_other_tables_are_refused(columns: dict[str, list[object]], reason: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=reason):
        read_parquet(tmp_path / "x.parquet")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_broken_or_missing_file_is_refused(share: float, tmp_path: Path) -> None:
    path = written(one((0, 0, 5, 5)), tmp_path / "x.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_parquet(path)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_info(tmp_path / "absent.parquet")
