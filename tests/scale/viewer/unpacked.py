"""Reads what the server packs, as the page does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scale.viewer.encoding import MAGIC


@dataclass(frozen=True, slots=True)
class Unpacked:
    total: int
    counts: list[int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray | None
    points: np.ndarray | None


def unpack(body: bytes) -> Unpacked:
    at = 0

    def take(kind: str, number: int) -> np.ndarray:
        nonlocal at
        array = np.frombuffer(body, kind, number, at)
        at += array.nbytes
        return array

    magic, n, total, classes, outlined, points, *_ = take("<u4", 8).tolist()
    assert magic == MAGIC
    counts = take("<u4", classes).tolist()
    rest = take("<f4", 4 * n).reshape(n, 4), take("<f4", n), take("<u4", n), take("<u4", n)
    outlines = (take("<u4", n + 1), take("<f4", 2 * points).reshape(-1, 2)) if outlined else (None, None)
    assert at == len(body)
    return Unpacked(total, counts, *rest, *outlines)
