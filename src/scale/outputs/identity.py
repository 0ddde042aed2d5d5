"""Names for objects that follow from what they are."""

from __future__ import annotations

import hashlib

import numpy as np

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.outputs.base import SlideInfo

# Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): the finalizer of SplitMix64.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
#: Where the 32 digits of a UUID stand among its 36 characters.
_PLACES = np.array([place for place in range(36) if place not in {8, 13, 18, 23}])
_VERSION, _VARIANT = (6, 0x80), (8, 0x80)


def uuids_of(detections: Detections, info: SlideInfo) -> list[str]:
    """A UUID (version 8) for each object from the slide's name, its class's name, its box and its score.

    The same object has the same name in every run and every file, whatever else was found. Two objects that agree in
    all of that share one.
    """
    classes = np.array([_seed(info.name, name) for name in info.class_names], np.uint64).reshape(-1, 2)
    halves = np.empty((len(detections), 2), ">u8")
    numbers = np.column_stack([detections.boxes, detections.scores]).astype(np.float32)
    words = (numbers + np.float32(0)).view(np.uint32).astype(np.uint64)  # adding 0 makes -0.0 and 0.0 one number
    for half in (0, 1):
        state = classes[detections.classes, half]
        for column in range(words.shape[1]):
            state = _mixed(state ^ words[:, column])
        halves[:, half] = state
    return _texts(halves.view(np.uint8).reshape(-1, 16))


def _seed(*words: str) -> tuple[int, int]:
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def _mixed(state: Array) -> Array:
    state = state + _STEP
    for shift, factor in _MIX:
        state = (state ^ (state >> shift)) * factor
    mixed: Array = state ^ (state >> _LAST_SHIFT)
    return mixed


def _texts(octets: Array) -> list[str]:
    place, bits = _VERSION
    octets[:, place] = (octets[:, place] & 0x0F) | bits
    place, bits = _VARIANT
    octets[:, place] = (octets[:, place] & 0x3F) | bits
    letters = np.full((len(octets), 36), ord("-"), np.uint8)
    letters[:, _PLACES[0::2]] = _HEX[octets >> 4]
    letters[:, _PLACES[1::2]] = _HEX[octets & 0x0F]
    text = letters.tobytes().decode()
    return [text[start : start + 36] for start in range(0, len(text), 36)]
