"""Marks, shelves and result folders of a few lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.scale.fake_slide import FakeSlide

from redline.core.errors import InputError
from redline.core.tensor import Array
from redline.detection.results import Polygons
from scale.viewer.marks import Marks
from scale.viewer.results import Result
from scale.viewer.shelf import Shelf, Sources

NAMES = ("Crypt", "Cell", "<img src=x onerror=alert(1)>")
COLORS = ("#0072b2", "#d55e00", "#009e73")
SIZE_PX = (1500, 1100)


def marks(number: int = 400, *, seed: int = 0, polygons: bool = False, half_px: tuple[float, float] = (5, 15)) -> Marks:
    """Cells all over a slide of 1500 x 1100 pixels, and three crypts."""
    rng = np.random.default_rng(seed)
    centers = rng.uniform(0, SIZE_PX, (number, 2))
    half = rng.uniform(*half_px, (number, 2))
    half[:3] = 150
    boxes = np.concatenate([centers - half, centers + half], axis=1).astype(np.float32)
    classes = rng.integers(1, 3, number)
    classes[:3] = 0
    scores = rng.uniform(0.1, 1, number).astype(np.float32)
    outlines = Polygons.of([diamond(*box) for box in boxes]) if polygons else None
    return Marks(boxes, scores, classes, names=NAMES, colors=COLORS, polygons=outlines)


def diamond(x0: float, y0: float, x1: float, y1: float) -> Array:
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([[x, y0], [x1, y], [x, y1], [x0, y]], np.float32)


def picture(width_px: int = SIZE_PX[0], height_px: int = SIZE_PX[1]) -> Array:
    """Smooth, so that a pixel's place can be told from its color, with an edge in the middle."""
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    red, green = 255 * columns / width_px, 255 * rows / height_px
    return np.stack([red, green, np.where(columns < width_px // 2, 200.0, 20.0)], axis=2).astype(np.uint8)


def result(name: str = "slide", folder: Path = Path("out"), **more: Any) -> Result:
    known = {"slide_path": Path("there.svs"), "width_px": SIZE_PX[0], "height_px": SIZE_PX[1], "mpp": 0.5}
    return Result(name=name, folder=folder / name, **{**known, **more})


def shelf(
    slides: Mapping[str, FakeSlide | None] | None = None, *, found: Marks | None = None, problems: tuple[str, ...] = ()
) -> Shelf:
    """A shelf whose slides are in memory; None for one whose file is gone."""
    slides = {"slide": FakeSlide(picture(), (1, 4), 0.5)} if slides is None else slides
    found = found or marks()

    def open_slide(one: Result) -> FakeSlide:
        slide = slides[one.name]
        if slide is None:
            raise InputError(f"its file is gone; type: scale view out/{one.name} --slide PATH (the slide)")
        return slide

    sources = Sources(marks=lambda _: found, slide=open_slide, count=lambda _: len(found), stamp=lambda _: "1")
    return Shelf(tuple(result(name) for name in slides), sources, problems=problems)


def write_result(folder: Path, name: str = "slide", *, keep_slide: bool = True) -> Path:
    """A result folder on disk, of a slide in PNG with two detections in JSON."""
    slide = folder / "slides" / f"{name}.png"
    slide.parent.mkdir(parents=True, exist_ok=True)
    if keep_slide:
        Image.fromarray(picture(300, 200)).save(slide)
    out = folder / "out" / name
    out.mkdir(parents=True)
    manifest = {"slide": {"path": str(slide), "width_px": 300, "height_px": 200, "mpp": 0.5}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    box = {"start": {"x": 10, "y": 20}, "end": {"x": 40, "y": 50}}
    found = [{"box": box, "polygon": None, "conf": conf} for conf in (0.9, 0.4)]
    (out / "detections.json").write_text(json.dumps({"Cell": found}))
    return folder / "out"
