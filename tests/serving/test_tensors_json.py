"""Numbers of JSON become arrays as they are, or are refused: nothing is turned into something else in silence."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.core.errors import RequestError
from redline.core.tensor import Array
from redline.serving import tensors_json
from redline.serving.tensors_json import Document, read_json


def read(text: bytes | str, shape: Sequence[int], dtype: str = "float32") -> Array:
    """One tensor from the text of its data."""

    def inner(document: Document) -> Array:
        data = document.root
        seen = tensors_json.count_arrays(data, shape, "x")
        if dtype == "bool":
            return tensors_json.read_bools(data, shape, "x")
        if dtype == "object":
            return tensors_json.read_texts(data, shape, "x")
        array = tensors_json.read_numbers(data, shape, np.dtype(dtype), "x")
        if document.arrays > seen:
            tensors_json.refuse_hidden(data, shape, "x")
        return array

    return read_json(text.encode() if isinstance(text, str) else text, inner, depth=32)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "int8", "uint8", "int32", "uint32", "int64", "uint64"]
)
@pytest.mark.parametrize("flat", [True, False])
def test_numbers_come_out_as_they_went_in(dtype: str, flat: bool) -> None:
    wanted = np.arange(24).reshape(2, 3, 4).astype(dtype)
    got = read(orjson.dumps((wanted.ravel() if flat else wanted).tolist()), (2, 3, 4), dtype)
    np.testing.assert_array_equal(got, wanted, strict=True)
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert got.flags.writeable


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("uint64", "[18446744073709551615]"),
        ("int64", "[-9223372036854775808]"),
        ("int8", "[-128]"),
        ("uint8", "[255]"),
        ("float32", "[3.4028235e38]"),
        ("float32", "[-0.0]"),
        ("float64", "[1.7976931348623157e308]"),
        ("float32", "[1e-60]"),
    ],
)
def test_the_ends_of_each_range_are_held(dtype: str, text: str) -> None:
    got = read(text, (1,), dtype)
    assert got.dtype == dtype
    assert got[0] == np.dtype(dtype).type(orjson.loads(text)[0])


@pytest.mark.parametrize(
    ("dtype", "element"),
    [
        ("float32", "null"),
        ("float32", "true"),
        ("float32", '"1"'),
        ("float32", "{}"),
        ("float32", "1e39"),
        ("float32", "-1e39"),
        ("float16", "65520"),
        ("int64", "1.5"),
        ("int64", "1.0"),
        ("int64", "9223372036854775808"),
        ("int8", "128"),
        ("int8", "-129"),
        ("uint8", "-1"),
        ("uint8", "256"),
        ("uint64", "-1"),
        ("int32", "true"),
        ("bool", "1"),
        ("bool", "0"),
        ("bool", "null"),
        ("bool", '"true"'),
        ("object", "1"),
        ("object", "null"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_converted(dtype: str, element: str) -> None:
    good = {"bool": "true", "object": '"a"'}.get(dtype, "1")
    for text in (f"[{good},{element}]", f"[{element},{good}]", f"[[{good}],[{element}]]"):
        shape = (2, 1) if text.startswith("[[") else (2,)
        with pytest.raises(RequestError, match=r"^x: 'data'") as caught:
            read(text, shape, dtype)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "[NaN]",
        "[Infinity]",
        "[-Infinity]",
        "[1e400]",
        "[01]",
        "[1,]",
        "[1",
        "",
        " ",
        "[1] 2",
        '["\\ud800"]',
        "[18446744073709551616]",
    ],
)
def test_what_is_no_json_is_told_so(text: str) -> None:
    with pytest.raises(RequestError, match="failed to parse the request JSON buffer: [A-Za-z]"):
        read(text, (1,))


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("[[1,2],[3]]", (2, 2)),
        ("[[1,2],[3,4,5]]", (2, 2)),
        ("[[1,2,3],[4]]", (2, 2)),
        ("[1,2,[3,4]]", (2, 2)),
        ("[[1,2],3,4]", (2, 2)),
        ("[[1,2],[3,[4]]]", (2, 2)),
        ("[[[1,2],[]],[[3,4],[]]]", (2, 2)),
        ("[[[1,2],[3,4]]]", (2, 2)),
        ("[[1,2,3,4]]", (4,)),
        ("[[],[1,2,3,4]]", (4,)),
        ("[[1],2,[],[3,4]]", (4,)),
        ("[[1,2],[3,4]]", (4,)),
        ("[1,[2],3,4]", (2, 2)),
        ("[[1,2],[3,4]]", (2, 2, 1)),
        ("[[[1],[2]],[[3],4]]", (2, 2, 1)),
        ("[]", (1,)),
        ("[[]]", (1, 1)),
        ("[1,2,3]", (4,)),
        ("[1,2,3,4,5]", (4,)),
        ("5", (1,)),
        ('{"a":1}', (1,)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "object"])
def test_nesting_that_is_not_the_shape_is_refused(text: str, shape: tuple[int, ...], dtype: str) -> None:
    if dtype == "bool":
        text = text.translate(str.maketrans("12345", "ttttt")).replace("t", "true")
    elif dtype == "object":
        text = "".join(f'"{letter}"' if letter.isdigit() else letter for letter in text)
    with pytest.raises(RequestError):
        read(text, shape, dtype)


@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=12))
def test_nested_lists_are_taken_exactly_where_numpy_finds_that_shape(value: Any) -> None:
    try:
        wanted = np.array(value, np.int64)
    except ValueError:  # ragged
        wanted = None
    for shape in ((1,), (2,), (4,), (2, 2), (1, 2), (3, 1), (2, 2, 2), (1, 1, 2)):
        flat_fits = wanted is not None and wanted.ndim == 1 and wanted.size == int(np.prod(shape))
        fits = wanted is not None and (wanted.shape == shape or flat_fits)
        try:
            got = read(orjson.dumps(value), shape, "int64")
        except RequestError:
            assert not fits
        else:
            assert fits
            np.testing.assert_array_equal(got, wanted.reshape(shape))


def test_texts_and_booleans_come_out_as_they_went_in() -> None:
    assert read('[["ä","\\u0000"],["","[[["]]', (2, 2), "object").tolist() == [["ä", "\0"], ["", "[[["]]
    assert read("[[true,false]]", (1, 2), "bool").tolist() == [[True, False]]
    assert read("[true,false]", (1, 2), "bool").dtype == np.bool_


@pytest.mark.parametrize(
    "text",
    [
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        '{"a":[' * 17 + "]}" * 17,
        '["]]]]]]]]]]]]]]]","\\"",' + "[" * 32 + "]" * 32 + "]",
        '["\\\\",' + "[" * 32 + "]" * 32 + ',"\\\\\\"]]"]',
        "[" * 1000 + "]" * 1000,
        "[" * 2000 + "]" * 2000,
    ],
)
def test_json_that_is_too_deep_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="too deep|nested .* deep, expected at most 32"):
        read_json(text.encode(), lambda _: None, depth=32)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 32 + "]" * 32,
        "[" + "[1]," * 100 + "[2]]",
        '["' + "[" * 100 + '","' + "{" * 100 + '"]',
        '["\\"' + "[" * 100 + '","\\\\","\\\\\\"' + "[" * 50 + '"]',
        '{"' + "[" * 100 + '":1}',
    ],
)
def test_json_that_is_not_is_not(text: str) -> None:
    orjson.loads(text)
    read_json(text.encode(), lambda _: None, depth=32)


def test_brackets_in_texts_are_no_arrays_where_it_matters() -> None:
    text = orjson.dumps(["[" * 40, [1, 2], '\\["'])
    assert read_json(text, lambda document: document.arrays, depth=32) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "thing is no JSON object"),
        ("1", "thing is no JSON object"),
        ('{"a":1,"b":2,"a":3}', "thing has 'a' twice"),
        ("{" + ",".join(f'"{n}":0' for n in range(257)) + "}", "thing has 257 members"),
    ],
)
def test_objects_that_are_none(text: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        read_json(
            text.encode(), lambda document: tensors_json.members(document.root, frozenset("a"), "thing"), depth=32
        )


def test_many_threads_read_at_once_and_get_their_own() -> None:
    texts = [orjson.dumps([[n] * 300] * 20) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for n, got in enumerate(pool.map(lambda text: read(text, (20, 300)), texts * 20)):
            assert (got == n % 8).all()


def test_large_texts_are_read_as_well() -> None:
    count = 1_200_000
    got = read(b"[" + b"1.5," * (count - 1) + b"2]", (count,))
    assert (got[0], got[-1], got.size) == (1.5, 2.0, count)
