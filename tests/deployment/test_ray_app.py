"""The Ray Serve application: by itself with a stand-in for the core, and for real on a cluster of this machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.onnx_models import conv_model

from redline.core.errors import InputError, MissingDependencyError, RedlineError
from redline.deployment import ray_app
from redline.deployment.ray_app import Replica, Replicas, app, build

HAS_RAY_SERVE = all(find_spec(name) is not None for name in ("ray", "fastapi", "starlette", "uvicorn"))


@dataclass(frozen=True)
class ServeOptions:
    """What the factory below takes, found beside it."""

    instances: int = 0


@dataclass
class _Core:
    options: ServeOptions
    models: list[str]
    state: str = "ready"
    limits: Any = field(default_factory=lambda: SimpleNamespace(body_bytes=10))
    calls: list[Any] = field(default_factory=list)

    def wants_body_of(self, call: Any) -> bool:
        return bool(call.method == "POST")

    def answer(self, call: Any) -> Any:
        self.calls.append(call)
        headers = {"Content-Type": "text/plain", "Content-Length": "5", "X-Request-Id": "7"}
        return SimpleNamespace(status=418, headers=headers, body=b"hello")

    def drain(self, timeout_s: float) -> bool:
        assert timeout_s > 0
        self.state = "draining"
        return True


def make_server(models: list[str], options: ServeOptions) -> Any:
    core = _Core(options, list(models))
    return SimpleNamespace(server=core, close=lambda: setattr(core, "state", "closed"))


class _Query(dict[str, str]):
    def multi_items(self) -> list[tuple[str, str]]:
        return [("top", "5"), ("top", "6")]


class _Request:
    """The part of Starlette's request that a replica reads."""

    def __init__(self, method: str, chunks: list[bytes], prefix: str = "") -> None:
        self.method, self.chunks, self.taken = method, chunks, 0
        self.scope = {"path": f"{prefix}/v2/models/m/infer", "root_path": prefix}
        self.headers = {"Content-Type": "application/json", "X-One": "1"}
        self.query_params = _Query()

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += 1
            yield chunk


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake: Any = SimpleNamespace(Response=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "starlette.responses", fake)
    return Replica(["m=a.onnx"], f"{__name__}:make_server", {"instances": 3}, 2)


def test_a_request_reaches_the_core_and_its_answer_goes_back(replica: Any) -> None:
    answer = asyncio.run(replica(_Request("POST", [b"12", b"345"], prefix="/redline")))
    assert answer["status_code"] == 418
    assert answer["content"] == b"hello"
    assert answer["headers"] == {"Content-Type": "text/plain", "X-Request-Id": "7"}
    core = replica._server
    (call,) = core.calls
    assert (call.method, call.path, call.body) == ("POST", "/v2/models/m/infer", b"12345")
    assert call.headers == {"content-type": "application/json", "x-one": "1"}
    assert call.query == {"top": "5"}
    assert (core.models, core.options.instances) == (["m=a.onnx"], 3)
    replica.close()


def test_a_body_is_read_one_byte_past_the_limit_and_no_further(replica: Any) -> None:
    request = _Request("POST", [b"x" * 8] * 100)
    asyncio.run(replica(request))
    assert len(replica._server.calls[0].body) == 11
    assert request.taken == 2
    replica.close()


def test_a_body_that_nobody_wants_is_not_read(replica: Any) -> None:
    request = _Request("GET", [b"x"])
    asyncio.run(replica(request))
    assert (replica._server.calls[0].body, request.taken) == (b"", 0)
    replica.close()


def test_health_and_the_end(replica: Any) -> None:
    replica.check_health()
    replica.close()
    assert replica._server.state == "closed"
    with pytest.raises(RedlineError, match="the server is closed"):
        replica.check_health()


def test_the_cores_call_and_ours_have_the_same_fields() -> None:
    from dataclasses import fields

    from redline.serving.answers import Call

    assert [one.name for one in fields(Call)] == [one.name for one in fields(ray_app.Call)]


