from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import shapely
from tests.scale.outputs.geojson_schema import FEATURE_COLLECTION, QUPATH_FEATURE
from tests.scale.outputs.samples import INFO, assert_same, detections, one

from redline.core.errors import DataError
from redline.detection.results import Detections, Polygons
from scale.outputs import SlideInfo, features, open_writer
from scale.outputs.colours import colours_of
from scale.outputs.identity import uuids_of
from scale.outputs.reading import read_detections, read_info

BOW = [(0, 0), (20, 20), (20, 0), (0, 10)]


def written(found: Detections, path: Path, info: SlideInfo = INFO) -> dict[str, Any]:
    with open_writer("geojson", path, info) as writer:
        writer.add(found)
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    value: dict[str, Any] = json.loads(text)
    return value


def ring_of(feature: dict[str, Any]) -> list[list[float]]:
    (ring,) = feature["geometry"]["coordinates"]
    assert isinstance(ring, list)
    return ring


def test_it_is_geojson_and_what_qupath_reads(tmp_path: Path) -> None:
    value = written(detections(), tmp_path / "x.geojson")
    jsonschema.Draft202012Validator(FEATURE_COLLECTION).validate(value)
    assert len(value["features"]) == 500
    for feature in value["features"]:
        jsonschema.Draft202012Validator(QUPATH_FEATURE).validate(feature)


@pytest.mark.parametrize("broken", ["type", "geometry", "properties"])
def test_the_schema_would_notice(broken: str, tmp_path: Path) -> None:
    value = written(one((1, 2, 3, 4)), tmp_path / "x.geojson")
    del value["features"][0][broken]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(FEATURE_COLLECTION).validate(value)


def test_one_box_reads_as_it_should(tmp_path: Path) -> None:
    value = written(one((1.257, 2, 30.5, 41)), tmp_path / "x.geojson")
    (feature,) = value["features"]
    assert ring_of(feature) == [[1.26, 2], [30.5, 2], [30.5, 41], [1.26, 41], [1.26, 2]]
    assert feature["properties"] == {
        "objectType": "detection",
        "classification": {"name": "Plasma cells", "color": list(colours_of(INFO.names)["Plasma cells"])},
        "measurements": {"Confidence": 0.9},
    }
    assert value["slide"] == INFO.to_json()


def test_every_ring_is_closed_counterclockwise_and_crosses_itself_nowhere(tmp_path: Path) -> None:
    clockwise = one((0, 0, 10, 10), [(0, 0), (0, 10), (10, 10), (10, 0), (5, -3)])
    bow = one((0, 0, 20, 20), BOW)
    twice = one((0, 0, 4, 4), [(0, 0), (0, 0), (4, 0), (4, 4), (4, 4), (0, 0)])
    close = one((0, 0, 4, 4), [(0, 0), (4, 0.001), (4, 0.004), (0.001, 4), (0, 4), (0.003, 3), (0.004, 0.002)])
    found = Detections.concatenate([clockwise, bow, twice, close, detections(200).take(np.arange(1, 200, 2))])
    for feature in written(found, tmp_path / "x.geojson")["features"]:
        ring = ring_of(feature)
        assert ring[0] == ring[-1]
        assert shapely.is_ccw(shapely.LinearRing(ring))
        assert shapely.Polygon(ring).is_valid
        assert shapely.Polygon(ring).area > 0
        assert np.array_equal(np.round(ring, 2), ring)


def test_of_an_outline_that_crosses_itself_the_largest_part_remains(tmp_path: Path) -> None:
    (feature,) = written(one((0, 0, 20, 20), BOW), tmp_path / "x.geojson")["features"]
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(BOW)))
    assert shapely.Polygon(ring_of(feature)).area == pytest.approx(max(part.area for part in parts), abs=0.2)


@pytest.mark.parametrize("outline", [[], [(0, 0), (5, 5)], [(0, 0), (5, 5), (9, 9)], [(3, 3)] * 5])
def test_an_outline_without_an_area_gives_way_to_the_box(outline: list[tuple[float, float]], tmp_path: Path) -> None:
    (feature,) = written(one((0, 0, 9, 8), outline), tmp_path / "x.geojson")["features"]
    assert ring_of(feature) == [[0, 0], [9, 0], [9, 8], [0, 8], [0, 0]]


