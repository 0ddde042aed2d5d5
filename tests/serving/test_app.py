"""The same answers through Flask and real servers, and bodies that are longer than allowed."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from tests.serving.fakes import picture, serve
from tests.serving.http_tools import RUNNERS, Running, running

from redline.core.errors import RequestError
from redline.serving.app import create_app, read_body
from redline.serving.core import Call, Server
from redline.serving.limits import Limits
from redline.serving.routes import ROUTES
from redline.serving.tokens import Tokens

BODY_BYTES = 20_000
INFER = "/v2/models/affine/infer"
REQUEST = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()


@pytest.fixture
def app(server: Server) -> Flask:
    return create_app(server)


def test_the_app_answers_as_the_server_does(app: Flask, server: Server) -> None:
    client = app.test_client()
    for route in ROUTES:
        path = route.template.replace("{model}", "affine").replace("{version}", "1")
        body = REQUEST if route.is_inference else b""
        for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS"):
            headers = {"X-Request-Id": "one"}
            got = client.open(path, method=method, data=body, headers=headers)
            own = server.answer(Call(method=method, path=path, headers={"x-request-id": "one"}, body=body))
            assert (got.status_code, got.headers["X-Request-Id"]) == (own.status, "one"), (method, path)
            assert got.headers.get("Allow") == own.headers.get("Allow")
            assert (
                got.headers.get("Content-Type", "").split(";")[0]
                == own.headers.get("Content-Type", got.headers.get("Content-Type", "")).split(";")[0]
            )
            if method == "HEAD":
                assert got.data == b""
            elif route.name in ("server", "model", "config", "index", "infer", "page", "file"):
                assert got.data == own.body


@pytest.mark.parametrize(
    "path", ["/nothing", "/v2/", "/v2//models/affine", "/v2/models", "/static/page.js", "/%00", "/%ff", "/ü/x"]
)
def test_unknown_paths_are_json_too(app: Flask, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        reply = app.test_client().open(path, method=method)
        assert (reply.status_code, set(reply.get_json())) == (404, {"error"})
        assert "Location" not in reply.headers


def test_flask_knows_every_route(app: Flask) -> None:
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert {route.template.replace("{", "<").replace("}", ">") for route in ROUTES} == rules


def test_a_query_is_read(app: Flask) -> None:
    client = app.test_client()
    reply = client.post("/predict/colours?top=2&top=x", data=picture(), content_type="image/png")
    assert len(reply.get_json()["predictions"][0]) == 2
    many = "&".join(f"a{at}=1" for at in range(99))
    refused = client.post(f"/predict/colours?{many}", data=picture(), content_type="image/png")
    assert (refused.status_code, set(refused.get_json())) == (400, {"error"})


def test_a_form_through_flasks_own_client(app: Flask) -> None:
    form = {"a": (BytesIO(picture("red")), "a.png"), "b": (BytesIO(picture("green")), "b.png"), "c": "text"}
    reply = app.test_client().post("/predict/colours", data=form)
    assert [row[0]["name"] for row in reply.get_json()["predictions"]] == ["red", "green"]


def test_a_body_is_not_read_from_who_may_not_ask(models: Any) -> None:
    class Untouched:
        def read(self, *_: object) -> bytes:
            raise AssertionError("it was read")

    app = create_app(Server(models, tokens=Tokens(token="a-token-of-some-length")))
    for method, path, status in (("POST", INFER, 401), ("PUT", INFER, 405), ("POST", "/nothing", 404)):
        reply = app.test_client().open(
            path, method=method, environ_overrides={"wsgi.input": Untouched(), "CONTENT_LENGTH": "100"}
        )
        assert reply.status_code == status


def test_a_length_is_judged_before_anything_is_read() -> None:
    stream = BytesIO(b"x" * 100)
    with pytest.raises(RequestError) as caught:
        read_body({"CONTENT_LENGTH": "11", "wsgi.input": stream}, 10)
    assert (caught.value.status, stream.tell()) == (413, 0)
    assert read_body({"CONTENT_LENGTH": "10", "wsgi.input": stream}, 10) == b"x" * 10
    assert read_body({"CONTENT_LENGTH": "", "wsgi.input": stream}, 10) == b""


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣", "+5", "5.0"])
def test_a_length_that_is_no_number_is_400(length: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_body({"CONTENT_LENGTH": length, "wsgi.input": BytesIO(b"xxxxx")}, 10)
    assert caught.value.status == 400


def test_an_absurd_length_is_413() -> None:
    with pytest.raises(RequestError) as caught:
        read_body({"CONTENT_LENGTH": "9" * 5000, "wsgi.input": BytesIO()}, 10)
    assert caught.value.status == 413


def test_a_body_without_a_length_is_bounded_too() -> None:
    chunked = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}
    for size in (0, 9, 10):
        assert read_body({**chunked, "wsgi.input": BytesIO(b"x" * size)}, 10) == b"x" * size
    stream = BytesIO(b"x" * 100)
    with pytest.raises(RequestError) as caught:
        read_body({**chunked, "wsgi.input": stream}, 10)
    assert (caught.value.status, stream.tell()) == (413, 11)
    with pytest.raises(RequestError, match="both"):
        read_body({**chunked, "CONTENT_LENGTH": "1", "wsgi.input": stream}, 10)


def test_a_body_that_ends_early_is_400() -> None:
    class Gone:
        def read(self, *_: object) -> bytes:
            raise ConnectionResetError

    for stream in (BytesIO(b"xx"), Gone()):
        with pytest.raises(RequestError) as caught:
            read_body({"CONTENT_LENGTH": "5", "wsgi.input": stream}, 10)
        assert caught.value.status == 400


@pytest.fixture(params=RUNNERS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    models = serve(tmp_path, "affine", "colours")
    limits = Limits(body_bytes=BODY_BYTES)
    server = Server(models, limits=limits)
    with running(request.param, create_app(server), limits=limits, server=server) as one:
        yield one
    models.close()


def talk(served: Running, sent: bytes) -> list[int]:
    """The statuses of all answers until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
        received = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(1 << 16):
                received += piece
        except ConnectionError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


