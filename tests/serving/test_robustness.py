"""What clients do to a server, on purpose or not, harms no other client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.onnx_models import conv_model
from tests.serving.http_tools import (
    INFER,
    INFER_PATH,
    RUNNERS,
    TIMEOUT_S,
    chunk,
    connect,
    end,
    post,
    process,
    request,
    slow_server,
    until_closed,
)

HEAD = f"POST {INFER_PATH} HTTP/1.1\r\nHost: x\r\n".encode()
each_runner = pytest.mark.parametrize("runner", RUNNERS)


@each_runner
def test_it_is_ready_within_a_second_whatever_slow_clients_hold_open(runner: str) -> None:
    with slow_server(runner) as (port, server), ExitStack() as open_clients:
        held = [open_clients.enter_context(connect(port)) for _ in range(192)]
        for client in held[64:128]:
            client.sendall(HEAD[:30])
        for client in held[128:]:
            client.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + INFER)
        for _ in range(5):
            began = time.monotonic()
            assert request(port, "GET", "/v2/health/ready", timeout_s=1.0)[0] == 200
            assert time.monotonic() - began < 1.0
        assert post(port) == "200"
        for client in held:
            client.close()
        assert end(server) == 0


@each_runner
def test_it_is_ready_within_a_second_while_more_wait_than_may(runner: str) -> None:
    with slow_server(runner, seconds=0.2, runs=1, queue=16) as (port, server):
        statuses: list[str] = []
        askers = [threading.Thread(target=lambda: statuses.append(post(port))) for _ in range(60)]
        for asker in askers:
            asker.start()
        for _ in range(5):
            assert request(port, "GET", "/v2/health/ready", timeout_s=1.0)[0] == 200
        for asker in askers:
            asker.join(TIMEOUT_S)
        assert set(statuses) == {"200", "503"}
        assert end(server) == 0


@each_runner
def test_a_chunked_body_over_the_limit_is_413(runner: str) -> None:
    with slow_server(runner, body_bytes=1 << 16) as (port, server):
        pieces = [bytes(1 << 12)] * 64
        status, _, body = request(port, "POST", INFER_PATH, body=iter(pieces), encode_chunked=True)
        assert status == 413
        assert list(json.loads(body)) == ["error"]
        exact = INFER.ljust(1 << 16)
        assert request(port, "POST", INFER_PATH, body=iter([exact]), encode_chunked=True)[0] == 200
        assert request(port, "POST", INFER_PATH, body=exact)[0] == 200
        assert request(port, "POST", INFER_PATH, body=exact + b" ")[0] == 413
        assert end(server) == 0


@each_runner
@pytest.mark.parametrize("length_first", [True, False])
def test_two_lengths_are_refused_or_end_the_connection(runner: str, length_first: bool) -> None:
    length, coding = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"
    fields = length + coding if length_first else coding + length
    with slow_server(runner) as (port, server):
        with connect(port) as client:
            client.sendall(HEAD + fields + b"\r\n" + chunk(INFER) + chunk(b"") + b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert until_closed(client).count(b"HTTP/1.1 ") == 1
        assert end(server) == 0


@each_runner
def test_a_request_that_waits_longer_than_its_deadline_is_504(runner: str) -> None:
    with slow_server(runner, seconds=1.5, runs=1, deadline_s=0.2) as (port, server):
        first = threading.Thread(target=post, args=(port,))
        first.start()
        busy = b""
        while b'"running":1' not in busy:
            busy = request(port, "GET", "/status")[2]
        status, headers, body = request(port, "POST", INFER_PATH, body=INFER)
        assert status == 504
        assert list(json.loads(body)) == ["error"]
        assert headers["x-request-id"]
        first.join(TIMEOUT_S)
        assert end(server) == 0


def test_a_server_killed_during_a_reload_leaves_a_repository_that_starts(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "m" / "1"
    folder.mkdir(parents=True)
    conv_model(folder / "model.onnx", batch="batch")
    token = tmp_path / "token"
    token.write_text("correct-horse")
    token.chmod(0o600)
    before = _digests(tmp_path)
    command = [sys.executable, "-m", "redline", "serve", str(tmp_path / "models"), "--port", "0", "--json"]
    for _ in range(2):
        with process([*command, "--admin-token-file", str(token)]) as (line, server):
            port = int(json.loads(line)["url"].rpartition(":")[2])
            loaded = threading.Semaphore(0)
            reloader = threading.Thread(target=_reload, args=(port, loaded))
            reloader.start()
            for _ in range(3):
                assert loaded.acquire(timeout=TIMEOUT_S)
            server.kill()
            server.wait(TIMEOUT_S)
            reloader.join(TIMEOUT_S)
        assert _digests(tmp_path) == before
    with process(command) as (line, server):
        assert [model["name"] for model in json.loads(line)["models"]] == ["m"]
        port = int(json.loads(line)["url"].rpartition(":")[2])
        assert request(port, "GET", "/v2/models/m/ready")[0] == 200
        assert end(server) == 0


def _reload(port: int, loaded: threading.Semaphore) -> None:
    with contextlib.suppress(OSError):
        while True:
            headers = {"Authorization": "Bearer correct-horse"}
            assert request(port, "POST", "/v2/repository/models/m/load", headers=headers)[0] == 200
            loaded.release()


def _digests(root: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
