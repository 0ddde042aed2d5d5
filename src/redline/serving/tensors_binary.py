"""Tensors out of the bytes behind a request's JSON: little-endian, row by row, nothing between them."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.core.errors import RequestError
from redline.core.tensor import Array

_LENGTH = struct.Struct("<I")


def read_bytes(body: bytes, start: int, size: int, dtype: np.dtype[Any], shape: Sequence[int], what: str) -> Array:
    """A tensor that lies in ``body``: a read-only view of it where it lies aligned, else a copy.

    Raises:
        RequestError: another number of bytes than the shape has, or a BOOL that is neither 0 nor 1.
    """
    count = math.prod(shape)
    expected = count * dtype.itemsize
    if size != expected:
        raise RequestError(f"{what}: got {size} bytes, expected {expected} for shape {list(shape)} of {dtype}")
    if dtype.kind == "b":
        raw = np.frombuffer(body, np.uint8, count, start)
        if raw.max() > 1:
            raise RequestError(f"{what}: a BOOL is neither 0 nor 1")
        return raw.view(np.bool_).reshape(shape)
    array: Array = np.frombuffer(body, dtype, count, start)
    if sys.byteorder == "big":
        array = array.byteswap()
    elif not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def read_packed(body: bytes, start: int, size: int, shape: Sequence[int], what: str) -> Array:
    """A tensor of texts, each with its length before it: an array of Python's ``str``.

    Raises:
        RequestError: lengths that do not add up to ``size``, another number of elements, or no UTF-8.
    """
    count = math.prod(shape)
    if count * _LENGTH.size > size:
        raise RequestError(f"{what}: got {size} bytes, which is too few for {count} elements of BYTES")
    values: list[str] = []
    at, end = start, start + size
    for _ in range(count):
        if end - at < _LENGTH.size:
            raise RequestError(f"{what}: got {len(values)} elements of BYTES, expected {count}")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if length > end - at:
            raise RequestError(f"{what}: an element of BYTES is {length} bytes long, of which {end - at} are there")
        values.append(_text(body[at : at + length], what))
        at += length
    if at != end:
        raise RequestError(f"{what}: {end - at} bytes follow the last of {count} elements of BYTES")
    array = np.empty(count, object)
    array[:] = values
    return array.reshape(shape)


def raw_text(body: bytes, what: str) -> Array:
    """A raw request's only element of BYTES: all of the body."""
    array = np.empty(1, object)
    array[0] = _text(body, what)
    return array


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{what}: an element of BYTES is no UTF-8, which the model needs") from error
