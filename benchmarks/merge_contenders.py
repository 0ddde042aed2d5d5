"""One way to merge boxes, timed in a process of its own: a line of JSON says how long it took. A part of merge.py."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from merge_simulation import Scene, rows_of, simulate
from peers.timed_call import timed_call

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.merging import Found, Merger, MergeSettings, merge
from scale.merging.nms_grid import Kernels
from scale.regions.grid import Grid, Region

IOU = 0.4


def _numba() -> Kernels:
    from scale.merging.nms_numba import NumbaKernels

    return NumbaKernels()


def _numpy() -> Kernels:
    from scale.merging.nms_numpy import NumpyKernels

    return NumpyKernels()


def by_rows(scene: Scene) -> int:
    """As the pipeline does it: row by row, what is finished leaves."""
    merger = Merger(grid=scene.grid, kernels=_numba())
    return sum(len(merger.add(row, top)) for row, top in rows_of(scene)) + len(merger.finish())


def shapely_nms(scene: Scene) -> int:
    """Plain NMS on the pairs of an R-tree."""
    import shapely

    boxes, scores = scene.found.detections.boxes.astype(np.float64), scene.found.detections.scores
    order = np.argsort(-scores, kind="stable")
    ranked = boxes[order]
    shapes = shapely.box(*ranked.T)
    i, j = shapely.STRtree(shapes).query(shapes)
    i, j = i[i < j], j[i < j]
    width = np.minimum(ranked[i, 2], ranked[j, 2]) - np.maximum(ranked[i, 0], ranked[j, 0])
    height = np.minimum(ranked[i, 3], ranked[j, 3]) - np.maximum(ranked[i, 1], ranked[j, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (ranked[:, 2] - ranked[:, 0]) * (ranked[:, 3] - ranked[:, 1])
    hit = shared > IOU * (areas[i] + areas[j] - shared)
    gone = np.zeros(len(boxes), bool)
    i, j = i[hit], j[hit]
    by_rank = np.argsort(i, kind="stable")
    for better, lesser in zip(i[by_rank].tolist(), j[by_rank].tolist(), strict=True):
        if not gone[better]:
            gone[lesser] = True
    return int((~gone).sum())


CONTENDERS: dict[str, Callable[[Scene], int]] = {
    "drop-cut, numba": lambda scene: len(merge(scene.found, kernels=_numba())),
    "drop-cut, numba, row by row": by_rows,
    "drop-cut, NumPy": lambda scene: len(merge(scene.found, kernels=_numpy())),
    "owner, numba": lambda scene: len(merge(scene.found, method="owner", grid=scene.grid, kernels=_numba())),
    "plain NMS, IoU 0.4, numba": lambda scene: len(
        merge(scene.found, method="legacy", settings=MergeSettings(iou=IOU), kernels=_numba())
    ),
    "plain NMS, IoU 0.4, shapely": shapely_nms,
}


def load(path: Path) -> Scene:
    with np.load(path) as arrays:
        boxes: Array = arrays["boxes"]
        detections = Detections(boxes=boxes, scores=arrays["scores"], classes=np.zeros(len(boxes), np.int32))
        found = Found(detections, arrays["windows"], arrays["cuts"])
        side, window, overlap = map(int, arrays["grid"])
    region = Region(name="slide", x0=0, y0=0, width_px=side, height_px=side)
    grid = Grid(region=region, window_px=window, overlap_px=overlap)
    none = np.zeros(0)
    return Scene(objects=none, found=found, truth=none, grid=grid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    args = parser.parse_args()
    contender = CONTENDERS[args.contender]
    # Imports, and what numba compiles or reads from its cache, are not measured.
    contender(simulate(side_px=1200, overlap=0.2, probability=1.0))
    scene = load(args.scene)
    print(json.dumps(timed_call(lambda: contender(scene))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
