"""Answers of the Open Inference Protocol, and what the server says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from tests.serving.protocol_bodies import PAIR, ROWS, one_input

from redline import __version__
from redline.core.errors import RequestError
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.protocol import (
    Encoded,
    InferRequest,
    Wanted,
    encode_infer,
    model_config,
    model_metadata,
    server_metadata,
)

DTYPES = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")


def encoded(
    *wanted: Wanted, names: Sequence[str] | None = None, request_id: str | None = None, **outputs: Array
) -> Encoded:
    request = InferRequest(id=request_id, inputs={}, outputs=wanted)
    return encode_infer("m", "2", request, outputs, names)


def in_json(array: Array, *, classes: int = 0, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The only output of an answer in JSON."""
    answer = encoded(Wanted(name="y", classes=classes), names=names, y=array)
    assert (answer.header_length, answer.content_type) == (None, "application/json")
    (output,) = orjson.loads(answer.body)["outputs"]
    return dict(output)


def test_an_answer_in_json_is_flat() -> None:
    array = np.array([[1.5, -2], [0.1, 3]], np.float32)
    answer = encoded(Wanted(name="y"), y=array, request_id="7")
    assert orjson.loads(answer.body) == {
        "model_name": "m",
        "model_version": "2",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1.5, -2, 0.1, 3]}],
    }
    assert "id" not in orjson.loads(encoded(Wanted(name="y"), y=array).body)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_survive_json(dtype: str) -> None:
    lowest, highest = (0, 1) if dtype in ("float32", "float64", "bool") else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    array = np.array([[lowest, highest, 1]], dtype)
    got = in_json(array)
    np.testing.assert_array_equal(np.array(got["data"], dtype).reshape(got["shape"]), array, strict=True)


def test_arrays_in_any_order_of_memory() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for seen in (array.T, array[:, ::2], np.asfortranarray(array)):
        assert in_json(seen)["data"] == seen.ravel().tolist()
        answer = encoded(Wanted(name="y", binary=True), y=seen)
        assert answer.body[answer.header_length :] == seen.tobytes()


def test_binary_outputs_lie_behind_the_json() -> None:
    scores, boxes = np.arange(5, dtype=np.float32)[None], np.ones((1, 2, 2))
    answer = encoded(Wanted(name="boxes", binary=True), Wanted(name="scores"), boxes=boxes, scores=scores)
    assert answer.content_type == "application/octet-stream"
    assert answer.header_length is not None
    header = orjson.loads(answer.body[: answer.header_length])
    assert header["outputs"] == [
        {"name": "boxes", "datatype": "FP64", "shape": [1, 2, 2], "parameters": {"binary_data_size": 32}},
        {"name": "scores", "datatype": "FP32", "shape": [1, 5], "data": [0, 1, 2, 3, 4]},
    ]
    assert answer.body[answer.header_length :] == boxes.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_json_has_no_words_for_is_to_be_asked_for_as_binary(bad: float) -> None:
    array = np.array([[1, bad]], np.float32)
    with pytest.raises(RequestError, match="output 'y' holds NaN or infinity, .* ask for binary data") as caught:
        in_json(array)
    assert caught.value.status == 400
    answer = encoded(Wanted(name="y", binary=True), y=array)
    np.testing.assert_array_equal(np.frombuffer(answer.body[answer.header_length :], np.float32), array[0])


def test_halves_and_bytes_that_are_no_text_are_binary_only() -> None:
    with pytest.raises(RequestError, match="output 'y' is FP16, .* ask for binary data"):
        in_json(np.ones((1, 2), np.float16))
    texts = np.array([[b"\xff"]], object)
    with pytest.raises(RequestError, match="output 'y' is no text"):
        in_json(texts)
    assert encoded(Wanted(name="y", binary=True), y=texts).body.endswith(b"\1\0\0\0\xff")


def test_texts() -> None:
    texts = np.array([["ä", b"bc"]], object)
    got = in_json(texts)
    assert (got["datatype"], got["shape"], got["data"]) == ("BYTES", [1, 2], ["ä", "bc"])
    answer = encoded(Wanted(name="y", binary=True), y=texts)
    assert answer.body[answer.header_length :] == b"\2\0\0\0\xc3\xa4\2\0\0\0bc"


def test_classes_are_the_highest_scores_with_their_names() -> None:
    scores = np.array([[0.1, 0.7, 0.2], [3, 2, 3]], np.float32)
    got = in_json(scores, classes=2, names=("cat", "dog"))
    assert (got["datatype"], got["shape"]) == ("BYTES", [2, 2])
    assert got["data"] == ["0.700000:1:dog", "0.200000:2", "3.000000:0:cat", "3.000000:2"]


def test_classes_are_at_most_as_many_as_there_are() -> None:
    got = in_json(np.array([[5, 7]]), classes=2**70)
    assert (got["shape"], got["data"]) == ([1, 2], ["7:1", "5:0"])


def test_classes_of_odd_outputs() -> None:
    assert in_json(np.array([1.0, 3.0, 2.0]), classes=1)["shape"] == [1]
    assert in_json(np.arange(8.0).reshape(2, 2, 2), classes=3)["shape"] == [2, 3]
    lowest = in_json(np.array([[np.nan, 1, np.inf]]), classes=3)["data"]
    assert lowest == ["inf:2", "1.000000:1", "nan:0"]
    with pytest.raises(RequestError, match="classification is for scores, got an output of BYTES"):
        in_json(np.array([["a"]], object), classes=1)


def test_what_a_model_says_about_itself() -> None:
    assert model_metadata("m", ["1", "3"], "onnx_onnxv1", PAIR) == {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "image", "datatype": "FP32", "shape": [-1, 2, 3]},
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 5]},
            {"name": "boxes", "datatype": "FP64", "shape": [-1, 2, 2]},
        ],
    }


def test_how_a_model_is_run() -> None:
    config = model_config("m", "onnx_onnxv1", ROWS, 16, True, 2)
    assert config["max_batch_size"] == 16
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP32", "dims": [3]}]
    assert config["instance_group"] == [{"name": "m", "count": 2}]
    assert (config["backend"], config["dynamic_batching"]) == ("onnxruntime", {})
    fixed = model_config("m", "redline", one_input("object", 3, 4), 16, False, 1)
    assert (fixed["max_batch_size"], fixed["backend"]) == (0, "redline")
    assert fixed["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [3, 4]}]
    assert "dynamic_batching" not in fixed


def test_a_dtype_that_the_protocol_has_no_name_for_is_still_described() -> None:
    signature = Signature((TensorSpec("x", (1,), "complex64"),), ())
    assert model_metadata("m", [], "redline", signature)["inputs"][0]["datatype"] == "COMPLEX64"


def test_what_the_server_says_about_itself() -> None:
    said = server_metadata()
    assert (said["name"], said["version"]) == ("redline", __version__)
    assert "binary_tensor_data" in said["extensions"]
