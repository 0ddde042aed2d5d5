from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.scale.outputs.samples import INFO, detections

from redline.core.errors import InputError
from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.outputs import SlideInfo
from scale.outputs.colours import colours_of
from scale.outputs.heatmap import HeatmapWriter

SMALL = SlideInfo(name="a.svs", width_px=100, height_px=60, mpp=0.5, class_names=("A", "B"))
AT = {"A": [(5, 5), (9, 9), (95, 55), (105, 70), (-3, 5)], "B": [(45, 5), (15, 5), (16, 6)]}


def found() -> Detections:
    middles = np.array([place for several in AT.values() for place in several], np.float32)
    return Detections(
        boxes=np.hstack([middles - 4, middles + 4]),
        scores=np.ones(len(middles), np.float32),
        classes=np.repeat(np.arange(2, dtype=np.int32), [len(several) for several in AT.values()]),
    )


def written(folder: Path, info: SlideInfo, detected: Detections) -> tuple[Array, dict[str, Any], tifffile.TiffFile]:
    with HeatmapWriter(folder / "heatmap.png", info, downsample=10) as writer:
        writer.add(detected)
    image = np.asarray(Image.open(folder / "heatmap.png"))
    legend = json.loads((folder / "heatmap.json").read_text())
    with tifffile.TiffFile(folder / "heatmap.ome.tif") as file:
        return image, legend, file


def counts_of(folder: Path) -> Array:
    counts: Array = tifffile.imread(folder / "heatmap.ome.tif")
    return counts


def test_every_object_counts_once_where_its_middle_lies(tmp_path: Path) -> None:
    written(tmp_path, SMALL, found())
    counts = counts_of(tmp_path)
    assert (counts.shape, counts.dtype) == ((2, 6, 10), np.uint16)
    expected = np.zeros((2, 6, 10))
    expected[0, 0, 0], expected[0, 5, 9] = 3, 2
    expected[1, 0, 4], expected[1, 0, 1] = 1, 2
    np.testing.assert_array_equal(counts, expected)


def test_the_legend_says_what_colours_mean(tmp_path: Path) -> None:
    _, legend, _ = written(tmp_path, SMALL, found())
    assert (legend["downsample"], legend["mpp"], legend["cell_mm2"]) == (10, 0.5, pytest.approx(2.5e-5))
    first, second = legend["classes"]
    assert first == {
        "name": "A",
        "color": list(colours_of(["A", "B"])["A"]),
        "objects": 5,
        "most_in_a_cell": 3,
        "full_color_from": 3,
        "full_color_from_per_mm2": 120_000,
    }
    assert (second["objects"], second["full_color_from"]) == (3, 2)


def test_the_picture_has_the_classes_colours_on_nothing(tmp_path: Path) -> None:
    image, legend, _ = written(tmp_path, SMALL, found())
    first, second = (entry["color"] for entry in legend["classes"])
    assert image.shape == (6, 10, 4)
    assert image[0, 0].tolist() == [*first, 255]
    assert image[5, 9].tolist() == [*first, 170]
    assert image[0, 4].tolist() == [*second, 128]
    assert image[2, 2].tolist() == [0, 0, 0, 0]


def test_where_two_classes_lie_their_colours_mix(tmp_path: Path) -> None:
    both = found()
    both.boxes[:] = both.boxes[0]
    image, legend, _ = written(tmp_path, SMALL, both)
    first, second = (np.array(entry["color"]) for entry in legend["classes"])
    np.testing.assert_allclose(image[0, 0, :3], (first + second) / 2, atol=1)


def test_the_tiff_names_its_channels_and_the_size_of_a_cell(tmp_path: Path) -> None:
    written(tmp_path, SMALL, found())
    with tifffile.TiffFile(tmp_path / "heatmap.ome.tif") as file:
        xml = file.ome_metadata or ""
    assert 'Name="A"' in xml
    assert 'Name="B"' in xml
    assert 'PhysicalSizeX="5.0"' in xml
    assert 'PhysicalSizeYUnit="µm"' in xml


def test_the_sum_over_all_cells_is_the_number_of_objects(tmp_path: Path) -> None:
    with HeatmapWriter(tmp_path / "heatmap.png", replace(INFO, mpp=None)) as writer:
        writer.add(detections())
    assert writer.downsample == 64
    counts = counts_of(tmp_path)
    legend = json.loads((tmp_path / "heatmap.json").read_text())
    assert counts.shape == (2, 469, 625)
    by_name = np.bincount(INFO.name_index[detections().classes]).tolist()
    assert counts.sum(axis=(1, 2)).tolist() == by_name == [entry["objects"] for entry in legend["classes"]]
    assert legend["classes"][0]["full_color_from_per_mm2"] is None


def test_many_objects_in_a_cell_are_still_counted(tmp_path: Path) -> None:
    crowd = found().take(np.zeros(70_000, np.int64))
    written(tmp_path, SMALL, crowd)
    assert counts_of(tmp_path)[0, 0, 0] == 70_000


def test_a_downsample_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="downsample of 0"):
        HeatmapWriter(tmp_path / "heatmap.png", SMALL, downsample=0)
    assert list(tmp_path.iterdir()) == []
