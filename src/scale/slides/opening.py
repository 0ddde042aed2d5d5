"""Which reader opens a file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal, get_args

from redline.core.errors import DataError, InputError, MissingDependencyError
from scale.slides.base import Slide
from scale.slides.cache import TileCache, shared_cache
from scale.slides.failures import UnsuitedError
from scale.slides.sniff import Kind, shown, sniff

Reader = Literal["auto", "tiled", "openslide", "image", "cucim"]

_log = logging.getLogger(__name__)
_IMAGES: tuple[Kind, ...] = ("jpeg", "png", "bmp")
#: MIRAX slides are opened by a file that is a JPEG image, their overview.
_MIRAX = ".mrxs"


def open_slide(path: str | os.PathLike[str], *, reader: Reader = "auto", cache: TileCache | None = None) -> Slide:
    """Open a slide, or a plain image as one.

    Tiled TIFF, Aperio and OME-TIFF go to our own reader, PNG, JPEG, BMP and small TIFF without tiles to Pillow, all
    else to OpenSlide. A slide that does not say its micrometres per pixel is warned of.

    Args:
        path: The file; of several that make up a slide, the one that OpenSlide wants.
        reader: Which reader to take, whatever the file.
        cache: Keeps decoded tiles; one for all slides of this process where none is given.

    Raises:
        InputError: the file is not there, may not be read, or is a folder.
        DataError: it is broken, or nobody reads such files.
        MissingDependencyError: the reader that it needs is not installed.
    """
    file = Path(path)
    if reader not in get_args(Reader):
        raise InputError(f"got reader {reader!r}; expected one of {', '.join(get_args(Reader))}")
    kind = sniff(file)
    kept = shared_cache() if cache is None else cache
    slide = _by_itself(file, kind, kept) if reader == "auto" else _by_name(file, reader, kept)
    if slide.mpp is None:
        _log.warning("%s does not say its micrometres per pixel: sizes are known in pixels only", file)
    return slide


def _by_name(path: Path, reader: Reader, cache: TileCache) -> Slide:
    if reader == "tiled":
        return _tiled(path, cache)
    if reader == "openslide":
        return _openslide(path, cache)
    return _image(path) if reader == "image" else _cucim(path, cache)


def _by_itself(path: Path, kind: Kind, cache: TileCache) -> Slide:
    if kind in _IMAGES and path.suffix.lower() != _MIRAX:
        return _image(path)
    if kind != "tiff":
        try:
            return _openslide(path, cache)
        except UnsuitedError as error:
            raise DataError(
                f"{path} starts with the bytes {shown(path)}, which are not those of a slide; "
                "expected TIFF (SVS, OME-TIFF, NDPI, SCN, BIF), DICOM, MIRAX, CZI, VMS, PNG, JPEG or BMP"
            ) from error
    try:
        return _tiled(path, cache)
    except UnsuitedError as unsuited:
        return _other_tiff(path, cache, unsuited)


def _other_tiff(path: Path, cache: TileCache, unsuited: UnsuitedError) -> Slide:
    """A TIFF file that our own reader does not read: the slide of another maker, or a plain image."""
    missing: MissingDependencyError | None = None
    try:
        return _openslide(path, cache)
    except UnsuitedError:
        pass
    except MissingDependencyError as error:
        missing = error
    try:
        return _image(path)
    except DataError as error:
        if missing is not None:
            raise missing from error
        raise DataError(f"{error} (nor is it a slide: {unsuited})") from error


def _tiled(path: Path, cache: TileCache) -> Slide:
    try:
        from scale.slides.tiled import open_tiled
    except ImportError as error:
        raise _missing(error, ("tifffile", "imagecodecs")) from error
    return open_tiled(path, cache=cache)


def _openslide(path: Path, cache: TileCache) -> Slide:
    try:
        from scale.slides.openslide import open_openslide
    except (ImportError, OSError) as error:
        raise _missing(error, ("openslide-python", "openslide-bin")) from error
    return open_openslide(path, cache=cache)


def _image(path: Path) -> Slide:
    from scale.slides.image import open_image

    return open_image(path)


def _cucim(path: Path, cache: TileCache) -> Slide:
    from scale.slides.cucim import open_cucim

    return open_cucim(path, cache=cache)


def _missing(error: Exception, packages: tuple[str, str]) -> MissingDependencyError:
    """The first package, or the one that the import names."""
    named = getattr(error, "name", None)
    return MissingDependencyError(named if named in packages else packages[0], extra="scale")
