"""Both runners answer, bound what clients may do to them, and end without losing anything."""

from __future__ import annotations

import errno
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.serving.http_tools import RUNNERS, Answering, chunk, connect, request, running, until_closed

from redline.core.errors import InputError
from redline.serving.limits import Limits
from redline.serving.runners import Listening, Stop, choose

HURRIED = Limits(header_timeout_s=0.3, body_timeout_s=0.3, deadline_s=0.3, body_bytes=1 << 16)
GET = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Counts bytes; ``/hold`` waits until it is let go, ``/raise`` fails, ``/refuse`` reads nothing."""

    def __init__(self, server: Answering | None = None) -> None:
        self.server = server or Answering()
        self.let_go = threading.Event()
        self.held = threading.Semaphore(0)
        self.seen: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, size = environ["PATH_INFO"], 0
        if path == "/ready":
            start("200 OK" if self.server.is_ready else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b""]
        if path == "/raise":
            raise RuntimeError("secret")
        if path == "/refuse":
            start("413 Content Too Large", [("Content-Type", "application/json")])
            return [b'{"error":"too long"}']
        if path == "/hold":
            self.held.release()
            assert self.let_go.wait(20)
        while data := environ["wsgi.input"].read(1 << 14):
            size += len(data)
        self.seen.append({"path": path, "query": environ["QUERY_STRING"], "bytes": size})
        body = json.dumps(self.seen[-1]).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_answers_and_hands_bodies_over_whole(runner: str) -> None:
    with running(runner, App()) as served:
        assert json.loads(served.request("GET", "/a?x=1")[2]) == {"path": "/a", "query": "x=1", "bytes": 0}
        assert json.loads(served.request("POST", "/b", body=bytes(3_000_000))[2])["bytes"] == 3_000_000
        status, _, body = served.request("POST", "/c", body=iter([b"abc", b"defg"]), encode_chunked=True)
        assert (status, json.loads(body)["bytes"]) == (200, 7)


def test_a_connection_is_used_again(runner: str) -> None:
    with running(runner, App()) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        sockets = []
        for _ in range(3):
            connection.request("POST", "/", body=b"12345")
            assert json.loads(connection.getresponse().read())["bytes"] == 5
            sockets.append(connection.sock)
        assert sockets[0] is not None
        assert sockets == [sockets[0]] * 3
        connection.close()


def test_a_failing_application_is_one_json_answer_without_the_reason(runner: str) -> None:
    with running(runner, App()) as served:
        status, headers, body = served.request("GET", "/raise")
        assert status == 500
        assert headers["content-type"] == "application/json"
        assert headers["x-request-id"]
        assert list(json.loads(body)) == ["error"]
        assert b"secret" not in body
        assert served.request("GET", "/ready")[0] == 200


@pytest.mark.parametrize("order", ["length first", "length last"])
def test_a_request_with_two_lengths_is_the_last_on_its_connection(runner: str, order: str) -> None:
    length, coding = b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"
    fields = length + coding if order == "length first" else coding + length
    app = App()
    with running(runner, app) as served, served.connect() as client:
        client.sendall(
            b"POST /first HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n" + chunk(b"") + b"GET /smuggled HTTP/1.1\r\n\r\n"
        )
        answers = until_closed(client)
    assert answers.startswith(b"HTTP/1.1 ")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert "/smuggled" not in [seen["path"] for seen in app.seen]


def test_headers_that_do_not_come_end_the_connection(runner: str) -> None:
    with running(runner, App(), limits=HURRIED) as served, served.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert b"200" not in until_closed(client)


@pytest.mark.parametrize("head", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"])
@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
def test_a_body_that_does_not_come_ends_the_connection(runner: str, head: bytes, expect: bytes) -> None:
    app = App()
    with running(runner, app, limits=HURRIED) as served, served.connect() as client:
        client.sendall(b"POST /late HTTP/1.1\r\nHost: x\r\n" + expect + head)
        assert b" 200 " not in until_closed(client)
        assert served.request("GET", "/ready")[0] == 200
    assert not app.seen


def test_a_request_in_work_is_not_ended_for_a_body_that_does_not_come(runner: str) -> None:
    app = App()
    with running(runner, app, limits=Limits(header_timeout_s=0.3, body_timeout_s=0.3, deadline_s=60)) as served:
        answers: list[int] = []
        worker = threading.Thread(target=lambda: answers.append(served.request("GET", "/hold")[0]))
        worker.start()
        assert app.held.acquire(timeout=20)
        with served.connect() as client:
            client.sendall(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            client.settimeout(1.5)
            try:
                assert b" 200 " not in until_closed(client)
            except TimeoutError:
                assert runner == "granian"  # which of the two is late cannot be told
        app.let_go.set()
        worker.join(20)
    assert answers == [200]


def test_a_body_that_is_cut_off_is_not_taken_for_whole(runner: str) -> None:
    """One of a declared length; granian shows the end of a chunked one and its loss alike."""
    app = App()
    with running(runner, app) as served:
        with served.connect() as client:
            client.sendall(b"POST /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
            client.shutdown(socket.SHUT_WR)
            assert b" 200 " not in until_closed(client)
        served.request("GET", "/after")
    assert [seen["path"] for seen in app.seen] == ["/after"]


def test_a_refusal_arrives_although_the_client_still_sends(runner: str) -> None:
    with running(runner, App(), limits=Limits(body_bytes=1 << 16)) as served, served.connect() as client:
        size = 24 << 20
        client.sendall(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            client.sendall(bytes(1 << 20))
        assert b" 413 " in client.recv(65536).split(b"\r\n")[0]


def test_what_is_no_request_is_refused(runner: str) -> None:
    with running(runner, App()) as served, served.connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        answer = until_closed(client)
    assert b" 400 " in answer.split(b"\r\n")[0]
    if runner == "waitress":
        assert list(json.loads(answer.partition(b"\r\n\r\n")[2])) == ["error"]
        assert b"X-Request-Id" in answer


def test_told_to_stop_it_is_not_ready_answers_on_and_then_takes_no_more(runner: str) -> None:
    server = Answering()
    app = App(server)
    with running(runner, app, server=server, drain_delay_s=30.0) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        connection.request("GET", "/ready")
        first = connection.getresponse()
        assert (first.status, first.read()) == (200, b"")
        assert not first.will_close
        served.stop()
        status, headers = 200, {}
        while status == 200:
            status, headers, _ = served.request("GET", "/ready")
        assert status == 503
        while headers.get("connection", "").lower() != "close":
            headers = served.request("POST", "/", body=b"x")[1]
        connection.request("GET", "/ready")
        assert connection.getresponse().will_close
        connection.close()
        served.stop()  # the second time ends the delay
        assert server.drained.wait(20)
    assert refused(served.port)


def test_what_is_in_work_is_finished(runner: str) -> None:
    server = Answering()
    app = App(server)
    with running(runner, app, server=server) as served:
        answers: list[int] = []
        workers = [
            threading.Thread(target=lambda: answers.append(served.request("POST", "/hold", body=b"x")[0]))
            for _ in range(8)
        ]
        for worker in workers:
            worker.start()
        for _ in workers:
            assert app.held.acquire(timeout=20)
        served.stop()
        while server.is_ready:
            pass
        assert not server.drained.is_set()
        app.let_go.set()
        for worker in workers:
            worker.join(20)
        assert answers == [200] * 8


def test_waitress_keeps_threads_for_health() -> None:
    app = App()
    with running("waitress", app, threads=10) as served:
        workers = [threading.Thread(target=served.request, args=("POST", "/hold")) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in workers:
            assert app.held.acquire(timeout=20)
        status, headers, body = served.request("POST", "/hold")
        assert (status, headers["retry-after"], list(json.loads(body))) == (503, "1", ["error"])
        assert served.request("GET", "/ready")[0] == 200
        app.let_go.set()
        for worker in workers:
            worker.join(20)


def test_a_port_in_use_is_said() -> None:
    first = Listening("127.0.0.1", 0)
    with pytest.raises(InputError, match=f"port {first.port} is in use; give another by --port"):
        Listening("127.0.0.1", first.port)
    first.close()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host", "x" * 300])
def test_an_address_of_another_machine_is_said(host: str) -> None:
    with pytest.raises(InputError, match="is no address of this machine"):
        Listening(host, 0)


def test_a_port_that_refuses_keeps_what_waits() -> None:
    port = Listening("127.0.0.1", 0)
    with connect(port.port) as early:
        port.refuse()
        late = socket.socket()
        late.setblocking(False)
        assert late.connect_ex(("127.0.0.1", port.port)) == errno.EINPROGRESS
        assert port.waiting() == 1
        accepted, _ = port.socket.accept()
        early.sendall(b"hello")
        accepted.settimeout(20)
        assert accepted.recv(10) == b"hello"
        assert port.waiting() == 0
        accepted.close()
        late.close()
    port.close()


def test_stop_can_be_told_twice() -> None:
    stop = Stop()
    assert not stop.wait(0)
    stop.set()
    stop.set()
    assert [stop.wait(0), stop.wait(0), stop.wait(0)] == [True, True, False]
    stop.close()


def test_auto_is_granian_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto") == "granian"
    assert choose("waitress") == "waitress"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose("auto") == "waitress"


def refused(port: int) -> bool:
    try:
        request(port, "GET", "/ready")
    except ConnectionRefusedError:
        return True
    return False
