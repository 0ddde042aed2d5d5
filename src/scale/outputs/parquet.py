"""Parquet: the exact numbers, sorted from top to bottom, so that a viewer reads only what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from redline.core.errors import DataError
from redline.detection.results import Detections
from scale.outputs.base import SlideInfo, Writer
from scale.outputs.sorting import SortedRows
from scale.outputs.table import BOX, METADATA_KEY, detections_of, file_schema, named, rows_of

_GROUP_ROWS = 1 << 16
_COMPRESSION = "zstd"


class ParquetWriter(Writer):
    """Rows sorted by upper, then left edge, in groups of 65,536: the same objects in any order give the same file."""

    def __init__(self, path: Path, info: SlideInfo) -> None:
        super().__init__(path, info)
        self._rows = SortedRows(path.parent)

    def _add(self, piece: Detections) -> None:
        self._rows.add(rows_of(piece))

    def _finish(self) -> None:
        schema = file_schema(self.info)
        words = [name for name in schema.names if name in {"class", "model"}]
        with pq.ParquetWriter(self._scratch, schema, compression=_COMPRESSION, use_dictionary=words) as file:
            held = None
            for rows in self._rows.drain():
                held = rows if held is None else pa.concat_tables([held, rows])
                whole = len(held) - len(held) % _GROUP_ROWS
                if whole:
                    file.write_table(named(held.slice(0, whole), self.info), row_group_size=_GROUP_ROWS)
                    held = held.slice(whole)
            if held is not None and len(held):
                file.write_table(named(held, self.info), row_group_size=_GROUP_ROWS)

    def _release(self) -> None:
        self._rows.close()


def read_parquet(
    path: Path, *, within: tuple[float, float, float, float] | None = None
) -> tuple[Detections, tuple[str, ...]]:
    """Detections, and the names that their classes count; all names of the slide where the file tells them.

    Args:
        path: A file of detections, of this program or of another that has such columns.
        within: Only objects that touch this box (x0, y0, x1, y1); groups of rows that have none are not read.

    Raises:
        DataError: no Parquet file, or not of detections.
    """
    with _open(path) as file:
        groups = [index for index in range(file.num_row_groups) if _may_touch(file.metadata.row_group(index), within)]
        try:
            table = file.read_row_groups(groups)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        info = _info_of(file)
    try:
        detections, found = detections_of(table)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    names = found if info is None else tuple(dict.fromkeys((*info.names, *found)))
    place = np.array([names.index(name) for name in found], np.int32)
    named_all = Detections(
        boxes=detections.boxes,
        scores=detections.scores,
        classes=place[detections.classes] if len(place) else detections.classes,
        polygons=detections.polygons,
    )
    return (named_all if within is None else named_all.take(_touching(named_all, within))), names


def read_parquet_info(path: Path) -> SlideInfo | None:
    """What a file says about its slide; None where it is another program's.

    Raises:
        DataError: no Parquet file.
    """
    with _open(path) as file:
        return _info_of(file)


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def _info_of(file: Any) -> SlideInfo | None:
    text = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    return None if text is None else SlideInfo.from_json(json.loads(text))


def _may_touch(group: Any, within: tuple[float, float, float, float] | None) -> bool:
    if within is None:
        return True
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    edges: dict[str, Any] = {name: columns[name].statistics for name in BOX if name in columns}
    if len(edges) < len(BOX) or any(edge is None or not edge.has_min_max for edge in edges.values()):
        return True
    x0, y0, x1, y1 = within
    return bool(edges["x0"].min < x1 and edges["y0"].min < y1 and edges["x1"].max > x0 and edges["y1"].max > y0)


def _touching(detections: Detections, within: tuple[float, float, float, float]) -> Any:
    x0, y0, x1, y1 = within
    left, top, right, bottom = detections.boxes.T
    return (left < x1) & (top < y1) & (right > x0) & (bottom > y0)
