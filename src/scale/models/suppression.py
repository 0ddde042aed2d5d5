"""Which suppression models of ``scale`` have: by numba where it is installed, else by NumPy with equal answers."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from redline.detection.nms import Suppression, nms

_log = logging.getLogger(__name__)


@cache
def best_suppression() -> Suppression:
    """The one by numba where that works with the NumPy that is here, else Redline's own."""
    if find_spec("numba") is not None:
        try:
            from scale.models.suppression_numba import nms_by_numba
        # RuntimeError: numba finds no folder in which to keep what it compiles.
        except (ImportError, RuntimeError) as error:
            _log.warning("numba cannot be used (%s): suppression by NumPy, which takes a few times longer", error)
        else:
            return nms_by_numba
    return nms
