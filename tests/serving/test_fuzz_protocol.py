"""Whatever bytes arrive, they are a request that fits the model, or the client is told what is wrong with them.

``REDLINE_FUZZ_EXAMPLES=100000`` makes it that many, and then the memory of the process must stay where it is as well.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tests.serving.protocol_bodies import PAIR, ROWS, one_input, rows, tensor, x_of

from redline.core.errors import RequestError
from redline.core.tensor import Array, Signature
from redline.serving.limits import Limits
from redline.serving.protocol import InferRequest, encode_infer, header_length_of, inflate, parse_infer, parse_tensors

EXAMPLES = int(os.environ.get("REDLINE_FUZZ_EXAMPLES", "0"))
LIMITS = Limits(batch_rows=8, outputs=4, id_length=16, body_bytes=1 << 16, inflated_bytes=1 << 16)
# Hypothesis remembers what it has tried, so that many examples are tried in batches: none but ours may grow.
_BATCH = 1000
_USUAL = 250
_MOST_GROWTH = 0.05

TEXTS = one_input("object", "batch", 2)
FLAGS = one_input("bool", "batch", 2)
IMAGE, IDS = np.ones((2, 2, 3), np.float32), np.array([[1], [2]])
SIGNATURES = (ROWS, PAIR, TEXTS, FLAGS, one_input("uint8", "batch", 2), one_input("float16", 2, "n"))


def in_binary(described: dict[str, Any], size: int) -> dict[str, Any]:
    """An input whose data lies behind the JSON."""
    return {key: value for key, value in described.items() if key != "data"} | {
        "parameters": {"binary_data_size": size}
    }


def texts_of(*values: bytes) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


OUTPUTS = [{"name": "y", "parameters": {"binary_data": True, "classification": 2}}]
PACKED = texts_of(b"ab", "ü".encode())
#: Requests that are right: a signature, the JSON, the bytes behind it.
RIGHT: list[tuple[Signature, dict[str, Any], bytes]] = [
    (ROWS, {"inputs": [tensor("x", rows(2))], "id": "7", "parameters": {"timeout": 5}, "outputs": OUTPUTS}, b""),
    (ROWS, {"inputs": [x_of([[1, 2, 3, 4]])], "outputs": [], "parameters": {"binary_data_output": True}}, b""),
    (ROWS, {"inputs": [in_binary(x_of(), 16)]}, bytes(16)),
    (PAIR, {"inputs": [tensor("image", IMAGE), tensor("ids", IDS)], "outputs": [{"name": "boxes"}]}, b""),
    (PAIR, {"inputs": [in_binary(tensor("ids", IDS), 16), tensor("image", IMAGE)]}, IDS.tobytes()),
    (TEXTS, {"inputs": [x_of(["a", "b"], shape=[1, 2], datatype="BYTES")]}, b""),
    (TEXTS, {"inputs": [in_binary(x_of(shape=[1, 2], datatype="BYTES"), len(PACKED))]}, PACKED),
    (FLAGS, {"inputs": [x_of([True, False], shape=[1, 2], datatype="BOOL")]}, b""),
    (FLAGS, {"inputs": [in_binary(x_of(shape=[1, 2], datatype="BOOL"), 2)]}, b"\0\1"),
    (ROWS, {"inputs": [[1, 2, 3, 4]]}, b""),
    (PAIR, {"inputs": {"image": IMAGE.tolist(), "ids": IDS.tolist()}}, b""),
]

NUMBERS = (-1, 0, 1, 2**31, 2**32, 2**53 + 1, 2**62, 2**63, 2**64 - 1, 2**64, 10**400, 1.5, -0.0, 1e39)
NASTY = st.sampled_from((*NUMBERS, float("nan"), float("inf")))
WORDS = st.sampled_from(
    ("x", "y", "image", "ids", "FP32", "BYTES", "INT64", "FP16", "\0", "[[", '"', "\\", "\ud800", "a" * 300)
)
JUNK = st.binary(max_size=4) | st.sampled_from((b"[" * 40, b'"', b",", b"}", b"\\"))
VALUES = st.recursive(
    st.none() | st.booleans() | NASTY | WORDS | st.integers(-3, 300) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container within a JSON value with each of its keys."""
    if not isinstance(value, (dict, list)):
        return []
    found: list[tuple[Any, Any]] = []
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        found.append((value, key))
        found += places(value[key])
    return found


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[Signature, bytes, int | None]:
    """A right request after a few changes to its JSON, to its bytes and to where they part."""
    signature, right, tail = draw(st.sampled_from(RIGHT))
    document = copy.deepcopy(right)
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 3)))):
        if found := places(document):
            change(draw, *draw(st.sampled_from(found)))
    header = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", errors="surrogatepass")
    body = header + tail
    for _ in range(draw(st.sampled_from((0, 0, 0, 0, 1, 2)))):
        body = changed_bytes(draw, body)
    exact = len(header) if tail else None
    if draw(st.sampled_from((False, False, False, True))):
        return draw(st.sampled_from(SIGNATURES)), body, draw(st.none() | st.just(0) | st.integers(0, len(body)))
    return signature, body, exact


