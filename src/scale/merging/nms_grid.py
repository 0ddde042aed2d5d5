"""Which boxes are of one object, and which touch: by numba if it is installed, else by NumPy with equal answers."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from redline.core.tensor import Array

_log = logging.getLogger(__name__)


class Kernels(Protocol):
    """The loops over boxes that cost time."""

    @property
    def name(self) -> str:
        """What computes them."""
        ...

    def suppress(self, boxes: Array, windows: Array, *, threshold: float, of_smaller: bool, apart: bool) -> Array:
        """Greedy non-maximum suppression.

        Args:
            boxes: float64 of shape (n, 4), best first.
            windows: int64 of shape (n,).
            threshold: Share that the shared area must exceed.
            of_smaller: Of the smaller box's area, instead of the area of both together.
            apart: Boxes of the same window leave each other alone: their detector has compared them.

        Returns:
            int64 of shape (n,): for a suppressed box the best kept one that suppresses it, else itself.
        """
        ...

    def one_to_one(self, boxes: Array, windows: Array, *, threshold: float) -> Array:
        """Suppression where a window has one box for an object: boxes of two windows match if each is the other's best.

        So a box suppresses at most one of each other window, and touching objects do not suppress each other.

        Args:
            boxes: float64 of shape (n, 4), best first.
            windows: int64 of shape (n,).
            threshold: Intersection over union that a match must exceed.

        Returns:
            As :meth:`suppress`.
        """
        ...

    def mutual(self, i: Array, j: Array, likeness: Array, windows: Array) -> Array:
        """Which pairs of boxes match: each is the other's best in its window, of equal ones the first.

        Args:
            i: int64, one box of each pair; each pair comes once.
            j: The other.
            likeness: float64, of each pair.
            windows: int64, of each box.

        Returns:
            Booleans, one for each pair.
        """
        ...

    def touching(self, a: Array, b: Array, *, reach_px: float = 0.0) -> tuple[Array, Array]:
        """Positions in ``a`` and ``b`` (float64 boxes) of all pairs no further apart than ``reach_px``, in any order.

        Where ``a`` and ``b`` are the same array, each pair comes once and none is with itself.
        """
        ...


@cache
def best_kernels() -> Kernels:
    """Those by numba where it is installed and works with the NumPy that is, else those by NumPy."""
    if find_spec("numba") is not None:
        try:
            from scale.merging.nms_numba import NumbaKernels
        # RuntimeError: numba finds no folder in which to keep what it compiles.
        except (ImportError, RuntimeError) as error:
            _log.warning("numba cannot be used (%s): merging by NumPy, which takes a few times longer", error)
        else:
            return NumbaKernels()
    from scale.merging.nms_numpy import NumpyKernels

    return NumpyKernels()
