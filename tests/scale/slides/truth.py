"""What OpenSlide and tifffile show of a slide, which our own reading is held against."""

import math
from functools import lru_cache

import numpy as np
import openslide


@lru_cache(maxsize=32)
def openslide_level(path, level):
    """A whole level as OpenSlide composes it, RGB."""
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
    assert pixels[..., 3].min() == 255
    return pixels[..., :3]


def cut_out(whole, x, y, width, height):
    """A rectangle of a level, white outside it."""
    window = np.full((height, width, 3), 255, np.uint8)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, whole.shape[1]), min(y + height, whole.shape[0])
    if left < right and top < bottom:
        window[top - y : bottom - y, left - x : right - x] = whole[top:bottom, left:right]
    return window


def nearest(x0, downsample):
    return math.floor(x0 / downsample + 0.5)
