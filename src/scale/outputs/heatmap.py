"""How many objects of each class lie where: a picture, what its colours mean, and the counts themselves."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from redline.core.errors import InputError
from redline.core.files import whole_file, write_whole
from redline.core.plain import Json, JsonObject
from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.outputs.base import SlideInfo, Writer
from scale.outputs.colours import Colour, colours_of

_LEAST_DOWNSAMPLE = 16
_LONGEST_SIDE = 1024
#: Where a class is full colour: few cells of the map are denser, and one crowded cell does not darken all others.
_FULL_PERCENTILE = 99.5


def default_downsample(info: SlideInfo) -> int:
    """The smallest power of two, from 16 on, at which the map's longer side has at most 1024 cells.

    >>> default_downsample(SlideInfo(name="a", width_px=100_000, height_px=9, class_names=()))
    128
    """
    downsample = _LEAST_DOWNSAMPLE
    while max(info.width_px, info.height_px) > _LONGEST_SIDE * downsample:
        downsample *= 2
    return downsample


class HeatmapWriter(Writer):
    """``heatmap.png`` in the classes' colours on nothing, ``heatmap.json`` with its scale, ``heatmap.ome.tif``.

    A cell is ``downsample`` pixels wide and high; an object counts where its box's middle lies. The TIFF has one
    channel of whole numbers per class, named, with the size of a cell where the slide's mpp is known.
    """

    def __init__(self, path: Path, info: SlideInfo, *, downsample: int | None = None) -> None:
        if downsample is not None and downsample < 1:
            raise InputError(f"got a downsample of {downsample}, expected at least 1")
        super().__init__(path, info)
        self.downsample = downsample or default_downsample(info)
        height, width = (-(-side // self.downsample) for side in (info.height_px, info.width_px))
        self._counts = np.zeros((len(info.names), height, width), np.uint32)

    def _add(self, piece: Detections) -> None:
        middles = (piece.boxes[:, :2].astype(np.float64) + piece.boxes[:, 2:]) / 2
        _, height, width = self._counts.shape
        columns, rows = np.floor(middles / self.downsample).astype(np.int64).T
        names = self.info.name_index[piece.classes]
        # A box may reach beyond the slide's edge, its middle then counts at the edge.
        np.add.at(self._counts, (names, rows.clip(0, height - 1), columns.clip(0, width - 1)), 1)

    def _finish(self) -> None:
        colours, full = colours_of(self.info.names), _full_counts(self._counts)
        with whole_file(self.path.with_suffix(".ome.tif")) as scratch:
            _write_tiff(scratch, self._counts, self.info, self.downsample)
        legend = json.dumps(self._legend(colours, full), indent=2, ensure_ascii=False) + "\n"
        write_whole(self.path.with_suffix(".json"), legend)
        image = Image.fromarray(_picture(self._counts, full, list(colours.values())), "RGBA")
        image.save(self._scratch, format="PNG", optimize=False)

    def _release(self) -> None:
        """The counts are in memory."""

    def _legend(self, colours: dict[str, Colour], full: Array) -> JsonObject:
        cell_mm2 = None if self.info.mpp is None else (self.downsample * self.info.mpp / 1000) ** 2
        classes = [
            {
                "name": name,
                "color": colours[name],
                "objects": int(counts.sum()),
                "most_in_a_cell": int(counts.max(initial=0)),
                "full_color_from": int(top),
                "full_color_from_per_mm2": None if cell_mm2 is None else round(int(top) / cell_mm2, 3),
            }
            for name, counts, top in zip(self.info.names, self._counts, full, strict=True)
        ]
        return {
            "slide": self.info.name,
            "width_px": self.info.width_px,
            "height_px": self.info.height_px,
            "mpp": self.info.mpp,
            "downsample": self.downsample,
            "cell_px": self.downsample,
            "cell_mm2": cell_mm2,
            "counts": "objects whose box's middle lies in a cell; opacity rises from 0 to full_color_from",
            "classes": classes,
        }


def _full_counts(counts: Array) -> Array:
    """For each class the count from which its colour is full: at least 1."""
    tops = [np.percentile(layer[layer > 0], _FULL_PERCENTILE) if layer.any() else 1 for layer in counts]
    full: Array = np.ceil(np.array(tops)).astype(np.uint32)
    return full


def _picture(counts: Array, full: Array, colours: list[Colour]) -> Array:
    """RGBA: the classes' colours mixed by their shares, as opaque as the strongest of them."""
    picture = np.zeros((*counts.shape[1:], 4), np.float64)
    total = np.zeros(counts.shape[1:], np.float64)
    for layer, top, colour in zip(counts, full, colours, strict=True):
        share = np.minimum(layer / top, 1.0)
        total += share
        picture[..., :3] += share[..., None] * np.array(colour, np.float64)
        picture[..., 3] = np.maximum(picture[..., 3], share * 255)
    picture[..., :3] /= np.maximum(total, 1e-12)[..., None]
    return np.rint(picture).astype(np.uint8)


def _write_tiff(path: Path, counts: Array, info: SlideInfo, downsample: int) -> None:
    import tifffile

    # Viewers that show 16 bits show them all; a cell with more objects than that needs 32.
    pixels = counts.astype(np.uint16) if counts.max(initial=0) <= np.iinfo(np.uint16).max else counts
    if not len(counts):
        pixels = np.zeros((1, *counts.shape[1:]), np.uint16)
    content = uuid.UUID(bytes=hashlib.sha256(pixels.tobytes()).digest()[:16])
    # Without a UUID of its own every file would get one from the clock.
    metadata: dict[str, Json] = {"axes": "CYX", "UUID": content.urn, "Creator": "scale"}
    metadata["Channel"] = {"Name": list(info.names) or ["nothing"]}
    if info.mpp is not None:
        size = round(info.mpp * downsample, 6)
        metadata |= {"PhysicalSizeX": size, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": size, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, compression="zlib", photometric="minisblack")
