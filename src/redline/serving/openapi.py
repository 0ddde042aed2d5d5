"""The description of every route in OpenAPI 3.1, made from the models that are served."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from math import prod
from typing import Any

import numpy as np

from redline.core.errors import RequestError
from redline.core.plain import Json, JsonObject
from redline.core.tensor import TensorSpec
from redline.detection.decoding import CONFIDENCE, IOU
from redline.serving.datatypes import DATATYPES, ONLY_BINARY, datatype_of, protocol_shape
from redline.serving.images import CONTENT_TYPES
from redline.serving.limits import Limits
from redline.serving.models import Models
from redline.serving.predict import MOST_TOP
from redline.serving.routes import ROUTES, Name, Route
from redline.serving.tokens import Tokens
from redline.serving.versions import Version

_Schema = dict[str, Json]

_ERROR = {"$ref": "#/components/schemas/Error"}
_MEANINGS = {
    400: "The request is at fault; the answer says how.",
    401: "A token is needed.",
    403: "Not allowed.",
    404: "There is no such model or version.",
    408: "The body did not arrive in time.",
    413: "The request is larger than the server takes.",
    415: "Neither this type of content nor this encoding is taken.",
    500: "The server is at fault; its log has more under the same X-Request-Id.",
    503: "Not now; Retry-After says when to come again.",
    504: "The deadline passed while the request waited.",
}
_RUN = (400, 404, 408, 413, 415, 500, 503, 504)
_ONE = (404, 503)
_CHANGE = (400, 403, 404, 408, 413, 503)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a route does; ``answer`` is a schema, or a type of text, or None where only the status counts."""

    summary: str
    answer: str | None = None
    failures: tuple[int, ...] = ()


_TOLD: dict[Name, _Told] = {
    "infer": _Told("Run a model: Open Inference Protocol, JSON or with binary tensors", "Inference", _RUN),
    "predict": _Told(
        "Run a model on an image or on JSON; a classifier answers with its most probable classes, a detector with "
        "boxes in pixels of the image",
        "Prediction",
        _RUN,
    ),
    "server": _Told("Name, version and extensions of the server", "Server"),
    "live": _Told("Whether the server runs"),
    "ready": _Told("Whether the server answers for its models", failures=(503,)),
    "all_statistics": _Told("What every model has done", "Statistics"),
    "model": _Told("What a model takes and gives", "Model", _ONE),
    "model_ready": _Told("Whether a model answers", failures=_ONE),
    "config": _Told("How a model is run, as Triton's configuration says it", "Config", _ONE),
    "statistics": _Told("What a model has done", "Statistics", _ONE),
    "index": _Told("Every model and version", "Index", (400, 408, 413)),
    "load": _Told("Load a model again from its file", failures=_CHANGE),
    "unload": _Told("Stop answering for a model", failures=_CHANGE),
    "metrics": _Told("Counters and histograms for Prometheus", "text/plain"),
    "openapi": _Told("This description", "Description"),
    "status": _Told("What the page shows", "Status"),
    "page": _Told("The page", "text/html"),
    "file": _Told("A file of the page", "text/javascript"),
}


def describe(models: Models, limits: Limits, tokens: Tokens) -> _Schema:
    """The whole description, a JSON value."""
    served = _served(models)
    paths: dict[str, dict[str, _Schema]] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, served, tokens)
    components: _Schema = {"schemas": _schemas(served, limits)}
    if tokens.token is not None or tokens.admin is not None:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Redline",
            "version": metadata.version("redline"),
            "description": "Models over HTTP: the Open Inference Protocol, and a friendlier way beside it. "
            f'Errors are always {{"error": "…"}} with an X-Request-Id. A body has at most {limits.body_bytes} bytes.',
        },
        "paths": paths,
        "components": components,
    }


def _served(models: Models) -> list[Version]:
    found = []
    for name in models.names:
        try:
            found.append(models.get(name))
        except RequestError:  # known, but not ready
            continue
    return found


