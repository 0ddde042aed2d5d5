"""Slides for tests and benchmarks, made from the real one that is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal

import imagecodecs
import numpy as np
import tifffile

import scale
from redline.core.tensor import Array

#: A real Aperio slide, JPEG, one level of 2220x2967 pixels.
REAL_SVS = Path(scale.__file__).parent / "assets" / "cmu_small_region.svs"
#: The same as DICOM: any file of the folder opens it, this one is the volume.
DICOM_FOLDER = Path(__file__).parent / "data" / "cmu_dicom"
REAL_DICOM = DICOM_FOLDER / "1.2.826.0.1.3680043.8.498.46101912846035108839482746456337535256.dcm"

MPP = 0.499
MAGNIFICATION = 20
_SMALLEST_LEVEL_PX = 512
# What an empty slide looks like to a scanner.
_GLASS = 243
# Whole multiples of 256 pixels, so that halves of halves stay whole and mirrored tiles repeat.
_REGION_HEIGHT_PX, _REGION_WIDTH_PX = 2816, 2048


@lru_cache(maxsize=16)
def region(downsample: int = 1) -> Array:
    """The middle of the real slide, uint8 (2816, 2048, 3), averaged down."""
    whole = np.asarray(tifffile.imread(REAL_SVS, key=0))
    top, left = (whole.shape[0] - _REGION_HEIGHT_PX) // 2, (whole.shape[1] - _REGION_WIDTH_PX) // 2
    middle = whole[top : top + _REGION_HEIGHT_PX, left : left + _REGION_WIDTH_PX]
    if downsample == 1:
        return middle
    height, width = _REGION_HEIGHT_PX // downsample, _REGION_WIDTH_PX // downsample
    return middle.reshape(height, downsample, width, downsample, 3).mean(axis=(1, 3)).round().astype(np.uint8)


def mirrored(x: int, y: int, width_px: int, height_px: int, *, downsample: int = 1) -> Array:
    """Pixels of an endless plane that the region and its mirror images fill."""
    base = region(downsample)
    rows, columns = _mirror(y, height_px, base.shape[0]), _mirror(x, width_px, base.shape[1])
    return base[rows[:, None], columns[None, :]]


def make_pyramid(
    path: Path,
    width_px: int,
    height_px: int,
    *,
    tile_px: int = 256,
    levels: int | None = None,
    compression: str | None = "jpeg",
    maker: Literal["plain", "ome", "aperio"] = "plain",
    mpp: float | None = MPP,
    tissue_share: float = 1.0,
) -> Path:
    """Write a tiled slide of any size, whose tissue is the real region and its mirror images.

    Args:
        path: Where; returned.
        width_px: Of level 0.
        height_px: Of level 0.
        tile_px: Width and height of a tile, a multiple of 16.
        levels: How many, each half of the one before; as many as end above 512 pixels where None.
        compression: What tifffile calls it; ``jpeg`` is of quality 88 with halved colour.
        maker: Whose manner: pages, OME-XML with nested pages, or Aperio's description.
        mpp: Micrometres per pixel to write; none where None.
        tissue_share: About so much of it is tissue, in one piece in its middle; the rest is empty glass.
    """
    wanted = levels or 1 + max(0, int(np.log2(min(width_px, height_px) / _SMALLEST_LEVEL_PX)))
    # From 2^32 bytes on a TIFF file must be a BigTIFF.
    with tifffile.TiffWriter(path, bigtiff=width_px * height_px > 2**31, ome=maker == "ome") as writer:
        for level in range(wanted):
            _write_level(
                writer,
                width_px >> level,
                height_px >> level,
                level,
                wanted,
                (tile_px, compression, maker, mpp, tissue_share),
            )
    return path


def _write_level(
    writer: tifffile.TiffWriter,
    width_px: int,
    height_px: int,
    level: int,
    levels: int,
    how: tuple[int, str | None, str, float | None, float],
) -> None:
    tile_px, compression, maker, mpp, tissue_share = how
    description, metadata = None, None
    if level == 0 and maker == "aperio":
        said = f"|MPP = {mpp}" if mpp else ""
        description = f"Aperio Image Library v11.2.1\r\n{width_px}x{height_px} |AppMag = {MAGNIFICATION}{said}"
    if level == 0 and maker == "ome":
        metadata = {"axes": "YXS"}
        if mpp:
            metadata |= {f"PhysicalSize{axis}{unit}": "µm" if unit else mpp for axis in "XY" for unit in ("", "Unit")}
    dots = {"resolution": (1e4 * 2**-level / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
    writer.write(
        _tiles(width_px, height_px, tile_px, 1 << level, compression == "jpeg", tissue_share),
        shape=(height_px, width_px, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(tile_px, tile_px),
        compression=compression,
        subsampling=(2, 2) if compression == "jpeg" else None,
        description=description,
        metadata=metadata,
        software=False,
        subfiletype=0 if level == 0 else 1,
        subifds=levels - 1 if maker == "ome" and level == 0 else None,
        **dots,
    )


def _tiles(
    width_px: int, height_px: int, tile_px: int, downsample: int, encoded: bool, tissue_share: float
) -> Iterator[Array | bytes]:
    """The tiles row by row; those that mirroring repeats are encoded once."""
    base = region(downsample)
    known: dict[tuple[int, int], Array | bytes] = {}
    glass: Array | bytes = np.full((tile_px, tile_px, 3), _GLASS, np.uint8)
    if encoded:
        glass = _jpeg(np.asarray(glass))
    half = tile_px / 2
    for y in range(0, height_px, tile_px):
        for x in range(0, width_px, tile_px):
            off_centre = ((x + half) / width_px - 0.5) ** 2 + ((y + half) / height_px - 0.5) ** 2
            if tissue_share < 1 and off_centre * np.pi > tissue_share:
                yield glass
                continue
            key = y % (2 * base.shape[0]), x % (2 * base.shape[1])
            if key not in known:
                tile = mirrored(x, y, tile_px, tile_px, downsample=downsample)
                known[key] = _jpeg(tile) if encoded else tile
            yield known[key]


def _jpeg(tile: Array) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(tile, level=88, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"))


def _mirror(start: int, count: int, period: int) -> Array:
    at = np.arange(start, start + count) % (2 * period)
    return np.where(at < period, at, 2 * period - 1 - at)
