"""RFC 7946 for what is written here, as a JSON Schema: collections of features that are polygons."""

from __future__ import annotations

from typing import Any

_POSITION = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}  # section 3.1.1
_RING = {"type": "array", "items": _POSITION, "minItems": 4}  # section 3.1.6
_POLYGON = {
    "type": "object",
    "required": ["type", "coordinates"],
    "properties": {
        "type": {"const": "Polygon"},
        "coordinates": {"type": "array", "items": _RING, "minItems": 1},
    },
    # Section 7.1: what belongs to other types must not stand here.
    "not": {"anyOf": [{"required": [name]} for name in ("geometry", "properties", "features", "geometries")]},
}
_FEATURE = {
    "type": "object",
    "required": ["type", "geometry", "properties"],  # section 3.2
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": ["string", "number"]},
        "geometry": _POLYGON,
        "properties": {"type": ["object", "null"]},
    },
    "not": {"anyOf": [{"required": [name]} for name in ("coordinates", "features", "geometries")]},
}
FEATURE_COLLECTION: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["type", "features"],  # section 3.3
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": _FEATURE},
    },
    "not": {
        "anyOf": [{"required": [name]} for name in ("coordinates", "geometries", "geometry", "properties")],
    },
}

#: What QuPath 0.4 to 0.6 reads of a feature (qupath.lib.io, QuPathTypeAdapters and GsonTools): a class needs a name and
#: a colour, measurements are an object of numbers, the id is a UUID.
QUPATH_FEATURE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "properties"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"},
        "properties": {
            "type": "object",
            "required": ["objectType", "classification", "measurements"],
            "additionalProperties": False,
            "properties": {
                "objectType": {"const": "detection"},
                "classification": {
                    "type": "object",
                    "required": ["name", "color"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string", "minLength": 1},
                        "color": {
                            "type": "array",
                            "items": {"type": "integer", "minimum": 0, "maximum": 255},
                            "minItems": 3,
                            "maxItems": 3,
                        },
                    },
                },
                "measurements": {
                    "type": "object",
                    "required": ["Confidence"],
                    "additionalProperties": {"type": "number"},
                },
            },
        },
    },
}
