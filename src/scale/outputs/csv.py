"""One line per object, for a spreadsheet; units are in the column names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from redline.detection.results import Detections
from scale.outputs.base import SlideInfo
from scale.outputs.text import TextWriter, columns_of, texts_of

_BOX = ("x0", "y0", "x1", "y1")
_UM_DECIMALS = 3


class CsvWriter(TextWriter):
    """Class, model, score and box; the box in micrometres too where mpp is known. Without outlines."""

    def __init__(self, path: Path, info: SlideInfo) -> None:
        units = ("px",) if info.mpp is None else ("px", "um")
        header = ["class", "model", "score", *(f"{side}_{unit}" for unit in units for side in _BOX)]
        super().__init__(path, info, head=",".join(header) + "\n", between="", tail="")
        models = info.models or ("",) * len(info.class_names)
        self._labels = [_cells(name, model) for name, model in zip(info.class_names, models, strict=True)]

    def _items(self, piece: Detections) -> list[str]:
        columns = [[self._labels[index] for index in piece.classes.tolist()], texts_of(piece.scores)]
        columns += columns_of(piece.boxes)
        if self.info.mpp is not None:
            columns += columns_of(np.round(piece.boxes.astype(np.float64) * self.info.mpp, _UM_DECIMALS))
        return [",".join(row) + "\n" for row in zip(*columns, strict=True)]


def _cells(*values: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
