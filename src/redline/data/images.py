"""Image files into model inputs: decoded one at a time, whatever their mode, as a ``Preprocess`` says."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from redline.core.errors import DataError, MissingDependencyError
from redline.core.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from redline.core.tensor import Array, Dim, Signature

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SMALLEST_SIDE_PX = 8
_ORIENTATION = 0x0112  # of EXIF
_TURNED = frozenset({5, 6, 7, 8})  # by a quarter

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def prepare(image: Image.Image, preprocess: Preprocess) -> Array:
    """One decoded image as one sample of a model's input.

    The EXIF orientation is applied, transparency is dropped and 16 bits become 8, as torchvision's ``ImageFolder`` and
    Pillow's converters do it; of several frames the current one counts.

    Args:
        image: In any of Pillow's modes that convert to RGB.
        preprocess: Size, colour, scale and layout of the input.

    Returns:
        float32, shape (channels, height, width), or (height, width, channels) for the layout ``nhwc``.

    Raises:
        MissingDependencyError: a letterbox, and OpenCV is not installed.

    >>> prepare(Image.new("RGB", (40, 30), "white"), Preprocess(height_px=8, width_px=8)).shape
    (3, 8, 8)
    """
    upright = ImageOps.exif_transpose(image)
    fitted = _fit(_eight_bit(upright, "L" if preprocess.color == "gray" else "RGB"), preprocess)
    pixels = fitted.astype(np.float32).reshape(preprocess.height_px, preprocess.width_px, -1)
    if preprocess.color == "bgr":
        pixels = pixels[:, :, ::-1]
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    scaled = (pixels / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled if preprocess.layout == "nhwc" else scaled.transpose(2, 0, 1))


def _eight_bit(image: Image.Image, mode: str) -> Image.Image:
    """Pillow clips deep images at 255 when it converts them; these are scaled first."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        highest = values.max()
        if image.mode.startswith("I") and highest > 255:
            values = values / 257.0
        elif image.mode == "F" and highest <= 1.0:
            values = values * 255.0
        image = Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)


def _fit(image: Image.Image, preprocess: Preprocess) -> Array:
    if preprocess.resize == "letterbox":
        # Only detectors need OpenCV, whose way of scaling they were trained on.
        from redline.detection.letterbox import letterbox

        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        return letterbox(pixels, (preprocess.height_px, preprocess.width_px))
    return np.asarray(_resized(image, preprocess))


def _resized(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    target = (preprocess.width_px, preprocess.height_px)
    if preprocess.resize == "stretch":
        return image.resize(target, Image.Resampling.BILINEAR)
    # Of a strip hundreds of times longer than wide only the middle is kept, which its resized whole would dwarf.
    longest = 8 * min(image.size) * max(target) // min(target)
    if max(image.size) > longest:
        image = ImageOps.fit(image, (min(image.width, longest), min(image.height, longest)))
    # ImageNet evaluation: the short side to 256, then the centre; for an oblong input both sides must be covered.
    scale = preprocess.resize_ratio * max(target[0] / image.width, target[1] / image.height)
    size = (max(target[0], round(image.width * scale)), max(target[1], round(image.height * scale)))
    x, y = round((size[0] - target[0]) / 2), round((size[1] - target[1]) / 2)
    return image.resize(size, Image.Resampling.BILINEAR).crop((x, y, x + target[0], y + target[1]))


def read_image(path: Path, preprocess: Preprocess) -> Array:
    """One image file as one sample of a model's input.

    Raises:
        DataError: the file is no image, is broken or truncated, or its size is absurdly small or large; the message
            is a reason to print beside the file's name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _refuse_small(image, min(SMALLEST_SIDE_PX, preprocess.height_px, preprocess.width_px))
                return prepare(image, preprocess)
    except (DataError, MissingDependencyError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb") from error
    except UnidentifiedImageError as error:
        raise DataError("its bytes are not those of an image") from error
    except Exception as error:  # the decoders raise almost everything on bytes that nobody vouches for
        raise DataError(f"broken ({str(error).strip() or type(error).__name__})") from error


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image file in pixels, upright, without decoding it.

    Raises:
        DataError: the file is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
                return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise DataError(f"{path} is not an image ({str(error).strip() or type(error).__name__})") from error


def _refuse_small(image: Image.Image, smallest_px: int) -> None:
    if min(image.size) < smallest_px:
        raise DataError(f"{image.width}x{image.height} pixels, smaller than {smallest_px} on a side")


def infer_preprocess(signature: Signature, *, size: tuple[int, int] | None = None) -> Preprocess | None:
    """How images would be prepared for a model of which nobody said it; None when its input is not image-like.

    Image-like is a single floating-point input of four sizes with 3 or 1 channels second (``nchw``) or last
    (``nhwc``). Colour gets ImageNet's mean and deviation, gray is left in 0..1.

    Args:
        signature: What the model takes.
        size: (height, width) in pixels, for an input that is dynamic in them.

    Raises:
        DataError: it is image-like, but dynamic in height or width, and no ``size`` was given; or one that differs
            from what the input is fixed at.
    """
    if len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    if len(spec.shape) != 4 or spec.dtype not in ("float32", "float16"):
        return None
    if spec.shape[1] in (1, 3):
        channels, sides, nchw = spec.shape[1], spec.shape[2:4], True
    elif spec.shape[3] in (1, 3):
        channels, sides, nchw = spec.shape[3], spec.shape[1:3], False
    else:
        return None
    height, width = (
        _side(name, side, None if size is None else size[index])
        for index, (name, side) in enumerate(zip(("height", "width"), sides, strict=True))
    )
    gray = channels == 1
    return Preprocess(
        height_px=height,
        width_px=width,
        mean=(0.0,) if gray else IMAGENET_MEAN,
        std=(1.0,) if gray else IMAGENET_STD,
        color="gray" if gray else "rgb",
        layout="nchw" if nchw else "nhwc",
    )


def _side(name: str, side: Dim, wanted: int | None) -> int:
    if isinstance(side, int):
        if wanted is not None and wanted != side:
            raise DataError(f"got a {name} of {wanted} px, the model's input is fixed at {side}")
        return side
    if wanted is None:
        raise DataError(f"the model's input is dynamic in {name} ({side!r}); say the size of the images in pixels")
    return wanted
