"""How the boxes of a class become one for each object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from redline.core.errors import InputError

Method = Literal["drop-cut", "owner", "nms", "nmm", "wbf", "legacy", "union"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSettings:
    """Thresholds for one class; every share is exceeded, not reached.

    Attributes:
        iou: Intersection over union above which boxes of different windows (for ``legacy``: of any) are one object;
            with ``drop-cut``, ``owner`` and ``wbf`` each must be the other's best match as well. None leaves this step
            out.
        coverage: For regions such as tissue layers, which may be larger than any window: boxes or polygons of which
            another one covers more than this share are united, with every method. None for objects that are counted.
        contained: Share of a cut box above which a whole box explains it, and above which two cut boxes of different
            windows are pieces of one object.
        cut_boxes: What becomes of cut boxes that no whole box explains. ``join`` unites the pieces of an object across
            windows, so that one larger than the overlap, or one missed where it is whole, is not lost. ``drop``
            believes only boxes that were seen whole.
        smaller: Share of the smaller box above which ``nmm`` merges, and ``union`` where ``coverage`` is None.
        margin_px: How far beyond its part of the slide an ``owner`` keeps boxes, by their centres.
        seam_px: How far apart two pieces of an object may end at an edge between windows that do not overlap.
    """

    iou: float | None = 0.4
    coverage: float | None = None
    contained: float = 0.5
    cut_boxes: Literal["join", "drop"] = "join"
    smaller: float = 0.5
    margin_px: float = 4.0
    seam_px: float = 3.0

    def __post_init__(self) -> None:
        for name in ("iou", "coverage", "contained", "smaller"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} is {value}, expected a share from 0 to below 1")
        for name in ("margin_px", "seam_px"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}, expected pixels, 0 or more")
        if self.cut_boxes not in ("join", "drop"):
            raise InputError(f"cut_boxes is {self.cut_boxes!r}, expected 'join' or 'drop'")


def settings_of(settings: MergeSettings | Mapping[int, MergeSettings], index: int) -> MergeSettings:
    """Those of a class; a class that a mapping does not name has the defaults.

    >>> settings_of({3: MergeSettings(iou=0.6)}, 3).iou, settings_of({3: MergeSettings(iou=0.6)}, 2).iou
    (0.6, 0.4)
    """
    return settings if isinstance(settings, MergeSettings) else settings.get(index, MergeSettings())


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises:
        InputError: lists those that there are.
    """
    if method not in METHODS:
        raise InputError(f"there is no merge method {method!r}, expected one of {', '.join(METHODS)}")
