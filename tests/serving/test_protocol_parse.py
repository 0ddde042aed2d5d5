"""Requests of the Open Inference Protocol: what is right is read exactly, what is wrong is told in Triton's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from tests.serving.protocol_bodies import PAIR, ROWS, binary_request, one_input, parsed, request, rows, tensor, x_of

from redline.core.errors import RequestError
from redline.core.tensor import Signature, TensorSpec
from redline.serving.limits import Limits
from redline.serving.protocol import Wanted, parse_infer, parse_tensors

DOUBLES = one_input("float64", "batch", 4)
DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "bool")


def test_a_plain_request_asks_for_everything_as_json() -> None:
    got = parsed(request(x_of()))
    np.testing.assert_array_equal(got.inputs["x"], np.array([[1, 2, 3, 4]], np.float32), strict=True)
    assert (got.id, got.rows, got.deadline_s, got.binary_output) == (None, 1, None, False)
    assert got.outputs == (Wanted(name="y"),)


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6, 7, 8], [[1, 2, 3, 4], [5, 6, 7, 8]]])
def test_data_is_flat_or_nested(data: list[Any]) -> None:
    got = parsed(request(x_of(data, shape=[2, 4])))
    assert got.rows == 2
    assert got.inputs["x"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_several_inputs_in_any_order() -> None:
    image, ids = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.array([[1, 2], [3, 4]])
    got = parsed(request(tensor("ids", ids), tensor("image", image)), signature=PAIR)
    np.testing.assert_array_equal(got.inputs["image"], image, strict=True)
    np.testing.assert_array_equal(got.inputs["ids"], ids, strict=True)
    assert [one.name for one in got.outputs] == ["scores", "boxes"]


def test_what_is_not_known_is_ignored() -> None:
    body = request(
        x_of(extra=[[1], 2], parameters={"color": "red", "list": [[[]]]}),
        parameters={"priority": 3, "sequence_id": 0, "custom": {"a": [1]}},
        outputs=[{"name": "y", "parameters": {"unknown": 1}, "more": None}],
        whatever=[[[1]], {"a": []}],
    )
    assert parsed(body).inputs["x"].tolist() == [[1, 2, 3, 4]]


def test_members_that_are_null_are_not_there() -> None:
    got = parsed(request(x_of() | {"parameters": None}, id=None, parameters=None, outputs=None))
    assert got.outputs == (Wanted(name="y"),)


@pytest.mark.parametrize(("given", "wanted"), [([], False), (None, False), ([{"name": "y"}], False)])
def test_outputs_are_json_where_nothing_is_said(given: Any, wanted: bool) -> None:
    assert parsed(request(x_of(), outputs=given)).outputs == (Wanted(name="y", binary=wanted),)


@pytest.mark.parametrize("by_request", [None, False, True])
@pytest.mark.parametrize("by_output", [None, False, True])
def test_an_output_says_more_than_its_request(by_request: bool | None, by_output: bool | None) -> None:
    parameters = {} if by_request is None else {"binary_data_output": by_request}
    own = {} if by_output is None else {"binary_data": by_output}
    body = request(x_of(), parameters=parameters, outputs=[{"name": "y", "parameters": own}])
    wanted = by_output if by_output is not None else bool(by_request)
    assert parsed(body).outputs == (Wanted(name="y", binary=wanted),)
    assert parsed(request(x_of(), parameters=parameters)).outputs == (Wanted(name="y", binary=bool(by_request)),)


def test_identity_classes_and_patience() -> None:
    body = request(
        x_of(),
        id="request 1 – ü",
        parameters={"timeout": 250_000},
        outputs=[{"name": "y", "parameters": {"classification": 3, "binary_data": True}}],
    )
    got = parsed(body)
    assert (got.id, got.deadline_s) == ("request 1 – ü", 0.25)
    assert got.outputs == (Wanted(name="y", binary=True, classes=3),)
    assert parsed(request(x_of(), parameters={"timeout": 0})).deadline_s is None


#: What Triton 2.51 answers with 400, in its words.
IN_TRITONS_WORDS = [
    (request(x_of(name="z")), "unexpected inference input 'z' for model 'm'"),
    (request(x_of(datatype="INT32")), "inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'"),
    (request(x_of([1] * 5, shape=[1, 5])), "unexpected shape for input 'x' for model 'm'. Expected [-1,4], got [1,5]"),
    (request(x_of(shape=[4])), "unexpected shape for input 'x' for model 'm'. Expected [-1,4], got [4]"),
    (request(x_of(shape=[])), "unexpected shape for input 'x' for model 'm'. Expected [-1,4], got []"),
    (request(x_of([1] * 36, shape=[9, 4])), "inference request batch-size must be <= 8 for model 'm'"),
    (request(x_of([], shape=[0, 4])), "inference request batch-size must be >= 1 for model 'm'"),
    (request(x_of(), x_of()), "expected 1 inputs but got 2 inputs for model 'm'"),
    (request(), "expected 1 inputs but got 0 inputs for model 'm'. Missing required input(s) ['x']"),
    (request(x_of(), outputs=[{"name": "z"}]), "unexpected inference output 'z' for model 'm'"),
    (request(x_of(), outputs=[{"name": "y"}] * 2), "output 'y' already exists in request"),
]
#: What Triton 2.51 answers with 500 although it is the client's fault, or takes.
TRITON_SAYS_500 = [
    (b"{", "failed to parse the request JSON buffer: "),
    (b"", "failed to parse the request JSON buffer: "),
    (b"\xff", "failed to parse the request JSON buffer: "),
    (b"[]", "the request is no JSON object"),
    (b"null", "the request is no JSON object"),
    (b"{}", "the request has no 'inputs'"),
    (b'{"inputs":null}', "'inputs' is no JSON array"),
    (b'{"inputs":{}}', "'inputs' is no JSON array"),
    (b'{"inputs":[1]}', "input 0 is no JSON object"),
    (request(x_of(name=None)), "input 0 has no 'name'"),
    (request(x_of(name=3)), "input 0 has no 'name'"),
    (request(x_of(shape=None)), "input 'x' has no 'shape'"),
    (request(x_of(shape=4)), "the shape of input 'x' is no JSON array"),
    (request(x_of(shape="1,4")), "the shape of input 'x' is no JSON array"),
    (request(x_of(shape=[1] * 33)), "the shape of input 'x' has 33 elements, expected at most 32"),
    (request(x_of(shape=[-1, 4])), "the shape of input 'x' holds something else than whole numbers"),
    (request(x_of(shape=[1.0, 4])), "the shape of input 'x' holds something else than whole numbers"),
    (request(x_of(shape=[True, 4])), "the shape of input 'x' holds something else than whole numbers"),
    (request(x_of(shape=["1", 4])), "the shape of input 'x' holds something else than whole numbers"),
    (request(x_of(shape=[[1], 4])), "the shape of input 'x' holds something else than whole numbers"),
    (request(x_of(shape=[2**62, 4])), "inference request batch-size must be <= 8"),
    (request(x_of(shape=[2**64 - 1, 4])), "inference request batch-size must be <= 8"),
    (request(x_of(datatype=None)), "input 'x' has no 'datatype'"),
    (request(x_of(datatype=["FP32"])), "input 'x' has no 'datatype'"),
    (request(x_of(datatype="FLOAT")), "input 'x' has the unknown datatype 'FLOAT'"),
    (request(x_of(None)), "input 'x' has neither 'data' nor 'binary_data_size'"),
    (request(x_of(5)), "input 'x': 'data' is no JSON array"),
    (request(x_of([])), "input 'x': 'data' is empty"),
    (request(x_of([1, 2, 3])), "input 'x': 'data' has 3 elements, expected 4 for shape [1, 4]"),
    (request(x_of([1, 2, 3, 4, 5])), "input 'x': 'data' has 5 elements, expected 4 for shape [1, 4]"),
    (request(x_of([[1, 2], [3, 4]])), "input 'x': 'data' is nested otherwise than shape"),
    (request(x_of([1, [], [2, 3], 4])), "input 'x': 'data' is nested otherwise than shape"),
    (request(x_of([1, 2, 3, None])), "input 'x': 'data' holds something else than numbers"),
    (request(x_of([1, 2, 3, "4"])), "input 'x': 'data' holds something else than numbers"),
    (request(x_of([1, 2, 3, 1e39])), "input 'x': 'data' holds a number that float32 cannot hold"),
    (request(x_of()).replace(b"4]}", b"1e400]}"), "failed to parse the request JSON buffer: "),
    (request(x_of()).replace(b"4]}", b"NaN]}"), "failed to parse the request JSON buffer: "),
    (request(x_of(), id=7), "'id' is no printable text"),
    (request(x_of(), id=["a"]), "'id' is no printable text"),
    (request(x_of(), id="a" * 257), "'id' is no printable text of at most 256 characters"),
    (request(x_of(), id="a\r\nSet-Cookie: b"), "'id' is no printable text"),
    (request(x_of(), parameters=[]), "'parameters' of the request is no JSON object"),
    (request(x_of(), parameters={"timeout": -1}), "'timeout' is no whole number"),
    (request(x_of(), parameters={"timeout": False}), "'timeout' is no whole number"),
    (request(x_of(), parameters={"timeout": "9"}), "'timeout' is no whole number"),
    (request(x_of(), parameters={"binary_data_output": 1}), "'binary_data_output' is no boolean"),
    (request(x_of(), outputs={}), "'outputs' is no JSON array"),
    (request(x_of(), outputs=["y"]), "output 0 is no JSON object"),
    (request(x_of(), outputs=[{}]), "output 0 has no 'name'"),
    (request(x_of(), outputs=[{"name": "y"}] * 65), "'outputs' has 65 elements, expected at most 64"),
    (request(x_of(), outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]), "'binary_data' is no boolean"),
    (request(x_of(), outputs=[{"name": "y", "parameters": {"classification": -1}}]), "classification of output 'y'"),
    (request(x_of(), outputs=[{"name": "y", "parameters": {"classification": True}}]), "classification of output 'y'"),
    (request(x_of(), outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), "is in shared memory"),
    (request(x_of(None, parameters={"shared_memory_region": "r"})), "input 'x' is in shared memory"),
    (
        request(x_of(None, parameters={"binary_data_size": 16})),
        "input 'x' is binary, but the request has no Inference-",
    ),
    (b'{"inputs":[{"name":"x","name":"x"}]}', "input 0 has 'name' twice"),
    (b'{"inputs":[],"inputs":[]}', "the request has 'inputs' twice"),
    (b"[" * 100 + b"]" * 100, "the JSON is nested 100 deep, expected at most 32"),
    (request(x_of(parameters={"a": orjson.Fragment(b"[" * 31 + b"]" * 31)})), "the JSON is nested 35 deep"),
]


@pytest.mark.parametrize(("body", "told"), IN_TRITONS_WORDS + TRITON_SAYS_500, ids=lambda value: str(value)[-60:])
def test_what_a_client_does_wrong_is_told(body: bytes, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(body)
    assert caught.value.status == 400
    assert told in str(caught.value)


def test_the_same_input_twice() -> None:
    image = tensor("image", np.zeros((1, 2, 3), np.float32))
    with pytest.raises(RequestError, match="input 'image' already exists in request"):
        parsed(request(image, image), signature=PAIR)
    with pytest.raises(RequestError, match=r"expected 2 inputs but got 1 .* Missing required input\(s\) \['ids'\]"):
        parsed(request(image), signature=PAIR)


@pytest.mark.parametrize(
    ("image", "ids", "told"),
    [((2, 2, 3), (1, 2), r"input 'ids'.* Expected \[-1,-1\], got \[1,2\]"), ((1, 2, 3), (1, 0), r"got \[1,0\]")],
)
def test_sizes_of_one_name_are_one_size(image: tuple[int, ...], ids: tuple[int, ...], told: str) -> None:
    given = [tensor("image", np.zeros(image, np.float32)), tensor("ids", np.zeros(ids, np.int64))]
    with pytest.raises(RequestError, match=told):
        parsed(request(*given), signature=PAIR)


def test_products_of_sizes_are_looked_at_before_anything_is_allocated() -> None:
    signature = one_input("float64", "batch", "n", "m")
    with pytest.raises(RequestError, match="unexpected shape"):
        parsed(request(x_of([1], shape=[1, 2**62, 2**62], datatype="FP64")), signature=signature)
    with pytest.raises(RequestError, match="got 8 bytes, expected 8589934592"):
        parsed(*binary(b"\0" * 8, [1, 2**15, 2**15]), signature=signature)


def binary(data: bytes, shape: list[int], size: Any = None, datatype: str = "FP64") -> tuple[bytes, int]:
    described = {"name": "x", "shape": shape, "datatype": datatype}
    header = request(described | {"parameters": {"binary_data_size": len(data) if size is None else size}})
    return header + data, len(header)


@pytest.mark.parametrize("pad", range(8))
@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_tensors_come_out_aligned_wherever_they_lie(dtype: str, pad: int) -> None:
    array = (np.arange(8).reshape(2, 4) % 2).astype(dtype)
    body, length = binary_request(("x", array), id="a" * pad)
    got = parsed(body, length, one_input(dtype, "batch", 4)).inputs["x"]
    np.testing.assert_array_equal(got, array, strict=True)
    assert got.flags.aligned
    assert got.flags.c_contiguous


def test_binary_and_json_mix() -> None:
    image, ids = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([[7, 8]])
    described = tensor("image", image, parameters={"binary_data_size": image.nbytes})
    del described["data"]
    for inputs in ([described, tensor("ids", ids)], [tensor("ids", ids), described]):
        header = request(*inputs)
        got = parsed(header + image.tobytes(), len(header), PAIR)
        np.testing.assert_array_equal(got.inputs["image"], image, strict=True)
        np.testing.assert_array_equal(got.inputs["ids"], ids, strict=True)


def test_binary_tensors_lie_in_the_order_of_the_inputs() -> None:
    image, ids = np.arange(6, dtype=np.float32).reshape(1, 2, 3), np.array([[7, 8]])
    got = parsed(*binary_request(("ids", ids), ("image", image)), signature=PAIR)
    np.testing.assert_array_equal(got.inputs["ids"], ids)
    np.testing.assert_array_equal(got.inputs["image"], image)


GOOD = np.arange(4, dtype=np.float64).tobytes()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (binary(GOOD[:-1], [1, 4]), "input 'x': got 31 bytes, expected 32 for shape [1, 4] of float64"),
        (binary(GOOD, [2, 4]), "input 'x': got 32 bytes, expected 64"),
        (binary(GOOD + b"\0", [1, 4], 32), "unexpected additional input data for model 'm': 1 bytes follow"),
        (binary(GOOD[:-1], [1, 4], 32), "input 'x': got 31 bytes of binary data, expected 32"),
        (binary(GOOD, [1, 4], 2**63), "input 'x': got 32 bytes of binary data, expected 9223372036854775808"),
        (binary(GOOD, [1, 4], 0), "input 'x': got 0 bytes, expected 32"),
        (binary(GOOD, [1, 4], -1), "the binary_data_size of input 'x' is no whole number"),
        (binary(GOOD, [1, 4], 32.0), "the binary_data_size of input 'x' is no whole number"),
        (binary(GOOD, [1, 4], True), "the binary_data_size of input 'x' is no whole number"),
        (binary(GOOD, [1, 4], 32, "FP32"), "data-type is 'FP32', but model 'm' expects 'FP64'"),
        ((GOOD, 16), "failed to parse the request JSON buffer"),
        ((request(tensor("x", np.zeros((1, 4)))) + b"..", None), "failed to parse the request JSON buffer"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_bytes_that_do_not_add_up_are_told(body: tuple[bytes, int], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(*body, signature=DOUBLES)
    assert caught.value.status == 400
    assert told in str(caught.value)


def test_bytes_behind_json_alone_are_told() -> None:
    header = request(x_of())
    assert parsed(header, len(header)).rows == 1
    with pytest.raises(RequestError, match="unexpected additional input data for model 'm': 3 bytes"):
        parsed(header + b"abc", len(header))


def test_an_input_is_json_or_binary_and_not_both() -> None:
    header = request(x_of(parameters={"binary_data_size": 16}))
    with pytest.raises(RequestError, match="input 'x' has both 'data' and 'binary_data_size'"):
        parsed(header + bytes(16), len(header))


@pytest.mark.parametrize("dtype", ["float16"])
def test_halves_are_binary_only(dtype: str) -> None:
    with pytest.raises(RequestError, match="input 'x' is FP16, which the protocol's JSON cannot carry; use binary"):
        parsed(request(x_of(datatype="FP16")), signature=one_input(dtype, "batch", 4))


def test_a_binary_boolean_is_0_or_1() -> None:
    signature = one_input("bool", "batch", 2)
    assert parsed(*binary(b"\0\1", [1, 2], datatype="BOOL"), signature=signature).inputs["x"].tolist() == [
        [False, True]
    ]
    with pytest.raises(RequestError, match="a BOOL is neither 0 nor 1"):
        parsed(*binary(b"\0\2", [1, 2], datatype="BOOL"), signature=signature)


TEXTS = one_input("object", "batch", 2)


def test_texts_come_as_json_and_as_binary() -> None:
    wanted = [["ab", ""], ["ä", "\0"]]
    packed = b"\2\0\0\0ab" + b"\0\0\0\0" + b"\2\0\0\0\xc3\xa4" + b"\1\0\0\0\0"
    assert parsed(*binary(packed, [2, 2], datatype="BYTES"), signature=TEXTS).inputs["x"].tolist() == wanted
    in_json = request(x_of(wanted, shape=[2, 2], datatype="BYTES"))
    assert parsed(in_json, signature=TEXTS).inputs["x"].tolist() == wanted


@pytest.mark.parametrize(
    ("packed", "told"),
    [
        (b"\1\0\0\0", "got 4 bytes, which is too few for 2 elements"),
        (b"\1\0\0\0abcd", "got 1 elements of BYTES, expected 2"),
        (b"\4\0\0\0abcd\1\0", "got 1 elements of BYTES, expected 2"),
        (b"\4\0\0\0abcd\1\0\0\0", "an element of BYTES is 1 bytes long, of which 0 are there"),
        (b"\xff\xff\xff\xffabcd", "an element of BYTES is 4294967295 bytes long, of which 4 are there"),
        (b"\0\0\0\0\0\0\0\0x", "1 bytes follow the last of 2 elements"),
        (b"\1\0\0\0\xff\0\0\0\0", "is no UTF-8"),
    ],
)
def test_texts_whose_lengths_do_not_add_up_are_told(packed: bytes, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(*binary(packed, [1, 2], datatype="BYTES"), signature=TEXTS)
    assert told in str(caught.value)


def test_a_raw_request_is_the_only_input() -> None:
    got = parsed(rows(1).tobytes(), 0)
    np.testing.assert_array_equal(got.inputs["x"], rows(1), strict=True)
    assert (got.rows, got.binary_output, got.outputs) == (1, True, (Wanted(name="y", binary=True),))


def test_a_raw_request_finds_out_one_dynamic_size() -> None:
    sequence = one_input("float32", "batch", 2, "n")
    assert parsed(bytes(4 * 2 * 5), 0, sequence).inputs["x"].shape == (1, 2, 5)
    assert parsed(b"caf\xc3\xa9", 0, one_input("object", "batch", 1)).inputs["x"].tolist() == [["café"]]


@pytest.mark.parametrize(
    ("signature", "size", "told"),
    [
        (ROWS, 15, "got 15 bytes, expected 16"),
        (ROWS, 32, "got 32 bytes, expected 16"),
        (ROWS, 0, "got 0 bytes, expected 16"),
        (PAIR, 16, "a raw request is for a model with one input, but 2 are expected for model 'm'"),
        (one_input("float32", "batch", 2, "n"), 12, "got 12 bytes, expected 8"),
        (one_input("float32", "batch", 2, "n"), 0, "unexpected shape"),
        (one_input("float32", "batch", "n", "m"), 16, "has several dynamic sizes"),
    ],
)
def test_raw_requests_that_do_not_fit(signature: Signature, size: int, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(bytes(size), 0, signature)
    assert told in str(caught.value)


def test_nonfinite_inputs_are_refused_where_that_is_wanted() -> None:
    body = binary_request(("x", np.array([[1, 2, 3, np.nan]], np.float32)))
    assert np.isnan(parsed(*body).inputs["x"][0, 3])
    with pytest.raises(RequestError, match="input 'x' holds NaN or infinity, which this server refuses"):
        parsed(*body, reject_nonfinite=True)
    raw = np.array([np.inf, 0, 0, 0], np.float32).tobytes()
    with pytest.raises(RequestError, match="input 'x' holds NaN or infinity"):
        parsed(raw, 0, reject_nonfinite=True)


def test_models_without_a_dynamic_batch() -> None:
    fixed = one_input("float32", 3, 4)
    assert parsed(request(x_of([1] * 12, shape=[3, 4])), signature=fixed).rows == 3
    with pytest.raises(RequestError, match=r"Expected \[3,4\], got \[1,4\]"):
        parsed(request(x_of()), signature=fixed)
    scalar = Signature((TensorSpec("x", (), "float32"),), ROWS.outputs)
    got = parsed(request(x_of([2.5], shape=[])), signature=scalar)
    assert (got.inputs["x"].shape, float(got.inputs["x"]), got.rows) == ((), 2.5, 1)


def test_json_may_be_no_larger_than_a_body() -> None:
    body = request(x_of())
    assert parsed(body, body_bytes=len(body)).rows == 1
    with pytest.raises(RequestError, match=f"the JSON is too large, expected at most {len(body) - 1} bytes") as caught:
        parsed(body, body_bytes=len(body) - 1)
    assert caught.value.status == 413
    binary, length = binary_request(("x", rows(8)))
    assert parsed(binary, length, body_bytes=length).rows == 8


def test_long_words_of_a_client_are_cut() -> None:
    with pytest.raises(RequestError) as caught:
        parsed(request(x_of(name="n" * 10_000)))
    assert len(str(caught.value)) < 200
    with pytest.raises(RequestError, match=r"input 'a\\nb'"):
        parsed(request(x_of(name="a\nb")))


def test_a_model_needs_no_name_in_messages() -> None:
    with pytest.raises(RequestError, match=r"data-type is 'INT8', but the model expects 'FP32'$"):
        parse_infer(request(x_of(datatype="INT8")), None, ROWS, Limits())


@pytest.mark.parametrize(
    "body", ['{"inputs": [[1,2,3,4]]}', '{"inputs":{"x":[[1,2,3,4]]}}', '{"instances":[[1,2,3,4]]}']
)
def test_plain_nested_lists(body: str) -> None:
    got = parse_tensors(body.encode(), ROWS, Limits())
    np.testing.assert_array_equal(got.inputs["x"], np.array([[1, 2, 3, 4]], np.float32), strict=True)
    assert (got.rows, got.outputs) == (1, (Wanted(name="y"),))


def test_plain_lists_for_two_inputs_and_for_halves() -> None:
    body = orjson.dumps({"inputs": {"ids": [[1], [2]], "image": np.ones((2, 2, 3)).tolist()}})
    assert parse_tensors(body, PAIR, Limits()).rows == 2
    halves = parse_tensors(b'{"inputs": [[1, 2, 3, 4]]}', one_input("float16", "batch", 4), Limits())
    assert halves.inputs["x"].dtype == np.float16


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("[[1,2,3,4]]", "the request is no JSON object"),
        ("{}", r'expected {"inputs": {"name"'),
        ('{"inputs": [], "instances": []}', r'expected {"inputs": {"name"'),
        ('{"inputs": [1,2,3,4]}', r"Expected \[-1,4\], got \[4\]"),
        ('{"inputs": [[1,2],[3,4,5,6]]}', r"Expected \[-1,4\], got \[2,2\]"),
        ('{"inputs": [[1,2,3,4],[5,6]]}', "ragged"),
        ('{"inputs": [[1,2,3,[4]]]}', "nested otherwise"),
        ('{"inputs": [[1,2,3,null]]}', "something else than numbers"),
        ('{"inputs": []}', r"Expected \[-1,4\], got \[0\]"),
        ('{"inputs": [[]]}', r"Expected \[-1,4\], got \[1,0\]"),
        ('{"inputs": 5}', r"Expected \[-1,4\], got \[\]"),
        ('{"inputs": {"z": [[1,2,3,4]]}}', r"Missing required input\(s\) \['x'\]"),
        ('{"inputs": {"x": [[1,2,3,4]], "z": 1}}', "expected 1 inputs but got 2"),
        ('{"inputs": ' + "[" * 31 + "]" * 31 + "}", "unexpected shape"),
        ('{"inputs": ' + "[" * 32 + "]" * 32 + "}", "nested 33 deep"),
    ],
)
def test_plain_lists_that_do_not_fit(body: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        parse_tensors(body.encode(), ROWS, Limits())
