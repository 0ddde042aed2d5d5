"""Signatures and requests that the tests of the protocol share."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.datatypes import datatype_of
from redline.serving.limits import Limits
from redline.serving.protocol import InferRequest, parse_infer

LIMITS = Limits(batch_rows=8)
#: A model with a batch of rows of four.
ROWS = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 3), "float32"),))
#: A model with two inputs, one of them whole numbers, and two outputs.
PAIR = Signature(
    (TensorSpec("image", ("batch", 2, 3), "float32"), TensorSpec("ids", ("batch", "n"), "int64")),
    (TensorSpec("scores", ("batch", 5), "float32"), TensorSpec("boxes", ("batch", 2, 2), "float64")),
)


def one_input(dtype: str, *shape: int | str) -> Signature:
    """A model with one input ``x`` and the output of :data:`ROWS`."""
    return Signature((TensorSpec("x", shape, dtype),), ROWS.outputs)


def tensor(name: str, array: Array, **more: Any) -> dict[str, Any]:
    """An input as JSON describes it."""
    described = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype), "data": array.tolist()}
    return described | more


def x_of(data: Any = (1, 2, 3, 4), **more: Any) -> dict[str, Any]:
    """The input of :data:`ROWS`, with what a test wants to be different; a value of None leaves a member out."""
    described = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data} | more
    return {key: value for key, value in described.items() if value is not None}


def request(*inputs: Any, **more: Any) -> bytes:
    """A request in JSON."""
    return orjson.dumps({"inputs": list(inputs), **more})


def binary_request(*arrays: tuple[str, Array], **more: Any) -> tuple[bytes, int]:
    """A request with all its tensors behind the JSON, and the length of the JSON."""
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype_of(array.dtype),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays
    ]
    header = orjson.dumps({"inputs": inputs, **more})
    return header + b"".join(array.tobytes() for _, array in arrays), len(header)


def parsed(body: bytes, header_length: int | None = None, signature: Signature = ROWS, **limits: Any) -> InferRequest:
    """What a request says, or the error that it is answered with."""
    return parse_infer(body, header_length, signature, Limits(**({"batch_rows": 8} | limits)), model="m")


def rows(count: int, seed: int = 0) -> Array:
    """Random rows for :data:`ROWS`."""
    return np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)