def test_arguments_of_serve_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(ray_app, "build", lambda models, replicas: seen.append((models, replicas)))
    app({"models": "out/best,q=int8.onnx", "replicas": "1-4", "cores": "2", "gpus": "0.5"})
    assert seen == [(("out/best", "q=int8.onnx"), Replicas(smallest=1, largest=4, cores=2, gpus=0.5))]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"models": "a.onnx", "replica": "2"}, "got replica, expected models, replicas, cores and gpus"),
        ({"models": "a.onnx", "replicas": "many"}, "expected numbers"),
        ({"models": "a.onnx", "replicas": "4-1"}, "expected at least 1 and rising"),
        ({"models": "a.onnx", "cores": "-1"}, "expected 0 or more"),
        ({}, "expected at least one path"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        app(arguments)


def test_paths_are_made_whole_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").touch()
    assert ray_app._absolute("a.onnx") == str(tmp_path / "a.onnx")
    assert ray_app._absolute("q=a.onnx") == f"q={tmp_path / 'a.onnx'}"
    assert ray_app._absolute("q=/elsewhere/a.onnx") == "q=/elsewhere/a.onnx"


def test_without_ray_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"redline\[cluster\]"):
        build(["a.onnx"])


# In a process of its own: Ray leaves threads and open files behind, and this one treats warnings as errors.
_CLUSTER = """
import json, sys, urllib.error, urllib.request
import numpy as np, ray
from ray import serve
from redline.deployment import ray_app

port, model = int(sys.argv[1]), sys.argv[2]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(ray_app.app({"models": f"m={model}", "replicas": "2", "cores": "0.5"}), route_prefix="/redline")

def ask(path, body=None, headers={}):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/redline{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, {k.lower(): v for k, v in reply.headers.items()}, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

image = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
tensor = {"name": "image", "shape": [2, 3, 16, 16], "datatype": "FP32"}
text = json.dumps({"id": "7", "inputs": [{**tensor, "data": image.ravel().tolist()}]}).encode()
binary = {**tensor, "parameters": {"binary_data_size": image.nbytes}}
head = json.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}}).encode()
length = {"Inference-Header-Content-Length": str(len(head))}
infer = "/v2/models/m/infer"
status, headers, body = ask(infer, head + image.tobytes(), length)
answer = np.frombuffer(body[int(headers["inference-header-content-length"]):], np.float32)
result = {
    "ready": ask("/v2/health/ready")[0],
    "json": json.loads(ask(infer, text)[2]),
    "binary": [status, answer.tolist()],
    "unknown": [ask("/v2/models/none")[0], json.loads(ask("/v2/models/none")[2])],
    "too_large": ask(infer, b"x" * (33 << 20))[0],
    "replicas": [one.status for one in serve.status().applications["default"].deployments.values()],
}
with open(sys.argv[3], "w") as file:
    json.dump(result, file)
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY_SERVE, reason="ray[serve] is not installed (extra cluster)")
def test_a_cluster_of_this_machine_answers(tmp_path: Path) -> None:
    import socket

    import numpy as np
    import onnxruntime as ort

    model = conv_model(tmp_path / "m.onnx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "result.json"
    command = [sys.executable, "-c", _CLUSTER, str(port), str(model), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    image = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    right = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]
    assert result["ready"] == 200
    assert result["json"]["id"] == "7"
    np.testing.assert_allclose(result["json"]["outputs"][0]["data"], right.ravel(), rtol=1e-5, atol=1e-6)
    assert result["binary"][0] == 200
    np.testing.assert_allclose(result["binary"][1], right.ravel(), rtol=1e-5, atol=1e-6)
    assert result["unknown"] == [404, {"error": "Request for unknown model: 'none' is not found"}]
    assert result["too_large"] == 413
    assert result["replicas"] == ["HEALTHY"]