def _operation(route: Route, served: list[Version], tokens: Tokens) -> _Schema:
    secured = not route.is_open and (tokens.token is not None or route.name in ("load", "unload"))
    told = _TOLD[route.name]
    failures = set(told.failures)
    if not route.is_open and tokens.token is not None:
        failures |= {401}
    operation: _Schema = {
        "operationId": re.sub(r"\W+", "_", route.template.strip("/")) or "page",
        "summary": told.summary,
        "responses": {"200": _success(route)}
        | {str(status): {"description": _MEANINGS[status], "content": _json(_ERROR)} for status in sorted(failures)},
    }
    parameters = [*_path_parameters(route, served), *_other_parameters(route, served)]
    if parameters:
        operation["parameters"] = parameters
    if secured and (tokens.token is not None or tokens.admin is not None):
        operation["security"] = [{"token": []}]
    body = _body(route, served)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _path_parameters(route: Route, served: list[Version]) -> Iterable[_Schema]:
    for name, pattern in (("model", r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"), ("version", r"^[1-9][0-9]{0,8}$")):
        if f"{{{name}}}" in route.template:
            values = sorted({one.name if name == "model" else one.number for one in served})
            schema: _Schema = {"type": "string", "enum": values} if values else {"type": "string", "pattern": pattern}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _other_parameters(route: Route, served: list[Version]) -> Iterable[_Schema]:
    if route.name == "predict":
        yield {
            "name": "top",
            "in": "query",
            "description": "How many classes of each row.",
            "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TOP, "default": 5},
        }
        yield from _thresholds(served)
        numbers = sorted({one.number for one in served})
        schema: _Schema = {**_TEXT, "enum": numbers} if numbers else _TEXT
        yield {"name": "version", "in": "query", "description": "The newest where none is named.", "schema": schema}
    if route.name == "infer":
        yield {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "Bytes of JSON before the binary tensors; 0 where the body is one raw tensor.",
            "schema": {"type": "integer", "minimum": 0},
        }
    if route.is_inference:
        encodings = ["identity", "gzip", "deflate"]
        yield {"name": "Content-Encoding", "in": "header", "schema": {"type": "string", "enum": encodings}}


def _thresholds(served: list[Version]) -> Iterable[_Schema]:
    if not any(one.loaded.detection for one in served):
        return
    for name, default, said in (
        ("confidence", CONFIDENCE, "Of a detector: boxes with this score or less are left out."),
        ("iou", IOU, "Of a detector: intersection over union above which the lesser of two boxes of a class goes."),
    ):
        schema: _Schema = {"type": "number", "minimum": 0, "maximum": 1, "default": default}
        yield {"name": name, "in": "query", "description": said, "schema": schema}


def _success(route: Route) -> _Schema:
    told = _TOLD[route.name]
    if told.answer is None:
        return {"description": "Yes." if route.method == "GET" else "Done."}
    if "/" in told.answer:
        kind = "text/css" if route.template.endswith(".css") else told.answer
        return {"description": told.summary, "content": {kind: {"schema": _TEXT}}}
    content = _json({"$ref": f"#/components/schemas/{told.answer}"})
    if route.name == "infer":
        content["application/octet-stream"] = _BYTES
    return {"description": told.summary, "content": content}


def _body(route: Route, served: list[Version]) -> _Schema | None:
    if route.name == "infer":
        schema = _any_of(f"Infer_{one.name}" for one in served if _in_json(one))
        return {"required": True, "content": {**_json(schema), "application/octet-stream": _BYTES}}
    if route.name == "predict":
        content = _json(_any_of(f"Predict_{one.name}" for one in served))
        content["multipart/form-data"] = {"schema": _object({"image": _BYTES["schema"]})}
        content |= dict.fromkeys(CONTENT_TYPES, _BYTES)
        return {"required": True, "content": content}
    if route.name == "index":
        return {"content": _json({"type": "object", "properties": {"ready": {"type": "boolean"}}})}
    if route.name in ("load", "unload"):
        return {"content": _json({"type": "object"})}
    return None


def _in_json(served: Version) -> bool:
    return not any(datatype_of(spec.numpy_dtype) in ONLY_BINARY for spec in served.loaded.signature.inputs)


def _any_of(names: Iterable[str]) -> _Schema:
    found: list[_Schema] = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {"type": "object"}


def _json(schema: JsonObject) -> _Schema:
    return {"application/json": {"schema": dict(schema)}}


def _object(properties: JsonObject, *, optional: Iterable[str] = ()) -> _Schema:
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "properties": dict(properties), "required": required}


_LONGEST_EXAMPLE = 256
_TEXT: _Schema = {"type": "string"}
_NAME_OR_NULL: _Schema = {"type": ["string", "null"]}
_BYTES: _Schema = {"schema": {"type": "string", "format": "binary"}}
_COUNT: _Schema = {"type": "integer", "minimum": 0}
_NUMBER: _Schema = {"type": "number"}


def _list(items: JsonObject) -> _Schema:
    return {"type": "array", "items": dict(items)}


def _schemas(served: list[Version], limits: Limits) -> dict[str, _Schema]:
    shape = _list({"type": "integer"})
    datatype = {"type": "string", "enum": sorted(DATATYPES)}
    tensor = _object({"name": _TEXT, "datatype": datatype, "shape": shape})
    given = _object(
        {"name": _TEXT, "datatype": datatype, "shape": shape, "data": _list({}), "parameters": {"type": "object"}},
        optional=("data", "parameters"),
    )
    guess = _object({"class": _COUNT, "name": _NAME_OR_NULL, "probability": _NUMBER})
    points = {**_list(_NUMBER), "minItems": 2, "maxItems": 2}
    box = _object(
        {
            "class": _COUNT,
            "name": _NAME_OR_NULL,
            "score": _NUMBER,
            "box": {**_list(_NUMBER), "minItems": 4, "maxItems": 4, "description": "x0, y0, x1, y1 in pixels"},
            "polygon": _list(points),
        },
        optional=("polygon",),
    )
    times = _object(dict.fromkeys(("queue", "decode", "infer", "encode"), _NUMBER))
    schemas: dict[str, _Schema] = {
        "Error": _object({"error": _TEXT}),
        "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "Model": _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(tensor),
                "outputs": _list(tensor),
            }
        ),
        "Config": _object({"name": _TEXT, "platform": _TEXT, "max_batch_size": _COUNT}),
        "Statistics": _object({"model_stats": _list(_object({"name": _TEXT, "version": _TEXT}))}),
        "Index": _list(_object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT})),
        "Inference": _object(
            {"model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "outputs": _list(given)},
            optional=("model_version", "id"),
        ),
        "Prediction": _object(
            {
                "model": _TEXT,
                "version": _TEXT,
                "id": _TEXT,
                "predictions": _list(_list(guess)),
                "boxes": _list(_list(box)),
                "outputs": _list(_object({"name": _TEXT, "datatype": datatype, "shape": shape, "data": {}})),
                "ms": times,
            },
            optional=("id", "predictions", "boxes", "outputs"),
        ),
        "Status": _object({"state": {"enum": ["starting", "ready", "draining"]}, "models": _list({"type": "object"})}),
        "Description": {"type": "object"},
    }
    for one in served:
        inputs = one.loaded.signature.inputs
        if _in_json(one):
            schemas[f"Infer_{one.name}"] = _infer_body(inputs, limits)
        schemas[f"Predict_{one.name}"] = _predict_body(inputs)
        if all(prod(_smallest(spec)) <= _LONGEST_EXAMPLE for spec in inputs):
            tensors = {spec.name: np.full(_smallest(spec), _value(spec)).tolist() for spec in inputs}
            schemas[f"Predict_{one.name}"]["examples"] = [{"inputs": tensors}]
            if _in_json(one):
                schemas[f"Infer_{one.name}"]["examples"] = [{"inputs": [_infer_example(spec) for spec in inputs]}]
    return schemas


