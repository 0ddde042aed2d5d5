"""The pages of a TIFF slide, read once when it is opened; the sole importer of tifffile."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from redline.core.errors import DataError
from redline.core.tensor import Array
from scale.slides.failures import UnsuitedError, reason
from scale.slides.resolution import Resolution, aperio_resolution, ome_planes, ome_resolution, tag_resolution
from scale.slides.tile_codecs import JPEG, Alpha, TileFormat

_log = logging.getLogger(__name__)
#: Slides have a dozen; a file of noise may seem to have millions.
_MOST_PAGES = 64
_LARGEST_TILE_PX = 1 << 26
_LARGEST_SIDE_PX = 1 << 31
#: Formats whose levels are more than tiles side by side: they overlap, are padded, or lie in many images.
_FOREIGN = {"ndpi": "Hamamatsu", "bif": "Ventana", "scn": "Leica", "philips": "Philips", "avs": "Argos"}
_SOFTWARE_TAG, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _TILE_WIDTH = 305, 282, 283, 296, 322
_ALPHAS: dict[int, Alpha] = {1: "premultiplied", 2: "straight"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledPage:
    """One level as TIFF describes it.

    Attributes:
        offsets: Where each tile's bytes begin, row by row; int64.
        sizes_bytes: How many bytes each tile has, 0 for one that was left out.
    """

    width_px: int
    height_px: int
    tile: TileFormat
    offsets: Array
    sizes_bytes: Array

    @property
    def columns(self) -> int:
        """How many tiles lie side by side."""
        return -(-self.width_px // self.tile.width_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledFile:
    """What one TIFF slide holds: its levels, the finest first, and its scale."""

    pages: tuple[TiledPage, ...]
    resolution: Resolution


def read_pages(path: Path) -> TiledFile:
    """Read the directories of a TIFF file, and none of its pixels.

    Raises:
        DataError: they are broken.
        UnsuitedError: they are those of a slide, or of an image, that is not a pyramid of plain tiles.
    """
    # What is wrong with a file is said once, by our own error.
    log, silent = logging.getLogger("tifffile"), _Silence()
    log.addFilter(silent)
    try:
        with tifffile.TiffFile(path, is_ome=False) as tiff:
            return _read(path, tiff)
    except DataError:
        raise
    except Exception as error:  # tifffile raises almost everything on bytes that nobody vouches for
        raise DataError(
            f"{path} is a broken TIFF file ({reason(error)}); expected a slide; it may be cut short: copy it again"
        ) from error
    finally:
        log.removeFilter(silent)


class _Silence(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 (none passes)
        return False


def _read(path: Path, tiff: tifffile.TiffFile) -> TiledFile:
    try:
        first = tiff.pages.first
    except IndexError:  # where the list of images would be, the file has ended
        first = None
    if not isinstance(first, tifffile.TiffPage):
        raise DataError(f"{path} is a TIFF file without an image; expected a slide; it may be cut short: copy it again")
    if 0 in (first.imagewidth, first.imagelength) or (_TILE_WIDTH in first.tags and not first.is_tiled):
        # Not passed over: a smaller page would then be taken for level 0.
        raise DataError(f"{path} has a first image, or tiles, of no pixels; expected a slide: copy it again")
    for flag, maker in _FOREIGN.items():
        if getattr(first, f"is_{flag}"):
            raise UnsuitedError(f"{path} is a {maker} slide, not a plain pyramid of tiles; open it with OpenSlide")
    if str(first.tags.valueof(_SOFTWARE_TAG, "")).startswith("MedScan"):
        raise UnsuitedError(f"{path} is a Trestle slide, whose tiles overlap; open it with OpenSlide")
    if _is_ome(first):
        _refuse_planes(path, first)
    pages = [_page(path, page) for page in _levels(path, first, list(_first_pages(tiff)))]
    if first.is_svs and any((page.sizes_bytes == 0).any() for page in pages):
        raise UnsuitedError(f"{path} is an Aperio slide with tiles left out; open it with OpenSlide")
    return TiledFile(pages=tuple(pages), resolution=_resolution(first))


def _is_ome(first: tifffile.TiffPage) -> bool:
    return "<OME" in first.description[:2000]


def _refuse_planes(path: Path, first: tifffile.TiffPage) -> None:
    """One of several channels would pass for the whole image, in gray."""
    planes = ome_planes(first.description)
    if first.samplesperpixel == 1 and planes["C"] > 1:
        raise DataError(f"{path} has {planes['C']} channels as images of their own; expected RGB or gray in one image")
    if planes["Z"] > 1 or planes["T"] > 1:
        _log.warning("%s has %d depths and %d times: the first is read", path, planes["Z"], planes["T"])


def _first_pages(tiff: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    for number, page in enumerate(tiff.pages):
        if number >= _MOST_PAGES:
            return
        if isinstance(page, tifffile.TiffPage):
            yield page


def _levels(path: Path, first: tifffile.TiffPage, pages: Sequence[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """The pages that are levels: the largest tiled one, and smaller ones of the same proportions."""
    nested = [page for page in first.pages or () if isinstance(page, tifffile.TiffPage)] if first.subifds else []
    candidates = [first, *nested[:_MOST_PAGES]] if nested else list(pages)
    tiled = [page for page in candidates if page.is_tiled and not page.is_mask]
    if not tiled:
        raise UnsuitedError(
            f"{path} is a TIFF file of {first.imagewidth}x{first.imagelength} pixels without tiles; expected tiles"
        )
    tiled.sort(key=lambda page: -page.imagewidth)
    levels = tiled[:1]
    for page in tiled[1:]:
        if page.imagewidth < levels[-1].imagewidth and _alike(levels[0], page):
            levels.append(page)
    return levels


def _alike(whole: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    """Whether a page shows what ``whole`` shows: the same proportions but for rounding to whole pixels or tiles."""
    if (page.samplesperpixel, page.bitspersample) != (whole.samplesperpixel, whole.bitspersample):
        return False
    wanted_px = page.imagewidth * whole.imagelength / whole.imagewidth
    return bool(abs(page.imagelength - wanted_px) <= max(2.0, 0.01 * wanted_px))


def _page(path: Path, page: tifffile.TiffPage) -> TiledPage:
    where = f"{path}, the level of {page.imagewidth}x{page.imagelength} pixels"
    _refuse_kind(where, page)
    if not (0 < page.imagewidth < _LARGEST_SIDE_PX and 0 < page.imagelength < _LARGEST_SIDE_PX):
        raise DataError(f"{where}: its size is broken; expected 1 to {_LARGEST_SIDE_PX:,} pixels on a side")
    if not (page.tilelength > 0 and page.tilewidth * page.tilelength <= _LARGEST_TILE_PX):
        raise UnsuitedError(f"{where}: its tiles have {page.tilewidth}x{page.tilelength} pixels, expected smaller ones")
    tile = _format(page)
    expected = -(-page.imagewidth // tile.width_px) * -(-page.imagelength // tile.height_px)
    for name, values in (("offsets", page.dataoffsets), ("sizes", page.databytecounts)):
        if len(values) < expected:
            raise DataError(
                f"{where} has the {name} of {len(values):,} tiles, expected {expected:,}; "
                "it may be cut short: copy it again"
            )
    return TiledPage(
        width_px=page.imagewidth,
        height_px=page.imagelength,
        tile=tile,
        offsets=np.asarray(page.dataoffsets[:expected], np.int64),
        sizes_bytes=np.asarray(page.databytecounts[:expected], np.int64),
    )


def _refuse_kind(where: str, page: tifffile.TiffPage) -> None:
    if page.bitspersample != 8 or page.sampleformat not in (None, 1):
        raise UnsuitedError(f"{where}: {page.bitspersample} bits a sample, expected 8 (unsigned)")
    if page.planarconfig != 1 and page.samplesperpixel > 1:
        raise UnsuitedError(f"{where}: each colour has tiles of its own, expected all in one")
    if page.imagedepth != 1 or page.tiledepth != 1:
        raise UnsuitedError(f"{where}: a volume, expected a flat image")
    if page.fillorder != 1:
        raise UnsuitedError(f"{where}: bits in reverse order, expected the usual one")


def _format(page: tifffile.TiffPage) -> TileFormat:
    extra = page.extrasamples[0] if page.extrasamples else 0
    return TileFormat(
        compression=int(page.compression),
        photometric=int(page.photometric),
        samples=page.samplesperpixel,
        width_px=page.tilewidth,
        height_px=page.tilelength,
        predictor=int(page.predictor),
        alpha=_ALPHAS.get(int(extra), "none"),
        jpeg_tables=page.jpegtables,
        jfif=page.compression in JPEG and page.is_jfif,
    )


def _resolution(first: tifffile.TiffPage) -> Resolution:
    description = first.description
    if first.is_svs:
        return aperio_resolution(description)
    tagged = tag_resolution(
        _ratio(first, _X_RESOLUTION), _ratio(first, _Y_RESOLUTION), first.tags.valueof(_RESOLUTION_UNIT, 2)
    )
    if not _is_ome(first):
        return tagged
    said = ome_resolution(description)
    return (
        said
        if said.mpp is not None
        else Resolution(mpp=tagged.mpp, magnification=said.magnification, properties=said.properties)
    )


def _ratio(page: tifffile.TiffPage, tag: int) -> float | None:
    value = page.tags.valueof(tag)
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else None
