"""What is odd in a grid, with numbers and the likely cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnomalyKind = Literal[
    "non-monotonic",
    "fell back",
    "elsewhere",
    "fp16 in fp32",
    "fp16 no gain",
    "tf32",
    "throttled",
    "unstable",
    "not finite",
    "answers differ",
    "loader bound",
    "memory jump",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Something that a reader of the table should know before using its numbers.

    Attributes:
        cells: The cells that show it.
        text: What was seen, one sentence with numbers.
        cause: Why, said as likely.
    """

    kind: AnomalyKind
    cells: tuple[str, ...]
    text: str
    cause: str