def change(draw: st.DrawFn, container: Any, key: Any) -> None:
    kind = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "wrap", "deepen")))
    if kind == "replace":
        container[key] = draw(VALUES)
    elif kind == "remove":
        del container[key]
    elif kind == "repeat" and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == "wrap":
        container[key] = [container[key]]
    else:
        for _ in range(draw(st.sampled_from((3, 30, 40)))):
            container[key] = [container[key]]


def changed_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    at = draw(st.integers(0, len(body)))
    until = draw(st.sampled_from((at, at + 1, at + 4, len(body))))
    return body[:at] + draw(JUNK) + body[until:]


ANYTHING = st.tuples(st.sampled_from(SIGNATURES), st.binary(max_size=80), st.none() | st.integers(0, 8))


def of_the_clients(error: RequestError) -> None:
    """What may come out: a status of the client's, and no more text than belongs into an answer."""
    assert 400 <= error.status < 500
    assert 0 < len(str(error)) < 2000
    assert "/src/" not in str(error)
    assert "Traceback" not in str(error)


def fits(request: InferRequest, signature: Signature) -> None:
    """What a runtime takes for granted."""
    signature.check(request.inputs)
    for array in request.inputs.values():
        assert array.size
        assert array.flags.c_contiguous
        assert array.flags.aligned
    assert 1 <= request.rows <= LIMITS.batch_rows
    assert {one.name for one in request.outputs} <= {spec.name for spec in signature.outputs}
    assert request.deadline_s is None or request.deadline_s > 0


def one_request(case: tuple[Signature, bytes, int | None]) -> None:
    signature, body, length = case
    try:
        length = header_length_of(None if length is None else str(length), len(body))
        request = parse_infer(body, length, signature, LIMITS, model="m")
    except RequestError as error:
        of_the_clients(error)
        return
    fits(request, signature)
    answer = encode_infer("m", "1", request, outputs_of(signature), ("cat",))
    json.loads(answer.body[: answer.header_length])


def one_of_plain_lists(case: tuple[Signature, bytes, int | None]) -> None:
    signature, body, _ = case
    try:
        request = parse_tensors(body, signature, LIMITS)
    except RequestError as error:
        of_the_clients(error)
    else:
        fits(request, signature)


def one_body(case: tuple[bytes, str | None, str | None]) -> None:
    body, encoding, length = case
    try:
        plain = inflate(body, encoding, LIMITS)
        wanted = header_length_of(length, len(plain))
    except RequestError as error:
        of_the_clients(error)
    else:
        assert len(plain) <= LIMITS.inflated_bytes
        assert wanted is None or 0 <= wanted <= len(plain)


def outputs_of(signature: Signature) -> dict[str, Array]:
    """What a model might have answered."""
    return {spec.name: np.ones(spec.with_batch(2), spec.dtype) for spec in signature.outputs}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, str | None, str | None]:
    body = draw(st.binary(max_size=64) | st.sampled_from((bytes(1 << 17), b"a" * 100)))
    packed = draw(st.sampled_from((body, zlib.compress(body), zlib.compress(body, wbits=31))))
    for _ in range(draw(st.integers(0, 2))):
        packed = changed_bytes(draw, packed)
    encoding = draw(st.none() | st.sampled_from(("gzip", "deflate", "identity", "br", "")) | st.text(max_size=8))
    return packed, encoding, draw(st.none() | st.text(max_size=6) | st.integers(-5, 1 << 20).map(str))


@pytest.mark.parametrize(
    ("cases", "check"),
    [
        pytest.param(nearly_right(), one_request, id="nearly right"),
        pytest.param(ANYTHING, one_request, id="any bytes"),
        pytest.param(nearly_right(), one_of_plain_lists, id="plain lists"),
        pytest.param(bodies(), one_body, id="compressed"),
    ],
)
def test_only_the_client_is_at_fault(cases: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    memory: list[int] = []
    for batch in range(max(1, EXAMPLES // 4 // _BATCH)):
        tried = settings(
            max_examples=_BATCH if EXAMPLES else _USUAL,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(seed(batch)(given(cases)(check)))
        tried()
        if EXAMPLES:
            gc.collect()
            memory.append(psutil.Process().memory_info().rss)
    if len(memory) > 5:
        assert memory[-1] <= memory[len(memory) // 5] * (1 + _MOST_GROWTH), memory


def test_the_requests_that_are_changed_are_right_to_begin_with() -> None:
    for signature, document, tail in RIGHT:
        header = json.dumps(document).encode()
        if isinstance(document["inputs"], dict) or isinstance(document["inputs"][0], list):
            fits(parse_tensors(header, signature, LIMITS), signature)
        else:
            fits(parse_infer(header + tail, len(header) if tail else None, signature, LIMITS), signature)