LAST = head("/v2/health/live", "Connection: close", method="GET")


@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
def test_a_chunked_body_is_whole_or_413(served: Running, path: str) -> None:
    def chunked(body: bytes) -> bytes:
        chunks = [body[at : at + 5000] for at in range(0, len(body), 5000)]
        return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"

    start = head(path, "Transfer-Encoding: chunked", "Content-Type: application/json")
    body = REQUEST if path == INFER else b"{}"
    for whole in (body, body.ljust(BODY_BYTES)):
        # A server may close the connection after a body whose length was not declared.
        assert talk(served, start + chunked(whole) + LAST) in ([200], [200, 200])
    # What is too long holds requests: none may be taken for one, whether it is read to its end or not.
    too_long = talk(served, start + chunked((LAST * 400)[: BODY_BYTES + 1]) + LAST)
    assert too_long in ([413], [413, 200])


def test_a_declared_length_over_the_limit_is_413(served: Running) -> None:
    for path in (INFER, "/v2/repository/index"):
        for length in (BODY_BYTES + 1, 5 * BODY_BYTES):
            sent = head(path, f"Content-Length: {length}") + (LAST * 2000)[:length] + LAST
            assert talk(served, sent) in ([413], [413, 200])


def test_health_over_http(served: Running) -> None:
    for method in ("GET", "HEAD"):
        status, _, body = served.request(method, "/v2/health/ready")
        assert (status, body) == (200, b"")
    assert talk(served, head("/v2", method="HEAD") + LAST) == [200, 200]


@pytest.mark.parametrize("path", ["/v2/models/%C3%BC", "/v2/models/%00", "/v2/models/%ff", "/v2/models/%2e%2e/%2e%2e"])
def test_odd_characters_in_a_path_are_404(served: Running, path: str) -> None:
    status, headers, body = served.request("GET", path)
    assert (status, set(json.loads(body)), bool(headers["x-request-id"])) == (404, {"error"}, True)
