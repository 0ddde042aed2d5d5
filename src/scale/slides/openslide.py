"""Every format that OpenSlide knows; the sole importer of openslide."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from redline.core.errors import DataError
from redline.core.tensor import Array
from scale.slides.base import Header, Level
from scale.slides.blocks import BlockSlide
from scale.slides.cache import TileCache
from scale.slides.failures import UnsuitedError, reason
from scale.slides.resolution import named_resolution

#: OpenSlide gives any rectangle. Blocks are asked for, and kept, because it composes each window anew.
_BLOCK_PX = 512
_OPENSLIDE_CACHE_BYTES = 64 << 20


def open_openslide(path: Path, *, cache: TileCache) -> BlockSlide:
    """Open a slide of any format that OpenSlide knows.

    Raises:
        DataError: it is broken.
        UnsuitedError: OpenSlide does not know such files.
    """
    handle = _open(path)
    try:
        said = named_resolution(dict(handle.properties))
        header = Header(
            path=path,
            reader="openslide",
            levels=tuple(
                Level(width_px=width, height_px=height, downsample=downsample)
                for (width, height), downsample in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            ),
            mpp=said.mpp,
            magnification=said.magnification,
            properties=said.properties,
        )
    except BaseException:
        handle.close()
        raise
    return BlockSlide(header, OpenSlideBlocks(path, header, handle), cache)


class OpenSlideBlocks:
    """Blocks of a slide from OpenSlide, whose handles may be used by many threads.

    OpenSlide takes places in whole pixels of level 0. Where these are no whole pixels of a level, because its
    downsample is 2.0003 rather than 2, it shifts that level by the rest, less than half a pixel, and so blurs it.
    """

    def __init__(self, path: Path, header: Header, handle: openslide.OpenSlide) -> None:
        """Serve an open handle, which closes itself when nobody holds it."""
        self._path = path
        self._levels = header.levels
        self._background = "#" + header.properties.get("openslide.background-color", "ffffff")
        self._handle = handle
        self._lock = threading.Lock()

    def block_px(self, level: int) -> tuple[int, int]:  # noqa: ARG002 (the same on every level)
        """Width and height of the blocks of a level."""
        return _BLOCK_PX, _BLOCK_PX

    def load(self, level: int, row: int, column: int) -> Array:
        """Have OpenSlide read one block.

        Raises:
            DataError: OpenSlide could not; the file is opened anew, because a handle that failed once always fails.
        """
        size = self._levels[level]
        x, y = column * _BLOCK_PX, row * _BLOCK_PX
        width, height = min(_BLOCK_PX, size.width_px - x), min(_BLOCK_PX, size.height_px - y)
        handle = self._handle
        x0, y0 = round(x * size.downsample), round(y * size.downsample)
        try:
            region = handle.read_region((x0, y0), level, (width, height))
        except openslide.OpenSlideError as error:
            self._renew(handle)
            raise DataError(
                f"{self._path}, level {level}, the block of {width}x{height} pixels at row {row}, column {column} "
                f"cannot be read: {reason(error)}"
            ) from error
        return _on_background(region, self._background)

    def _renew(self, failed: openslide.OpenSlide) -> None:
        with self._lock:
            if self._handle is not failed:
                return
            # The failed one is closed when the last thread that reads from it lets it go.
            self._handle = _open(self._path)


def _on_background(region: Image.Image, background: str) -> Array:
    pixels = np.asarray(region)
    if pixels[..., 3].min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    flat = Image.new("RGB", region.size, background)
    flat.paste(region, mask=region.getchannel("A"))
    return np.asarray(flat)


def _open(path: Path) -> openslide.OpenSlide:
    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise UnsuitedError(f"{path} is of no format that OpenSlide knows; expected a slide") from error
    except (openslide.OpenSlideError, OSError) as error:
        raise DataError(
            f"{path} cannot be opened by OpenSlide ({reason(error)}); expected a sound slide; "
            "it may be cut short, or lack the files that belong to it: copy it again"
        ) from error
    handle.set_cache(_openslide_cache())
    return handle


@lru_cache(maxsize=1)
def _openslide_cache() -> openslide.OpenSlideCache:
    """Its own decoded tiles, which blocks share at their edges; one for all slides."""
    return openslide.OpenSlideCache(_OPENSLIDE_CACHE_BYTES)
