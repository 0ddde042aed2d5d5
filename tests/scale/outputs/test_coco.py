from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from tests.scale.outputs.samples import INFO, detections, in_pieces, one

from redline.detection.results import Detections
from scale.outputs import open_writer


def written(path: Path, *pieces: Detections) -> dict[str, Any]:
    with open_writer("coco", path, INFO) as writer:
        for piece in pieces:
            writer.add(piece)
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def test_one_image_its_categories_and_an_annotation_each(tmp_path: Path) -> None:
    found = detections()
    value = written(tmp_path / "x.json", *in_pieces(found, 60))
    assert value["images"] == [{"id": 1, "file_name": "CMU-1.svs", "width": 40_000, "height": 30_000}]
    assert value["categories"] == [{"id": 1, "name": "Plasma cells"}, {"id": 2, "name": 'Größe, "x"'}]
    assert [item["id"] for item in value["annotations"]] == list(range(1, 501))
    assert found.polygons is not None
    for item, box, ring, index in zip(
        value["annotations"], found.boxes.astype(float), found.polygons.rings(), found.classes, strict=True
    ):
        assert (item["image_id"], item["iscrowd"]) == (1, 0)
        assert value["categories"][item["category_id"] - 1]["name"] == INFO.class_names[index]
        np.testing.assert_allclose(item["bbox"], [*box[:2], *(box[2:] - box[:2])], atol=0.006)
        if len(ring):
            np.testing.assert_allclose(item["segmentation"], [ring.reshape(-1)], atol=0.006)
            assert item["area"] == pytest.approx(shapely.Polygon(ring.astype(float)).area, abs=0.006)
        else:
            assert item["segmentation"] == []
            assert item["area"] == pytest.approx(item["bbox"][2] * item["bbox"][3], abs=0.7)


def test_scores_stay_exact_and_far_corners_keep_their_area(tmp_path: Path) -> None:
    far = one((99_000, 99_000, 99_010, 99_010), [(99_000, 99_000), (99_010, 99_000), (99_010, 99_010)])
    (item,) = written(tmp_path / "x.json", far)["annotations"]
    assert (item["score"], item["area"], item["bbox"]) == (0.9, 50, [99_000, 99_000, 10, 10])


def test_an_outline_of_two_points_is_none(tmp_path: Path) -> None:
    (item,) = written(tmp_path / "x.json", one((0, 0, 4, 4), [(0, 0), (4, 4)]))["annotations"]
    assert (item["segmentation"], item["area"]) == ([], 16)
