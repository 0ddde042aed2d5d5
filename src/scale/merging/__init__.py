"""One detection for each object, though overlapping windows see it several times, and some see only a part of it."""

from scale.merging.found import BOTTOM, CUT_TOLERANCE_PX, LEFT, RIGHT, TOP, Found
from scale.merging.merge import merge
from scale.merging.settings import METHODS, MergeSettings, Method
from scale.merging.streaming import Merger

__all__ = [
    "BOTTOM",
    "CUT_TOLERANCE_PX",
    "LEFT",
    "METHODS",
    "RIGHT",
    "TOP",
    "Found",
    "MergeSettings",
    "Merger",
    "Method",
    "merge",
]
