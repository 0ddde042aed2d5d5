"""JSON of numbers into flat typed arrays: simdjson parses, and what is no number of the wanted kind is refused.

The text comes from strangers. Nothing here walks it in Python except what is small, and nothing of it outlives
:func:`read_json` but copies: simdjson's own objects look into the parser's memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
import simdjson

from redline.core.errors import RequestError
from redline.core.tensor import Array

if TYPE_CHECKING:
    from simdjson import SimValue

T = TypeVar("T")

MOST_MEMBERS = 256
MOST_DIMS = 32
# A document takes up to about 14 times its text in memory, for which nobody has been asked yet: one at a time.
_LARGE_BYTES = 4 << 20
_one_large = threading.Lock()

_QUOTED = 64
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"\\'))
_STEPS = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1
_WIDE = {"d": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.uint64)}


class Document:
    """Parsed JSON.

    Attributes:
        root: Its outermost value: simdjson's Object or Array, or a plain value.
        arrays: How many arrays it has, at most; square brackets within texts may count.
    """

    def __init__(self, text: bytes, depth: int) -> None:
        try:
            # A parser of its own costs half a microsecond; one that is kept would keep its largest document's memory.
            self.root: Any = simdjson.Parser().parse(text)
        except (ValueError, RuntimeError) as error:
            raise RequestError(f"failed to parse the request JSON buffer: {_reason(error)}") from error
        brackets = text.translate(None, _NO_STRUCTURE)
        self.arrays = brackets.count(b"[")
        if self.arrays + brackets.count(b"{") > depth:
            self.arrays = _check_depth(text, brackets, depth)


def read_json(text: bytes, read: Callable[[Document], T], *, depth: int) -> T:
    """What ``read`` makes of a JSON text; it must return copies and keep nothing of the document.

    Raises:
        RequestError: the text is no JSON, or is nested deeper than ``depth``.
    """
    if len(text) < _LARGE_BYTES:
        return read(Document(text, depth))
    with _one_large:
        return read(Document(text, depth))


def members(value: object, wanted: frozenset[str], what: str) -> dict[str, SimValue]:
    """The members of a JSON object that are wanted; others are skipped.

    Raises:
        RequestError: it is no object, has too many members, or one of the wanted twice.
    """
    if not isinstance(value, simdjson.Object):
        raise RequestError(f"{what} is no JSON object")
    if len(value) > MOST_MEMBERS:
        raise RequestError(f"{what} has {len(value)} members, expected at most {MOST_MEMBERS}")
    found: dict[str, SimValue] = {}
    for key in value:
        if key in wanted:
            if key in found:
                raise RequestError(f"{what} has {key!r} twice")
            found[key] = value[key]
    return found


def elements(value: object, most: int, what: str) -> list[Any]:
    """The elements of a short JSON array.

    Raises:
        RequestError: it is no array, or a longer one than ``most``.
    """
    if not isinstance(value, simdjson.Array):
        raise RequestError(f"{what} is no JSON array")
    if len(value) > most:
        raise RequestError(f"{what} has {len(value)} elements, expected at most {most}")
    return list(value)


def is_array(value: object) -> TypeGuard[simdjson.Array]:
    """Whether it is a JSON array."""
    return isinstance(value, simdjson.Array)


def is_object(value: object) -> TypeGuard[simdjson.Object]:
    """Whether it is a JSON object."""
    return isinstance(value, simdjson.Object)


def quote(text: str) -> str:
    """A client's own word within a message: cut, and with nothing in it that a log would act on.

    >>> quote("x"), quote("a" * 100)[-5:]
    ("'x'", "aaa…'")
    """
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def count_arrays(data: Any, shape: Sequence[int], what: str) -> int:
    """How many JSON arrays a tensor's data consists of: one where it is flat, else as many as its shape has rows.

    The lengths of nested arrays are checked, their numbers are not looked at.

    Raises:
        RequestError: no array, or lengths that are not the shape's.
    """
    if not isinstance(data, simdjson.Array):
        raise RequestError(f"{what}: 'data' is no JSON array")
    if len(data) == 0:
        raise RequestError(f"{what}: 'data' is empty, expected shape {list(shape)}")
    if len(shape) < 2 or not isinstance(data[0], simdjson.Array):
        return 1
    return _count_rows(data, shape, what)


def read_numbers(data: Any, shape: Sequence[int], dtype: np.dtype[Any], what: str) -> Array:
    """A tensor of numbers from its data, which :func:`count_arrays` has seen; fresh, contiguous and writable.

    Arrays that are hidden where a number belongs are not noticed here: :func:`refuse_hidden` looks for them.

    Raises:
        RequestError: another number of elements, an element that is no number or does not fit into the dtype.
    """
    of_type = "d" if dtype.kind == "f" else "u" if dtype == np.uint64 else "i"
    try:
        flat: Array = np.frombuffer(data.as_buffer(of_type=of_type), _WIDE[of_type])
    except (TypeError, ValueError, RuntimeError) as error:
        wanted = "numbers" if of_type == "d" else "whole numbers"
        raise RequestError(f"{what}: 'data' holds something else than {wanted} of {dtype}") from error
    _check_size(flat.size, shape, what)
    return _narrowed(flat, dtype, what).reshape(shape)


def read_bools(data: Any, shape: Sequence[int], what: str) -> Array:
    """A tensor of true and false; 0 and 1 are refused.

    Raises:
        RequestError: another number of elements, or something else than true and false.
    """
    values = _leaves(data, shape, bool, f"{what}: 'data' holds something else than true and false", what)
    return np.array(values, np.bool_).reshape(shape)


def read_texts(data: Any, shape: Sequence[int], what: str) -> Array:
    """A tensor of texts: an array of Python's ``str``.

    Raises:
        RequestError: another number of elements, or something else than texts.
    """
    values = _leaves(data, shape, str, f"{what}: 'data' holds something else than texts", what)
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def refuse_hidden(data: Any, shape: Sequence[int], what: str) -> None:
    """Look at every element for an array where a number belongs: 8 ms for 150,000 of them.

    Raises:
        RequestError: there is one, so that the data is ragged.
    """
    for row in _rows(data, len(shape)):
        if any(isinstance(value, simdjson.Array) for value in row):
            raise RequestError(f"{what}: 'data' is nested otherwise than shape {list(shape)}")


def nested_shape(data: Any, what: str) -> tuple[int, ...]:
    """The shape that nested arrays have if they are not ragged, read along the first of each.

    Raises:
        RequestError: deeper than an array can be.
    """
    sizes: list[int] = []
    while isinstance(data, simdjson.Array):
        sizes.append(len(data))
        if len(sizes) > MOST_DIMS:
            raise RequestError(f"{what} is nested {len(sizes)} deep, expected at most {MOST_DIMS}")
        if not sizes[-1]:
            break
        data = data[0]
    return tuple(sizes)


def _check_depth(text: bytes, brackets: bytes, depth: int) -> int:
    """Refuse what is nested too deep; how many arrays there are. The text is valid JSON."""
    if b"\\" in brackets:
        brackets = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_STRUCTURE)
    marks = np.frombuffer(brackets, np.uint8)
    inside = np.bitwise_xor.accumulate((marks == ord('"')).view(np.uint8)).view(np.bool_)
    steps = _STEPS[marks]
    steps[inside] = 0
    # simdjson has let at most 1024 through, so that 16 bits are enough.
    deepest = int(np.cumsum(steps, dtype=np.int16).max())
    if deepest > depth:
        raise RequestError(f"the JSON is nested {deepest} deep, expected at most {depth}")
    return int(np.count_nonzero((marks == ord("[")) & ~inside))


def _reason(error: Exception) -> str:
    """What the parser says, less the name of its constant."""
    text = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    return text.partition(": ")[2] or text


def _count_rows(data: Any, shape: Sequence[int], what: str) -> int:
    wanted, inner = shape[0], shape[1:]
    if len(data) != wanted:
        raise RequestError(f"{what}: 'data' is nested otherwise than shape: got {len(data)} rows, expected {wanted}")
    if len(inner) > 1:
        return 1 + sum(_count_rows(_row(row, what), inner, what) for row in data)
    length = inner[0]
    for row in data:
        if not isinstance(row, simdjson.Array) or len(row) != length:
            got = len(row) if isinstance(row, simdjson.Array) else "no array"
            raise RequestError(f"{what}: 'data' is ragged: got {got} where {length} elements belong")
    return 1 + wanted


def _row(row: Any, what: str) -> Any:
    if not isinstance(row, simdjson.Array):
        raise RequestError(f"{what}: 'data' is ragged: got no array where rows belong")
    return row


def _check_size(got: int, shape: Sequence[int], what: str) -> None:
    expected = 1
    for size in shape:
        expected *= size
    if got != expected:
        raise RequestError(f"{what}: 'data' has {got} elements, expected {expected} for shape {list(shape)}")


def _narrowed(flat: Array, dtype: np.dtype[Any], what: str) -> Array:
    if flat.dtype == dtype:
        return flat
    if dtype.kind == "f":
        try:
            with np.errstate(over="raise"):
                return flat.astype(dtype)
        except FloatingPointError as error:
            raise RequestError(f"{what}: 'data' holds a number that {dtype} cannot hold") from error
    held = np.iinfo(dtype)
    if flat.size and (int(flat.min()) < held.min or int(flat.max()) > held.max):
        raise RequestError(f"{what}: 'data' holds a number that {dtype} cannot hold, from {held.min} to {held.max}")
    return flat.astype(dtype)


def _rows(data: Any, dims: int) -> Iterator[Any]:
    """The innermost arrays of nested data, or the data itself where it is flat."""
    if dims < 2 or not isinstance(data[0], simdjson.Array):
        yield data
        return
    for row in data:
        yield from _rows(row, dims - 1)


def _leaves(data: Any, shape: Sequence[int], kind: type, complaint: str, what: str) -> list[Any]:
    values: list[Any] = []
    for row in _rows(data, len(shape)):
        values += row
    _check_size(len(values), shape, what)
    if not all(type(value) is kind for value in values):
        raise RequestError(complaint)
    return values
