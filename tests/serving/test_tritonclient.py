"""The client that others use: everything that tritonclient can ask over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tests.serving.fakes import CLASSES, SIDE_PX, picture, serve
from tests.serving.http_tools import RUNNERS, running
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from redline.serving.app import create_app
from redline.serving.core import Server
from redline.serving.tokens import Tokens

ADMIN = {"Authorization": "Bearer an-admin-token-of-some-length"}
# A gevent hub that ends with its thread is nothing to warn of, and neither is a socket that the client leaves open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", params=RUNNERS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("models")
    models = serve(folder, "affine", "mixed", "colours")
    server = Server(models, tokens=Tokens(admin=ADMIN["Authorization"].removeprefix("Bearer ")))
    with (
        running(request.param, create_app(server), server=server) as one,
        triton.InferenceServerClient(f"127.0.0.1:{one.port}", concurrency=4) as made,
    ):
        yield made
    models.close()


def given(name: str, array: Any, *, binary: bool = True, datatype: str | None = None, shape: Any = None) -> Any:
    made = triton.InferInput(name, shape or list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=binary)


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def refused(client: Any, status: str, *arguments: Any, **options: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(*arguments, **options)
    assert caught.value.status() == status
    return str(caught.value.message())


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("affine")
    assert client.is_model_ready("affine", "1")
    assert not client.is_model_ready("affine", "2")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("mixed", "1")["inputs"][1] == {"name": "b", "datatype": "INT64", "shape": [-1, 2]}
    assert client.get_model_config("affine")["input"][0]["data_type"] == "TYPE_FP32"
    assert {one["name"] for one in client.get_model_repository_index()} == {"affine", "mixed", "colours"}


def test_statistics_grow(client: Any) -> None:
    def successes() -> int:
        stats = client.get_inference_statistics("affine")["model_stats"][0]
        return int(stats["inference_stats"]["success"]["count"])

    before = successes()
    client.infer("affine", [given("x", X)])
    assert successes() == before + 1
    assert len(client.get_inference_statistics()["model_stats"]) == 3


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_every_mix_of_json_and_binary(client: Any, binary_in: bool, binary_out: bool) -> None:
    wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
    result = client.infer("affine", [given("x", X, binary=binary_in)], outputs=[wanted], request_id="mine")
    assert result.as_numpy("y").tolist() == (2 * X + 1).tolist()
    assert result.get_response()["id"] == "mine"
    assert ("parameters" in result.get_output("y")) == binary_out


def test_inputs_and_outputs_of_both_kinds_in_one_request(client: Any) -> None:
    a = np.array([[1, 2], [3, 4]], np.float32)
    b, on = np.array([[5, 6], [7, 8]]), np.array([True, False])
    inputs = [given("a", a, binary=False), given("b", b), given("on", on, binary=False)]
    outputs = [triton.InferRequestedOutput("b2", binary_data=False), triton.InferRequestedOutput("sum")]
    result = client.infer("mixed", inputs, model_version="1", outputs=outputs)
    assert result.as_numpy("sum").tolist() == [[6, 8], [0, 0]]
    assert result.as_numpy("b2").tolist() == [[10, 12], [14, 16]]
    # Without a word about outputs all of them come, as bytes.
    everything = client.infer("mixed", [given("a", a), given("b", b), given("on", on)])
    assert [one["name"] for one in everything.get_response()["outputs"]] == ["sum", "b2"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [False, True])
def test_compressed_requests(client: Any, algorithm: str, binary: bool) -> None:
    result = client.infer(
        "affine",
        [given("x", X, binary=binary)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert result.as_numpy("y").tolist() == (2 * X + 1).tolist()


def test_classes(client: Any) -> None:
    image = np.zeros((2, 3, SIDE_PX, SIDE_PX), np.float32)
    image[0, 2], image[1, 0] = 1, 1
    for binary in (True, False):
        wanted = triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)
        rows = client.infer("colours", [given("image", image)], outputs=[wanted]).as_numpy("scores")
        told = [[one.decode() if isinstance(one, bytes) else one for one in row] for row in rows]
        assert rows.shape == (2, 2)
        assert [row[0].split(":")[1:] for row in told] == [["2", CLASSES[2]], ["0", CLASSES[0]]]


def test_encoded_images_as_bytes(client: Any) -> None:
    files = np.array([picture("green"), picture("red", kind="JPEG")], object)
    wanted = triton.InferRequestedOutput("scores", class_count=1)
    for shape in ([2], [2, 1]):
        result = client.infer("colours", [given("image", files.reshape(shape))], outputs=[wanted], request_id="a")
        assert [row[0].split(b":")[2] for row in result.as_numpy("scores")] == [b"green", b"red"]
        assert result.get_response()["id"] == "a"
    broken = np.array([picture()[:50]], object)
    assert "broken or cut off" in refused(client, "400", "colours", [given("image", broken)])
    assert "data-type is 'BYTES'" in refused(client, "400", "affine", [given("x", files)])
    assert "data-type is 'BYTES'" in refused(
        client, "400", "colours", [given("image", np.array(["text"], object), binary=False)]
    )


def test_many_at_once(client: Any) -> None:
    asked = [client.async_infer("affine", [given("x", X + at)]) for at in range(16)]
    for at, one in enumerate(asked):
        assert one.get_result(timeout=20).as_numpy("y").tolist() == (2 * (X + at) + 1).tolist()


def test_raw_requests(client: Any) -> None:
    reply = client._post(
        request_uri="v2/models/affine/infer",
        request_body=X[:1].tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
        query_params=None,
    )
    assert reply.status_code == 200
    assert np.frombuffer(reply.read()[int(reply.get("Inference-Header-Content-Length")) :], np.float32).tolist() == [
        1,
        3,
        5,
        7,
    ]


def test_what_a_client_does_wrong(client: Any) -> None:
    good = given("x", X)
    assert "unknown model" in refused(client, "404", "nobody", [good])
    refused(client, "404", "affine", [good], model_version="2")
    assert "unexpected inference input 'z'" in refused(client, "400", "affine", [given("z", X)])
    assert "missing" in refused(client, "400", "mixed", [given("b", np.array([[1, 2]]))]).lower()
    assert "data-type is 'INT32'" in refused(client, "400", "affine", [given("x", X.astype(np.int32))])
    assert "unexpected shape" in refused(client, "400", "affine", [given("x", np.zeros((1, 5), np.float32))])
    assert "unexpected shape" in refused(client, "400", "affine", [given("x", np.zeros(4, np.float32))])
    assert "batch-size" in refused(client, "400", "affine", [given("x", np.zeros((257, 4), np.float32))])
    assert "batch-size" in refused(client, "400", "affine", [given("x", np.zeros((0, 4), np.float32))])
    assert "output" in refused(client, "400", "affine", [good], outputs=[triton.InferRequestedOutput("q")])
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("nobody")
    assert caught.value.status() == "404"


def test_load_and_unload(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.unload_model("mixed")
    assert caught.value.status() == "403"
    client.unload_model("mixed", headers=ADMIN)
    assert not client.is_model_ready("mixed")
    states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
    assert states == {"affine": "READY", "mixed": "UNAVAILABLE", "colours": "READY"}
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("mixed", headers=ADMIN, config=json.dumps({"name": "mixed"}))
    assert caught.value.status() == "400"
    client.load_model("mixed", headers=ADMIN)
    assert client.is_model_ready("mixed")
    with pytest.raises(InferenceServerException) as caught:
        client.load_model("nobody", headers=ADMIN)
    assert caught.value.status() == "400"
