"""Requests as NVIDIA's own client writes them are read, and it reads the answers."""

from __future__ import annotations

import numpy as np
import pytest
from tests.serving.protocol_bodies import PAIR, parsed

from redline.core.tensor import Array
from redline.serving.protocol import InferRequest, encode_infer

http = pytest.importorskip("tritonclient.http")

IMAGE = np.random.default_rng(0).standard_normal((2, 2, 3)).astype(np.float32)
IDS = np.array([[1, -2, 3], [4, 5, 2**62]])
OUTPUTS = {
    "scores": np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32),
    "boxes": np.random.default_rng(2).standard_normal((2, 2, 2)),
}


def asked(outputs: list[object] | None, *, image_binary: bool, ids_binary: bool, **more: object) -> InferRequest:
    image = http.InferInput("image", [2, 2, 3], "FP32").set_data_from_numpy(IMAGE, binary_data=image_binary)
    ids = http.InferInput("ids", [2, 3], "INT64").set_data_from_numpy(IDS, binary_data=ids_binary)
    body, length = http.InferenceServerClient.generate_request_body([image, ids], outputs=outputs, **more)
    return parsed(body, length, PAIR)


def answered(request: InferRequest, name: str) -> Array:
    answer = encode_infer("m", "1", request, OUTPUTS, ("a", "b"))
    result = http.InferResult.from_response_body(answer.body, header_length=answer.header_length)
    return np.asarray(result.as_numpy(name))


@pytest.mark.parametrize("image_binary", [False, True])
@pytest.mark.parametrize("ids_binary", [False, True])
@pytest.mark.parametrize("scores_binary", [False, True])
@pytest.mark.parametrize("boxes_binary", [False, True])
def test_json_and_binary_in_every_mix(
    image_binary: bool, ids_binary: bool, scores_binary: bool, boxes_binary: bool
) -> None:
    outputs = [
        http.InferRequestedOutput("boxes", binary_data=boxes_binary),
        http.InferRequestedOutput("scores", binary_data=scores_binary),
    ]
    request = asked(outputs, image_binary=image_binary, ids_binary=ids_binary)
    np.testing.assert_array_equal(request.inputs["image"], IMAGE, strict=True)
    np.testing.assert_array_equal(request.inputs["ids"], IDS, strict=True)
    for name, array in OUTPUTS.items():
        np.testing.assert_array_equal(answered(request, name), array, strict=True)


def test_without_outputs_it_asks_for_all_as_binary() -> None:
    request = asked(None, image_binary=True, ids_binary=True, request_id="7", timeout=1_000_000, priority=2)
    assert (request.id, request.deadline_s, request.binary_output) == ("7", 1.0, True)
    assert [one.binary for one in request.outputs] == [True, True]
    np.testing.assert_array_equal(answered(request, "boxes"), OUTPUTS["boxes"], strict=True)


@pytest.mark.parametrize("binary", [False, True])
def test_class_count(binary: bool) -> None:
    outputs = [http.InferRequestedOutput("scores", binary_data=binary, class_count=2)]
    got = answered(asked(outputs, image_binary=True, ids_binary=True), "scores")
    assert got.shape == (2, 2)
    top = got[0, 0].decode() if binary else got[0, 0]
    assert int(top.split(":")[1]) == OUTPUTS["scores"][0].argmax()
