"""The table of output formats: one leaf file each, loaded when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from redline.core.errors import InputError, MissingDependencyError
from scale.outputs.base import SlideInfo, Writer

__all__ = ["FORMATS", "Format", "SlideInfo", "Writer", "open_writer"]


@dataclass(frozen=True, slots=True)
class Format:
    """Where a format lives: a function ``(path, info) -> Writer``, and what its file is called in a result folder."""

    target: str
    file_name: str
    summary: str


FORMATS: dict[str, Format] = {
    "json": Format("scale.outputs.json:JsonWriter", "detections.json", "predictions by class, indented"),
    "geojson": Format("scale.outputs.geojson:GeoJsonWriter", "detections.geojson", "for QuPath"),
    "geojson.gz": Format("scale.outputs.geojson:GeoJsonWriter", "detections.geojson.gz", "for QuPath, compressed"),
    "parquet": Format("scale.outputs.parquet:ParquetWriter", "detections.parquet", "for programs and the viewer"),
    "csv": Format("scale.outputs.csv:CsvWriter", "detections.csv", "for a spreadsheet"),
    "coco": Format("scale.outputs.coco:CocoWriter", "detections.coco.json", "for tools of object detection"),
    "heatmap": Format(
        "scale.outputs.heatmap:HeatmapWriter", "heatmap.png", "objects per area, with a scale and a TIFF"
    ),
}


def open_writer(name: str, path: Path, info: SlideInfo) -> Writer:
    """Begin a file of one format; it appears under ``path`` when the writer is closed.

    Raises:
        InputError: no such format.
        MissingDependencyError: a package that the format needs is not installed.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"got format {name!r}, expected one of {', '.join(FORMATS)}{hint}")
    module, _, function = FORMATS[name].target.partition(":")
    try:
        create = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise MissingDependencyError((error.name or module).split(".")[0], extra="scale") from error
    return cast("Writer", create(path, info))
