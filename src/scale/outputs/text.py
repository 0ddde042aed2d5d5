"""Text files that grow line by line, and numbers as short text."""

from __future__ import annotations

import gzip
from abc import abstractmethod
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from redline.core.tensor import Array
from redline.detection.results import Detections
from scale.outputs.base import SlideInfo, Writer

#: A GeoJSON of a million boxes takes 1 s at this level and 10 at the default, and grows by a fifth.
_LEVEL = 1


class TextWriter(Writer):
    """A writer of UTF-8 text: a head, items with something between them, a tail; compressed where its name ends in .gz.

    The same items give the same bytes: the compressed file bears neither name nor time.
    """

    def __init__(self, path: Path, info: SlideInfo, *, head: str, between: str, tail: str) -> None:
        super().__init__(path, info)
        self._between, self._tail = between, tail
        self._raw = self._scratch.open("wb")
        self._file: IO[bytes] | gzip.GzipFile = self._raw
        if path.suffix == ".gz":
            self._file = gzip.GzipFile("", "wb", _LEVEL, self._raw, mtime=0)
        self._begun = False
        self._file.write(head.encode())

    @abstractmethod
    def _items(self, piece: Detections) -> list[str]:
        """The text of each detection."""

    def _add(self, piece: Detections) -> None:
        items = self._items(piece)
        self._file.write(((self._between if self._begun else "") + self._between.join(items)).encode())
        self._begun = True

    def _finish(self) -> None:
        self._file.write(self._tail.encode())
        self._release()

    def _release(self) -> None:
        self._file.close()
        self._raw.close()


def texts_of(numbers: Array) -> list[str]:
    """Each number of an array of floats, in its order, as the shortest decimals that read back as the same.

    They look as Python writes them, so float32 0.1 is ``0.1`` and a tenth of a thousandth of it ``1e-05``.

    >>> texts_of(np.array([[0.1, 2], [1e-5, 7.25]], np.float32))
    ['0.1', '2.0', '1e-05', '7.25']
    """
    if not numbers.size:
        return []
    text = orjson.dumps(np.ascontiguousarray(numbers).reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    texts = text.split(",")
    if "e" in text or "0.0000" in text:
        return [repr(float(number)) if "e" in number or "0.0000" in number else number for number in texts]
    return texts


def columns_of(numbers: Array) -> list[list[str]]:
    """The columns of a table of floats as texts."""
    texts, width = texts_of(numbers), numbers.shape[1]
    return [texts[column::width] for column in range(width)]