def _value(spec: TensorSpec) -> Any:
    return {"f": 0.5, "i": 1, "u": 1, "b": True}.get(spec.numpy_dtype.kind, "text")


def _smallest(spec: TensorSpec) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in spec.shape]


def _infer_example(spec: TensorSpec) -> _Schema:
    shape = _smallest(spec)
    data = [_value(spec)] * prod(shape)
    return {"name": spec.name, "datatype": datatype_of(spec.numpy_dtype), "shape": shape, "data": data}


def _infer_body(inputs: tuple[TensorSpec, ...], limits: Limits) -> _Schema:
    return _object(
        {
            "id": {"type": "string", "maxLength": limits.id_length},
            "inputs": {
                "type": "array",
                "minItems": len(inputs),
                "maxItems": len(inputs),
                "items": {"anyOf": [_infer_input(spec) for spec in inputs]} if inputs else {},
            },
            "outputs": _list(_object({"name": _TEXT})) | {"maxItems": limits.outputs},
            "parameters": {"type": "object"},
        },
        optional=("id", "outputs", "parameters"),
    )


def _infer_input(spec: TensorSpec) -> _Schema:
    sizes = protocol_shape(spec)
    return _object(
        {
            "name": {"const": spec.name},
            "datatype": {"const": datatype_of(spec.numpy_dtype)},
            "shape": {
                "type": "array",
                "prefixItems": [{"const": size} if size >= 0 else {"type": "integer", "minimum": 1} for size in sizes],
                "minItems": len(sizes),
                "maxItems": len(sizes),
            },
            "data": _list(_element(spec)),
        }
    )


def _element(spec: TensorSpec) -> _Schema:
    kind = spec.numpy_dtype.kind
    if kind == "b":
        return {"type": "boolean"}
    if kind in "OSUT":
        return _TEXT
    return {"type": "integer"} if kind in "iu" else _NUMBER


def _nested(spec: TensorSpec) -> _Schema:
    schema = _element(spec)
    for size in reversed(spec.shape):
        schema = _list(schema) | ({"minItems": size, "maxItems": size} if isinstance(size, int) else {"minItems": 1})
    return schema


def _predict_body(inputs: tuple[TensorSpec, ...]) -> _Schema:
    forms = [_object({spec.name: _nested(spec) for spec in inputs})]
    if len(inputs) == 1:
        forms.append(_nested(inputs[0]))
    return {"anyOf": [_object({key: form}) for key in ("inputs", "instances") for form in forms]}
