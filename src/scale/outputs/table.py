"""Detections as an Arrow table: one row an object, in columns that any reader of Parquet knows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from redline.core.errors import DataError
from redline.core.tensor import Array
from redline.detection.results import Detections, Polygons
from scale.outputs.base import SlideInfo
from scale.outputs.colours import colours_of

BOX = ("x0", "y0", "x1", "y1")
#: Where the file says what its slide is.
METADATA_KEY = b"scale"
_WORD = pa.dictionary(pa.int32(), pa.string())

#: While rows are sorted a class is a number of ``SlideInfo.class_names``.
ROWS = pa.schema(
    [
        *(pa.field(name, pa.float32(), nullable=False) for name in (*BOX, "score")),
        pa.field("class", pa.int32(), nullable=False),
        pa.field("polygon", pa.list_(pa.field("item", pa.float32(), nullable=False))),
    ]
)


def file_schema(info: SlideInfo) -> Any:
    """The columns of a file, with what it says about its slide as JSON under ``scale``."""
    about = {"version": 1, **info.to_json(), "colours": colours_of(info.names)}
    fields = [
        *(ROWS.field(name) for name in (*BOX, "score")),
        pa.field("class", _WORD, nullable=False),
        pa.field("model", _WORD),
        ROWS.field("polygon"),
    ]
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(about, ensure_ascii=False).encode()})


def rows_of(detections: Detections) -> Any:
    """Detections as rows; an object without an outline has none, not an empty one."""
    columns = [np.ascontiguousarray(detections.boxes[:, side], np.float32) for side in range(len(BOX))]
    columns += [detections.scores.astype(np.float32), detections.classes.astype(np.int32)]
    return pa.table([*map(pa.array, columns), _polygon_column(detections)], schema=ROWS)


def named(rows: Any, info: SlideInfo) -> Any:
    """Rows with the names of their classes and models."""
    classes = rows["class"].to_numpy()
    models = None if not info.models else np.array([_unique(info.models).index(name) for name in info.models])
    model = pa.nulls(len(rows), _WORD) if models is None else _words(models[classes], _unique(info.models))
    by_name = {name: rows[name] for name in (*BOX, "score", "polygon")}
    by_name |= {"class": _words(info.name_index[classes], info.names), "model": model}
    schema = file_schema(info)
    return pa.table([by_name[name] for name in schema.names], schema=schema)


def detections_of(table: Any) -> tuple[Detections, tuple[str, ...]]:
    """The inverse: detections, and the names that their classes count.

    Raises:
        DataError: a column is missing or of another kind.
    """
    missing = [name for name in (*BOX, "score", "class") if name not in table.column_names]
    if missing:
        raise DataError(f"got a table without the columns {', '.join(missing)}; expected what scale writes")
    try:
        words = table["class"].cast(pa.string()).combine_chunks().dictionary_encode()
        boxes = np.column_stack([table[name].to_numpy() for name in BOX]).astype(np.float32)
        polygons = _polygons_of(table["polygon"]) if "polygon" in table.column_names else None
        detections = Detections(
            boxes=boxes.reshape(-1, len(BOX)),
            scores=table["score"].to_numpy().astype(np.float32),
            classes=words.indices.to_numpy().astype(np.int32),
            polygons=polygons,
        )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"got a table whose columns are not detections ({error})") from error
    return detections, tuple(words.dictionary.to_pylist())


def _polygon_column(detections: Detections) -> Any:
    if detections.polygons is None:
        return pa.nulls(len(detections), ROWS.field("polygon").type)
    offsets = detections.polygons.offsets * 2
    values = np.ascontiguousarray(detections.polygons.points, np.float32).reshape(-1)
    empty = pa.array(np.diff(offsets) == 0)
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(values), type=ROWS.field("polygon").type, mask=empty
    )


def _polygons_of(column: Any) -> Polygons | None:
    rings = column.combine_chunks()
    if rings.null_count == len(rings):
        return None
    lengths = np.nan_to_num(rings.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    values = rings.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return Polygons(points=values.reshape(-1, 2), offsets=np.concatenate([[0], np.cumsum(lengths // 2)]))


def _words(indices: Array, words: tuple[str, ...]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(words, pa.string()))


def _unique(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))
