"""What the Open Inference Protocol calls NumPy's dtypes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from redline.core.tensor import TensorSpec

BYTES = "BYTES"

#: NumPy's name of a dtype, its name in a request, its name in a Triton model configuration.
_NAMES: tuple[tuple[str, str, str], ...] = (
    ("bool", "BOOL", "TYPE_BOOL"),
    ("uint8", "UINT8", "TYPE_UINT8"),
    ("uint16", "UINT16", "TYPE_UINT16"),
    ("uint32", "UINT32", "TYPE_UINT32"),
    ("uint64", "UINT64", "TYPE_UINT64"),
    ("int8", "INT8", "TYPE_INT8"),
    ("int16", "INT16", "TYPE_INT16"),
    ("int32", "INT32", "TYPE_INT32"),
    ("int64", "INT64", "TYPE_INT64"),
    ("float16", "FP16", "TYPE_FP16"),
    ("bfloat16", "BF16", "TYPE_BF16"),
    ("float32", "FP32", "TYPE_FP32"),
    ("float64", "FP64", "TYPE_FP64"),
    ("object", BYTES, "TYPE_STRING"),
)
_DATATYPES = {numpy_name: datatype for numpy_name, datatype, _ in _NAMES}

#: Every datatype that a request may name.
DATATYPES: frozenset[str] = frozenset(_DATATYPES.values())
#: Those that JSON does not carry: the protocol has no text for them.
ONLY_BINARY: frozenset[str] = frozenset({"FP16", "BF16"})
#: What Triton's model configuration calls them.
CONFIG_TYPES: dict[str, str] = {datatype: config_type for _, datatype, config_type in _NAMES}


@lru_cache(maxsize=64)  # NumPy makes a dtype's name anew each time, which is a quarter of a small request's cost
def datatype_of(dtype: np.dtype[Any]) -> str:
    """The name of a dtype in the protocol; texts and objects of Python are BYTES.

    >>> datatype_of(np.dtype("float32")), datatype_of(np.dtype("S3"))
    ('FP32', 'BYTES')
    """
    return BYTES if dtype.kind in "OSUT" else _DATATYPES.get(dtype.name, dtype.name.upper())


def protocol_shape(spec: TensorSpec) -> list[int]:
    """A shape in which -1 is a dynamic size."""
    return [size if isinstance(size, int) else -1 for size in spec.shape]
