"""A model's outputs into the body of an answer."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
import orjson

from redline.core.errors import RequestError
from redline.core.tensor import Array
from redline.serving.datatypes import BYTES, ONLY_BINARY, datatype_of
from redline.serving.messages import Encoded, InferRequest

_JSON = "application/json"
_BINARY = "application/octet-stream"
_ASK = "ask for binary data: 'parameters': {'binary_data': true}"


class _Output(TypedDict):
    """An output as JSON has it: with its data, or with how many bytes of it follow."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: NotRequired[Array | list[str]]
    parameters: NotRequired[dict[str, int]]


def encode_infer(
    model: str, version: str, request: InferRequest, outputs: Mapping[str, Array], class_names: Sequence[str] | None
) -> Encoded:
    """The answer to a request.

    Args:
        model: Its name.
        version: Of the model.
        request: Says which outputs are wanted, and how.
        outputs: All that the model gave.
        class_names: For the outputs that are wanted as classes.

    Raises:
        RequestError: an output is wanted as JSON, which has no words for what is in it.
    """
    described: list[_Output] = []
    parts: list[bytes] = [b""]
    for wanted in request.outputs:
        array = outputs[wanted.name]
        if wanted.classes:
            array = _classes(array, wanted.classes, class_names)
        datatype = datatype_of(array.dtype)
        output: _Output = {"name": wanted.name, "datatype": datatype, "shape": array.shape}
        if wanted.binary:
            parts.append(_packed(array) if datatype == BYTES else np.ascontiguousarray(array).tobytes())
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = _plain(array, datatype, wanted.name)
        described.append(output)
    answer: dict[str, str | list[_Output]] = {"model_name": model, "model_version": version}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = described
    parts[0] = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if len(parts) == 1:
        return Encoded(body=parts[0], header_length=None, content_type=_JSON)
    return Encoded(body=b"".join(parts), header_length=len(parts[0]), content_type=_BINARY)


def _plain(array: Array, datatype: str, name: str) -> Array | list[str]:
    """One output for JSON, flat."""
    if datatype == BYTES:
        try:
            return [value if isinstance(value, str) else bytes(value).decode() for value in array.ravel().tolist()]
        except UnicodeDecodeError as error:
            raise RequestError(f"output '{name}' is no text, which JSON cannot carry; {_ASK}") from error
    if datatype in ONLY_BINARY:
        raise RequestError(f"output '{name}' is {datatype}, which the protocol's JSON cannot carry; {_ASK}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError(f"output '{name}' holds NaN or infinity, which JSON cannot carry; {_ASK}")
    return np.ascontiguousarray(array).reshape(-1)


def _packed(array: Array) -> bytes:
    """Each element with its length before it."""
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        encoded = value.encode() if isinstance(value, str) else bytes(value)
        parts += (struct.pack("<I", len(encoded)), encoded)
    return b"".join(parts)


def _classes(array: Array, count: int, names: Sequence[str] | None) -> Array:
    """The highest scores of each row as ``score:index[:label]``; NaN is the lowest of all."""
    if array.dtype.kind not in "fiu":
        raise RequestError(f"classification is for scores, got an output of {datatype_of(array.dtype)}")
    rows = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
    scores = rows.astype(np.float64)
    ranks = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=1, kind="stable")[:, :count]
    texts = np.empty(ranks.shape, object)
    for row, indices in enumerate(ranks.tolist()):
        for place, index in enumerate(indices):
            texts[row, place] = _class(rows[row, index], index, names)
    return texts if array.ndim > 1 else texts[0]


def _class(score: Any, index: int, names: Sequence[str] | None) -> bytes:
    text = f"{score:f}:{index}" if isinstance(score, np.floating) else f"{score}:{index}"
    if names is not None and index < len(names):
        text = f"{text}:{names[index]}"
    return text.encode("utf-8", errors="replace")
