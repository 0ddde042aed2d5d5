"""The server without HTTP: every route, who may ask, what goes wrong."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serving.fakes import Shelf, affine, picture, serve

from redline.core.errors import ArtifactError, InputError
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.core import Call, Reply, Server
from redline.serving.limits import Limits
from redline.serving.models import Models
from redline.serving.routes import ROUTES, match
from redline.serving.tokens import Tokens, read_token

TOKEN, ADMIN = "a-token-of-some-length", "an-admin-token-of-some-length"


def get(server: Server, path: str, **headers: str) -> Reply:
    return server.answer(Call(method="GET", path=path, headers={k.replace("_", "-"): v for k, v in headers.items()}))


def post(server: Server, path: str, body: bytes | Mapping[str, Any] = b"", **headers: str) -> Reply:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.answer(Call(method="POST", path=path, headers=named, body=sent))


def error_of(reply: Reply) -> str:
    """What an error says, whose form is always the same."""
    assert reply.status >= 400
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Request-Id"]
    found = json.loads(reply.body)
    assert set(found) == {"error"}
    return str(found["error"])


def affine_request(rows: int = 1, **changes: Any) -> dict[str, Any]:
    one = {"name": "x", "datatype": "FP32", "shape": [rows, 4], "data": [1, 2, 3, 4] * rows}
    return {"inputs": [{**one, **changes}]}


def test_health_is_an_empty_200_to_get_and_head(server: Server) -> None:
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/affine/ready",
        "/v2/models/affine/versions/1/ready",
    ):
        for method in ("GET", "HEAD"):
            reply = server.answer(Call(method=method, path=path))
            assert (reply.status, reply.body) == (200, b"")


def test_a_server_without_a_model_is_not_ready(tmp_path: Path) -> None:
    models = serve(tmp_path)
    server = Server(models)
    assert server.state == "starting"
    assert get(server, "/v2/health/live").status == 200
    assert error_of(get(server, "/v2/health/ready")) == "the server is starting"


def test_a_draining_server_says_not_ready_and_still_answers(server: Server) -> None:
    server.begin_drain()
    assert get(server, "/v2/health/ready").status == 503
    assert get(server, "/v2/health/live").status == 200
    assert post(server, "/v2/models/affine/infer", affine_request()).status == 200
    assert server.drain(0.0)


def test_a_drain_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    running, go_on = threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].any():  # not while it is warmed up
            running.set()
            go_on.wait(10)
        return affine(inputs)

    shelf = Shelf(runs={"affine": slow})
    models = serve(tmp_path, "affine", shelf=shelf)
    server = Server(models)
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(post(server, "/v2/models/affine/infer", affine_request())))
    thread.start()
    assert running.wait(10)
    assert server.in_flight == 1
    assert not server.drain(0.01)
    go_on.set()
    assert server.drain(10)
    thread.join()
    assert [reply.status for reply in replies] == [200]
    models.close()


def test_metadata_config_and_statistics(server: Server) -> None:
    assert json.loads(get(server, "/v2").body)["name"] == "redline"
    assert json.loads(get(server, "/v2/models/affine").body) == {
        "name": "affine",
        "versions": ["1"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    config = json.loads(get(server, "/v2/models/affine/versions/1/config").body)
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (Limits().batch_rows, [4])
    post(server, "/v2/models/affine/infer", affine_request(rows=3))
    post(server, "/v2/models/affine/infer", affine_request(datatype="INT32"))
    stats = json.loads(get(server, "/v2/models/affine/stats").body)["model_stats"]
    assert [(one["name"], one["version"], one["inference_count"]) for one in stats] == [("affine", "1", 3)]
    counts = {name: value["count"] for name, value in stats[0]["inference_stats"].items()}
    assert (counts["success"], counts["fail"], counts["compute_infer"]) == (1, 1, 1)
    assert json.loads(get(server, "/v2/models/affine/versions/1/stats").body)["model_stats"] == stats
    everything = json.loads(get(server, "/v2/models/stats").body)["model_stats"]
    assert {one["name"] for one in everything} == {"affine", "mixed", "colours"}


def test_infer_answers_what_the_model_gives(server: Server) -> None:
    for path in ("/v2/models/affine/infer", "/v2/models/affine/versions/1/infer"):
        reply = post(server, path, {"id": "mine", **affine_request()})
        assert json.loads(reply.body) == {
            "model_name": "affine",
            "model_version": "1",
            "id": "mine",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [3, 5, 7, 9]}],
        }


def test_binary_tensors_come_back_behind_the_json(server: Server) -> None:
    header = json.dumps(
        {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    values = np.arange(4, dtype=np.float32)
    reply = post(
        server,
        "/v2/models/affine/infer",
        header + values.tobytes(),
        inference_header_content_length=str(len(header)),
    )
    assert reply.headers["Content-Type"] == "application/octet-stream"
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(reply.body[length:], np.float32).tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ([2], [picture()]),
        ([1], [picture(), picture()]),
        ([0], []),
        ([1, 1, 1], [picture()]),
        ([1 << 62, 2], [picture()]),
        (["1"], [picture()]),
        (None, [picture()]),
        ([1], [b""]),
    ],
)
def test_images_as_bytes_that_do_not_add_up_are_400(server: Server, shape: Any, elements: list[bytes]) -> None:
    packed = b"".join(len(one).to_bytes(4, "little") + one for one in elements)
    one = {"name": "image", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": len(packed)}}
    header = json.dumps({"inputs": [one]}).encode()
    for body in (header + packed, header + packed[:-1], header + packed + b"\xff\xff\xff\xff"):
        reply = post(server, "/v2/models/colours/infer", body, inference_header_content_length=str(len(header)))
        assert (reply.status, bool(error_of(reply))) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v2/models/nobody/infer", affine_request(), 404),
        ("/v2/models/../infer", affine_request(), 404),
        ("/v2/models/affine/versions/2/infer", affine_request(), 404),
        ("/v2/models/affine/versions/abc/infer", affine_request(), 404),
        ("/v2/models/affine/infer", affine_request(name="z"), 400),
        ("/v2/models/affine/infer", affine_request(datatype="FP64"), 400),
        ("/v2/models/affine/infer", affine_request(shape=[1, 5]), 400),
        ("/v2/models/affine/infer", affine_request(shape=[1 << 62, 4]), 400),
        ("/v2/models/affine/infer", affine_request(data=[1, 2, None, 4]), 400),
        ("/v2/models/affine/infer", affine_request(rows=257), 400),
        ("/v2/models/affine/infer", b"", 400),
        ("/v2/models/affine/infer", b"{", 400),
        ("/v2/models/affine/infer", b"[" * 5000, 400),
        ("/v2/models/affine/infer", b"\xff\x00", 400),
    ],
)
def test_a_clients_mistake_is_never_the_servers(server: Server, path: str, body: Any, status: int) -> None:
    reply = post(server, path, body)
    assert (reply.status, bool(error_of(reply))) == (status, True)


def test_encodings_and_sizes(server_with: Callable[..., Server]) -> None:
    server = server_with(limits=Limits(body_bytes=100, inflated_bytes=100))
    assert post(server, "/v2/models/affine/infer", b" " * 101).status == 413
    assert post(server, "/v2/models/affine/infer", b"x", content_encoding="br").status == 415
    assert post(server, "/v2/models/affine/infer", b"x", content_encoding="gzip").status == 400


def test_a_model_that_fails_is_a_500_that_says_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="redline.serving"):
        reply = post(server, "/v2/models/affine/infer", affine_request(data=[99, 0, 0, 0]), x_request_id="call-7")
    assert reply.status == 500
    assert error_of(reply) == "internal error"
    assert reply.headers["X-Request-Id"] == "call-7"
    assert "call-7" in caplog.text
    assert "it choked" in caplog.text
    stats = json.loads(get(server, "/v2/models/affine/stats").body)["model_stats"][0]
    assert stats["inference_stats"]["fail"]["count"] == 1


def test_a_model_that_does_not_take_these_values_is_the_clients_to_mend(tmp_path: Path) -> None:
    def lookup(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.arange(10)[inputs["i"]]}

    signature = Signature((TensorSpec("i", ("n",), "int64"),), (TensorSpec("y", ("n",), "int64"),))
    models = serve(tmp_path, "lookup", shelf=Shelf(runs={"lookup": lookup}, signatures={"lookup": signature}))
    body = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [3]}]}
    assert post(Server(models), "/v2/models/lookup/infer", body).status == 200
    body["inputs"][0]["data"] = [11]
    reply = post(Server(models), "/v2/models/lookup/infer", body)
    assert (reply.status, "does not run on these inputs" in error_of(reply)) == (400, True)
    models.close()


def test_every_error_is_json_with_an_id(server: Server) -> None:
    assert "no such path" in error_of(get(server, "/nothing"))
    assert get(server, "/nothing").status == get(server, "/v2/").status == 404
    reply = post(server, "/v2")
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")
    reply = get(server, "/predict")
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert error_of(server.answer(Call(method="BREW" * 40, path="/")))


def test_an_id_is_the_callers_where_it_is_sane(server: Server) -> None:
    assert get(server, "/v2", x_request_id="a-1").headers["X-Request-Id"] == "a-1"
    for insane in ("a\r\nSet-Cookie: b", "ü", "", "a" * 200):
        assert get(server, "/v2", x_request_id=insane).headers["X-Request-Id"] not in (insane, "")


def test_a_name_of_half_characters_is_answered(server: Server) -> None:
    assert get(server, "/v2/models/\ud800").status == 404


def test_index_lists_all_or_what_is_ready(server: Server, models: Models) -> None:
    models.unload("mixed")
    everything = json.loads(post(server, "/v2/repository/index").body)
    assert {(one["name"], one["state"]) for one in everything} == {
        ("affine", "READY"),
        ("mixed", "UNAVAILABLE"),
        ("colours", "READY"),
    }
    ready = json.loads(post(server, "/v2/repository/index", {"ready": True}).body)
    assert {one["name"] for one in ready} == {"affine", "colours"}
    for wrong in (b"{", b"[]", {"ready": 1}):
        assert post(server, "/v2/repository/index", wrong).status == 400
    assert post(server, "/v2/repository/index", b" " * 70_000).status == 413


def test_load_and_unload_are_off(server: Server, shelf: Shelf) -> None:
    before = list(shelf.opened)
    for verb in ("load", "unload"):
        assert post(server, f"/v2/repository/models/affine/{verb}", authorization="Bearer x").status == 403
    assert (shelf.opened, shelf.closed) == (before, [])


def test_load_and_unload_with_the_admin_token(server_with: Callable[..., Server], shelf: Shelf) -> None:
    server = server_with(tokens=Tokens(admin=ADMIN))
    admin = f"Bearer {ADMIN}"
    path = "/v2/repository/models/affine"
    assert (
        post(server, f"{path}/unload").status == post(server, f"{path}/unload", authorization="Bearer x").status == 403
    )
    assert post(server, f"{path}/unload", authorization=admin).status == 200
    assert post(server, "/v2/models/affine/infer", affine_request()).status == 404
    assert get(server, "/v2/models/affine/ready").status == 404
    refused = post(
        server, f"{path}/load", {"parameters": {"config": "{}", "file:1/model.onnx": "AAAA"}}, authorization=admin
    )
    assert (refused.status, "takes no parameters" in error_of(refused)) == (400, True)
    assert post(server, f"{path}/load", {}, authorization=admin).status == 200
    assert post(server, "/v2/models/affine/infer", affine_request()).status == 200
    assert shelf.opened.count("affine") == 2
    assert post(server, "/v2/repository/models/nobody/load", authorization=admin).status == 400


def test_a_load_that_fails_keeps_the_old_model(
    server_with: Callable[..., Server], shelf: Shelf, tmp_path: Path
) -> None:
    server = server_with(tokens=Tokens(admin=ADMIN))
    shelf.broken["affine"] = ArtifactError(f"{tmp_path}/affine.onnx is cut off")
    reply = post(server, "/v2/repository/models/affine/load", authorization=f"Bearer {ADMIN}")
    assert reply.status == 400
    assert str(tmp_path) not in error_of(reply)
    assert post(server, "/v2/models/affine/infer", affine_request()).status == 200


def test_a_token_is_asked_for_everywhere_but_for_health_and_the_page(server_with: Callable[..., Server]) -> None:
    server = server_with(tokens=Tokens(token=TOKEN, admin=ADMIN))
    for route in ROUTES:
        path = route.template.replace("{model}", "affine").replace("{version}", "1")
        without = server.answer(Call(method=route.method, path=path))
        wrong = server.answer(Call(method=route.method, path=path, headers={"authorization": "Bearer nobody-s-token"}))
        if route.is_open:
            assert without.status == wrong.status == 200, path
        else:
            assert without.status == wrong.status == 401, path
            assert without.headers["WWW-Authenticate"].startswith("Bearer")
    assert get(server, "/v2", authorization=f"Bearer {TOKEN}").status == 200
    assert get(server, "/v2", authorization=f"bearer {ADMIN}").status == 200
    for wrong in (TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer ü"):
        assert get(server, "/v2", authorization=wrong).status == 401
    assert post(server, "/v2/repository/models/affine/load", authorization=f"Bearer {TOKEN}").status == 403


def test_who_may_not_ask_is_not_listened_to(server_with: Callable[..., Server]) -> None:
    server = server_with(tokens=Tokens(token=TOKEN))
    call = Call(method="POST", path="/predict/affine")
    assert not server.wants_body_of(call)
    assert not server.wants_body_of(Call(method="POST", path="/nothing", headers={"authorization": f"Bearer {TOKEN}"}))
    assert server.wants_body_of(Call(method="POST", path=call.path, headers={"authorization": f"Bearer {TOKEN}"}))


def test_metrics_count_what_was_asked_and_refused(server: Server) -> None:
    post(server, "/v2/models/affine/infer", affine_request())
    post(server, "/v2/models/affine/infer", affine_request(shape=[1, 5]))
    post(server, "/v2/models/nobody-has-this-name/infer", affine_request())
    reply = get(server, "/metrics")
    text = reply.body.decode()
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert 'redline_requests_total{code="200",model="affine",version="1"} 1.0' in text
    assert 'redline_requests_total{code="400",model="affine",version="1"} 1.0' in text
    assert 'redline_rejected_total{reason="not_found"} 1.0' in text
    assert 'phase="queue"' in text
    assert "nobody-has-this-name" not in text


def test_status_says_what_the_page_shows(server: Server) -> None:
    post(server, "/v2/models/affine/infer", affine_request(rows=2))
    get(server, "/nothing")
    status = json.loads(get(server, "/status").body)
    assert (status["state"], status["default"], status["in_flight"]) == ("ready", None, 0)
    assert status["errors"] == {"not_found": 1}
    (version,) = next(one for one in status["models"] if one["name"] == "affine")["versions"]
    assert (version["precision"], version["backend"], version["requests"], version["rows"]) == ("fp32", "fake", 1, 2)
    assert len(version["recent"]) == 1
    colours = next(one for one in status["models"] if one["name"] == "colours")
    assert colours["versions"][0]["image"]["width_px"] == 8


def test_the_page_and_its_files_need_nothing_from_elsewhere(server: Server) -> None:
    page = get(server, "/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("page.css", "page.js"):
        assert f'"{name}"' in page.body.decode()
        assert get(server, f"/{name}").status == 200
    for path in ("/page.py", "/../core.py", "/page/page.js", "/index.html"):
        assert get(server, path).status == 404


class Recorder:
    """A shadow that only remembers."""

    def __init__(self) -> None:
        self.offered: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []

    def offer(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.offered.append((inputs, outputs))

    def summary(self) -> dict[str, Any]:
        return {"reference": "fp32", "compared": len(self.offered)}


def test_a_shadow_sees_what_was_answered(server_with: Callable[..., Server]) -> None:
    shadow = Recorder()
    server = server_with(shadows={"affine": shadow})
    post(server, "/v2/models/affine/infer", affine_request())
    post(server, "/v2/models/affine/infer", affine_request(datatype="FP64"))
    post(server, "/predict/affine", {"inputs": [[1, 2, 3, 4]]}, content_type="application/json")
    assert [inputs["x"].tolist() for inputs, _ in shadow.offered] == [[[1, 2, 3, 4]]] * 2
    models = json.loads(get(server, "/status").body)["models"]
    assert [one["shadow"] for one in models if one["name"] == "affine"] == [{"reference": "fp32", "compared": 2}]


def test_a_deadline_that_passed_is_504(tmp_path: Path) -> None:
    running, go_on = threading.Semaphore(0), threading.Event()

    def slow(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs["x"].any():
            running.release()
            go_on.wait(10)
        return affine(inputs)

    models = serve(tmp_path, "affine", shelf=Shelf(runs={"affine": slow}))
    server = Server(models)
    path = "/v2/models/affine/infer"
    busy = [threading.Thread(target=post, args=(server, path, affine_request())) for _ in range(2)]
    for thread in busy:
        thread.start()
    assert all(running.acquire(timeout=10) for _ in busy)
    late = {**affine_request(), "parameters": {"timeout": 1000}}
    assert post(server, path, late).status == 504
    go_on.set()
    for thread in busy:
        thread.join()
    models.close()


def test_routes_match_only_what_they_say() -> None:
    for path in ("", "/v2/", "//v2", "/v2//models/a", "/v2/models//infer", "/v2/models/a/versions//infer", "/predict/"):
        assert match(path) is None, path
    found = match("/v2/models/stats")
    assert found is not None
    assert found.route.name == "all_statistics"


def test_a_token_comes_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    assert not caplog.records
    file.chmod(0o644)
    assert Tokens.from_files(file) == Tokens(token=TOKEN)
    assert "chmod 600" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(Tokens(token=TOKEN))


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"two words of it", "schlüssel-lang".encode(), b"x" * 5000])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InputError, match="token"):
        read_token(file)
    with pytest.raises(InputError, match="could not be read"):
        read_token(tmp_path / "none")
