"""NVIDIA's cuCIM on the CPU, for those who have it; never chosen by itself; the sole importer of cucim.

Some of its releases gave wrong colours for JPEG 2000 without an error (https://github.com/rapidsai/cucim/issues/17),
so the other readers are the ones that are tested for equal pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from redline.core.errors import DataError, MissingDependencyError
from redline.core.tensor import Array
from scale.slides.base import Header, levels_of
from scale.slides.blocks import BlockSlide
from scale.slides.cache import TileCache
from scale.slides.failures import reason

_BLOCK_PX = 512


def open_cucim(path: Path, *, cache: TileCache) -> BlockSlide:
    """Open a slide that cuCIM reads: tiled TIFF and Aperio.

    Raises:
        DataError: cuCIM does not read it.
        MissingDependencyError: cuCIM is not installed.
    """
    try:
        import cucim
    except ImportError as error:
        raise MissingDependencyError("cucim", extra="scale") from error
    try:
        image = cucim.CuImage(str(path))
        sizes = [(int(width), int(height)) for width, height in image.resolutions["level_dimensions"]]
        mpp = _mpp(image)
    except Exception as error:  # cuCIM raises RuntimeError for everything
        raise DataError(f"{path} cannot be opened by cuCIM ({reason(error)}); try --reader auto") from error
    header = Header(path=path, reader="cucim", levels=levels_of(sizes), mpp=mpp)
    return BlockSlide(header, _CuBlocks(header, image), cache)


def _mpp(image: Any) -> float | None:
    units, spacing = image.spacing_units(), image.spacing()
    return float(spacing[1]) if units[1] == "micrometer" else None


class _CuBlocks:
    """Blocks of a slide from cuCIM."""

    def __init__(self, header: Header, image: Any) -> None:
        self._path = header.path
        self._levels = header.levels
        self._image = image

    def block_px(self, level: int) -> tuple[int, int]:  # noqa: ARG002 (the same on every level)
        return _BLOCK_PX, _BLOCK_PX

    def load(self, level: int, row: int, column: int) -> Array:
        size = self._levels[level]
        x, y = column * _BLOCK_PX, row * _BLOCK_PX
        width, height = min(_BLOCK_PX, size.width_px - x), min(_BLOCK_PX, size.height_px - y)
        start0 = (round(x * size.downsample), round(y * size.downsample))
        try:
            pixels: Array = np.asarray(self._image.read_region(start0, (width, height), level))
        except Exception as error:  # cuCIM raises RuntimeError for everything
            raise DataError(
                f"{self._path}, level {level}, the block at row {row}, column {column} cannot be read: {reason(error)}"
            ) from error
        return np.ascontiguousarray(pixels[..., :3])