def test_a_flat_box_is_a_hundredth_of_a_pixel_thick(tmp_path: Path) -> None:
    (feature,) = written(one((5, 5, 5, 5.001)), tmp_path / "x.geojson")["features"]
    assert ring_of(feature) == [[5, 5], [5.01, 5], [5.01, 5.01], [5, 5.01], [5, 5]]


def test_ids_follow_from_the_object_and_not_from_its_neighbours() -> None:
    found = detections()
    names = uuids_of(found, INFO)
    assert len(set(names)) == 500
    order = np.random.default_rng(1).permutation(500)
    assert uuids_of(found.take(order), INFO) == [names[index] for index in order]
    renamed = SlideInfo(**{**INFO.to_json(), "name": "other.svs", "class_names": INFO.class_names, "models": ()})
    assert not set(names) & set(uuids_of(found, renamed))
    moved = one((1, 2, 3, 4.0000005))
    assert uuids_of(one((1, 2, 3, 4)), INFO) != uuids_of(moved, INFO)
    assert uuids_of(one((-0.0, 2, 3, 4)), INFO) == uuids_of(one((0.0, 2, 3, 4)), INFO)
    assert uuids_of(Detections.empty(), INFO) == []


def test_an_id_stays_the_same_over_versions() -> None:
    assert uuids_of(one((1, 2, 3, 4)), INFO) == ["901151fd-a8d5-87f0-83e3-87a8ee4e3feb"]


def test_it_is_read_back_with_its_slide(tmp_path: Path) -> None:
    found = detections()
    written(found, tmp_path / "x.geojson")
    got, names = read_detections(tmp_path / "x.geojson")
    assert names == INFO.names
    assert read_info(tmp_path / "x.geojson") == INFO
    np.testing.assert_array_equal(got.classes, INFO.name_index[found.classes])
    np.testing.assert_array_equal(got.scores, found.scores)
    boxes_alone = np.arange(0, 500, 2)
    np.testing.assert_allclose(got.boxes[boxes_alone], found.boxes[boxes_alone], atol=0.006)
    assert got.polygons is not None
    assert found.polygons is not None
    np.testing.assert_array_equal(got.polygons.offsets, found.polygons.offsets)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_a_file_that_ends_early_is_refused_wherever_it_ends(count: int, tmp_path: Path) -> None:
    found = detections(count, outlines=False)
    written(found, tmp_path / "x.geojson")
    assert len(read_detections(tmp_path / "x.geojson")[0]) == count
    content = (tmp_path / "x.geojson").read_bytes()
    for end in np.linspace(0, len(content) - 3, 60).astype(int):
        (tmp_path / "x.geojson").write_bytes(content[:end])
        with pytest.raises(DataError):
            read_detections(tmp_path / "x.geojson")


def test_it_is_read_in_blocks_and_as_a_whole_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = written(detections(), tmp_path / "x.geojson")
    (tmp_path / "whole.geojson").write_text(json.dumps(value))
    whole, names = read_detections(tmp_path / "whole.geojson")
    monkeypatch.setattr(features, "_BLOCK_BYTES", 1000)
    got, got_names = read_detections(tmp_path / "x.geojson")
    assert got_names == names
    assert_same(got, whole)
    assert read_info(tmp_path / "whole.geojson") == INFO


def test_compressed_it_holds_the_same_and_bears_no_time(tmp_path: Path) -> None:
    found = detections()
    assert written(found, tmp_path / "x.geojson.gz") == written(found, tmp_path / "x.geojson")
    content = (tmp_path / "x.geojson.gz").read_bytes()
    assert content[3:8] == bytes(5)  # no name, no time (RFC 1952)
    assert_same(read_detections(tmp_path / "x.geojson.gz")[0], read_detections(tmp_path / "x.geojson")[0])


def test_boxes_alone_come_back_without_outlines(tmp_path: Path) -> None:
    found = detections(outlines=False)
    written(found, tmp_path / "x.geojson")
    got = read_detections(tmp_path / "x.geojson")[0]
    assert got.polygons is None
    np.testing.assert_allclose(got.boxes, found.boxes, atol=0.006)


def test_polygons_of_a_chunk_without_any_are_boxes(tmp_path: Path) -> None:
    plain = one((0, 0, 5, 5))
    empty = Detections(boxes=plain.boxes, scores=plain.scores, classes=plain.classes, polygons=Polygons.of([[]]))
    assert written(plain, tmp_path / "a.geojson") == written(copy.copy(empty), tmp_path / "b.geojson")
