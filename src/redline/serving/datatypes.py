"""What the Open Inference Protocol calls NumPy's dtypes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from redline.core.tensor import TensorSpec

BYTES = "BYTES"

#: Their names in a request, by NumPy's.
_DATATYPES = {
    **{
        name: name.upper()
        for name in ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "object": BYTES,
}

#: Every datatype that a request may name.
DATATYPES: frozenset[str] = frozenset(_DATATYPES.values())
#: Those that JSON does not carry: the protocol has no text for them.
ONLY_BINARY: frozenset[str] = frozenset({"FP16", "BF16"})


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
