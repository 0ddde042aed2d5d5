"""Plain images as slides of one level, held whole in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from redline.core.errors import DataError
from redline.core.tensor import Array
from scale.slides.base import Header, levels_of
from scale.slides.blocks import BlockSlide
from scale.slides.failures import reason
from scale.slides.resolution import tag_resolution

#: 12,000 by 12,000 pixels or so, which take 450 MB.
LARGEST_IMAGE_PX = 150_000_000

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION = 296, 282, 283


def open_image(path: Path) -> BlockSlide:
    """Open and decode a plain image: PNG, JPEG, BMP or TIFF.

    It is turned upright as its EXIF data say; transparency is put on white.

    Raises:
        DataError: it is no such image, is broken or cut short, has more than 8 bits a sample, or has more than
            :data:`LARGEST_IMAGE_PX` pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                _refuse(path, image)
                mpp = _mpp(image)
                pixels = np.asarray(_rgb(ImageOps.exif_transpose(image)))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image; expected one of {', '.join(_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to be read as a plain image ({reason(error)}); {_ADVICE}") from error
    except Exception as error:  # the decoders raise almost everything on bytes that nobody vouches for
        raise DataError(f"{path} is a broken image ({reason(error)}); expected a whole one: copy it again") from error
    header = Header(path=path, reader="image", levels=levels_of([(pixels.shape[1], pixels.shape[0])]), mpp=mpp)
    return BlockSlide(header, _Whole(pixels), None)


_ADVICE = f"expected at most {LARGEST_IMAGE_PX:,} pixels; save it as a tiled TIFF, such as: vips tiffsave --tile"


def _refuse(path: Path, image: Image.Image) -> None:
    if image.width * image.height > LARGEST_IMAGE_PX:
        raise DataError(f"{path} has {image.width}x{image.height} pixels without tiles; {_ADVICE}")
    if image.mode not in _MODES:
        raise DataError(f"{path} has pixels of mode {image.mode}; expected 8 bits a sample: gray, RGB or RGBA")


def _rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert("RGBA")
    flat = Image.new("RGB", image.size, "white")
    flat.paste(straight, mask=straight.getchannel("A"))
    return flat


def _mpp(image: Image.Image) -> float | None:
    """What a TIFF says; the dots per inch of other images are those of a screen or a printer."""
    if image.format != "TIFF":
        return None
    tags = image.getexif()
    x, y, unit = (tags.get(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT))
    return tag_resolution(float(x), float(y), unit).mpp if x and y else None


class _Whole:
    """An image in memory as the only block of the only level."""

    def __init__(self, pixels: Array) -> None:
        self._pixels = pixels

    def block_px(self, level: int) -> tuple[int, int]:  # noqa: ARG002 (there is one)
        return self._pixels.shape[1], self._pixels.shape[0]

    def load(self, level: int, row: int, column: int) -> Array:  # noqa: ARG002 (there is one)
        return self._pixels
