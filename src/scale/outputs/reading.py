"""Reading detections back from the formats that keep them whole: Parquet, GeoJSON, JSON."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from redline.core.errors import ArtifactError, DataError
from scale.outputs.base import SlideInfo
from scale.outputs.collecting import Collected, Loaded
from scale.outputs.features import read_features, read_provenance

_GEOJSON = (".geojson", ".geojson.gz")


def read_detections(path: Path) -> Loaded:
    """Detections in level-0 pixels, and the names that their classes count, by the name's ending.

    ``.parquet``; ``.geojson`` (or ``.geojson.gz``) of this program, of QuPath or of another that writes polygons; any
    other is the JSON of predictions by class.

    Raises:
        DataError: the file is missing, broken, or of another layout.
    """
    if path.suffix == ".parquet":
        from scale.outputs.parquet import read_parquet

        return read_parquet(path)
    with _told(path):
        if path.name.lower().endswith(_GEOJSON):
            return read_features(path)
        return _of_predictions(orjson.loads(path.read_bytes()))


def read_info(path: Path) -> SlideInfo | None:
    """What a file says about its slide; None where it says nothing, as the JSON of predictions by class.

    Raises:
        DataError: the file is missing or broken.
    """
    if path.suffix == ".parquet":
        from scale.outputs.parquet import read_parquet_info

        return read_parquet_info(path)
    with _told(path):
        return read_provenance(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); expected .parquet, .geojson or .json") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArtifactError) as error:
        raise DataError(f"{path}: not detections ({error!r}); expected what scale or QuPath writes") from error


def _of_predictions(value: Mapping[str, Sequence[Mapping[str, Any]]]) -> Loaded:
    collected = Collected(names={name: index for index, name in enumerate(value)})
    for name, several in value.items():
        for found in several:
            start, end, outline = found["box"]["start"], found["box"]["end"], found["polygon"] or ()
            ring = [(point["x"], point["y"]) for point in outline]
            collected.add(name, found["conf"], (start["x"], start["y"], end["x"], end["y"]), ring)
    return collected.done()
