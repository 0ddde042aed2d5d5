"""Images out of a request's bytes, within limits."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from redline.core.errors import RequestError

CONTENT_TYPES = ("image/jpeg", "image/png", "image/webp")


def looks_like_image(body: bytes) -> bool:
    """Whether the first bytes are those of a JPEG, PNG or WebP file."""
    return body.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (body[:4] == b"RIFF" and body[8:12] == b"WEBP")


def decode_image(body: bytes, *, most_pixels: int) -> Image.Image:
    """Decode one image, upright; of an animation the first frame.

    The size stands in the header and is judged before a pixel is decoded: half a megabyte of PNG may hold 13,000 by
    13,000 pixels, which take 660 MB.

    Raises:
        RequestError: 400 for bytes that are no whole JPEG, PNG or WebP image, 413 for one of too many pixels.
    """
    if not looks_like_image(body):
        raise RequestError("the bytes are not those of a JPEG, PNG or WebP image")
    try:
        with _open(body) as image:
            _refuse_large(image, most_pixels)
            image.load()
            return ImageOps.exif_transpose(image)
    except RequestError:
        raise
    except MemoryError as error:
        raise RequestError(f"the image is too large, expected at most {most_pixels:,} pixels", status=413) from error
    except Exception as error:  # the decoders raise almost everything on bytes that nobody vouches for
        raise RequestError("the image is broken or cut off") from error


def _open(body: bytes) -> ImageFile:
    """The three decoders by themselves: ``Image.open`` tries others, and warns of each large size anew."""
    if body.startswith(b"\xff"):
        return jpeg_factory(BytesIO(body))
    return PngImageFile(BytesIO(body)) if body.startswith(b"\x89") else WebPImageFile(BytesIO(body))


def _refuse_large(image: Image.Image, most_pixels: int) -> None:
    if image.width * image.height > most_pixels:
        raise RequestError(
            f"the image has {image.width}x{image.height} pixels, expected at most {most_pixels:,}", status=413
        )
