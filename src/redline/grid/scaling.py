"""How time grows with the batch and with the pixels: an exponent with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Over = Literal["batch", "pixels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Time taken as ``constant * quantity ** exponent``; ``low`` and ``high`` are a 95 % interval.

    Attributes:
        over: The quantity that varies.
        fixed: What does not, in words: ``224x224`` or ``batch 8``.
        points: How many cells were fitted.
    """

    model: str
    variant: str
    device: str
    loader: str
    over: Over
    fixed: str
    exponent: float
    low: float
    high: float
    points: int
