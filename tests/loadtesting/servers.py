"""Small real servers on a port of their own, for tests: they answer V2 with a known service time, or misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


@dataclass
class Behaviour:
    """How a server answers.

    Attributes:
        service_s: How long one inference takes; ``cores`` of them run at once.
        stall_every_s, stall_s: Everything stands still for so long at the end of every such time.
        status: Of the answer to the n-th inference.
        headers: More headers of it.
        chunked: Whether its body comes in chunks.
        close_every: Close the connection after so many inferences; 0 for never.
        silent_close: ... without having said so.
        hang_every: Every n-th inference is not answered before the server ends; 0 for none.
        garbage: Answer with what is no HTTP.
        weight: What the model multiplies its input by.
    """

    service_s: float = 0.0
    cores: int = 64
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    status: Callable[[int], int] = lambda _: 200
    chunked: bool = False
    close_every: int = 0
    silent_close: bool = False
    hang_every: int = 0
    garbage: bool = False
    stats: bool = True
    names: tuple[str, ...] = ("model",)
    weight: float = 1.0
    input_name: str = "x"
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    count: int = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behaviour: Behaviour
    began: float
    gate: threading.Semaphore
    lock: threading.Lock
    ending: threading.Event

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path in ("/v2/health/ready", "/v2/health/live"):
            return self._answer(200, b"")
        if self.path == "/metrics":
            text = 'redline_model_info{model="model",version="1",precision="int8",backend="onnxruntime"} 1.0\n'
            return self._answer(200, text.encode())
        parts = self.path.split("/")
        if parts[-1] == "stats" and self.behaviour.stats:
            n = self.behaviour.count
            spent = {"count": n, "ns": int(n * self.behaviour.service_s * 1e9)}
            zero = {"count": n, "ns": n * 1000}
            phases = {"queue": zero, "compute_input": zero, "compute_infer": spent, "compute_output": zero}
            one = {"name": parts[3], "version": "1", "inference_count": n, "execution_count": n}
            return self._json(200, {"model_stats": [{**one, "inference_stats": {"success": spent, **phases}}]})
        if len(parts) >= 4 and parts[2] == "models" and parts[3] in self.behaviour.names:
            inputs = [{"name": self.behaviour.input_name, "datatype": "FP32", "shape": [-1, 4]}]
            outputs = [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]
            return self._json(200, {"name": parts[3], "versions": ["1"], "inputs": inputs, "outputs": outputs})
        return self._json(404, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        own = self.behaviour
        if self.path == "/v2/repository/index":
            return self._json(200, [{"name": name, "version": "1", "state": "READY"} for name in own.names])
        with self.lock:
            own.count += 1
            number = own.count
            if len(own.seen) < 100:
                own.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if own.garbage:
            self.wfile.write(b"220 this is a mail server\r\n\r\n")
            self.close_connection = True
            return None
        if own.hang_every and number % own.hang_every == 0:
            self.ending.wait(30)
            self.close_connection = True
            return None
        with self.gate:
            self._work()
        closing = own.close_every and number % own.close_every == 0
        content, more = self._infer(body)
        self._answer(own.status(number), content, more | ({"Connection": "close"} if closing else {}))
        return None

    def _work(self) -> None:
        own = self.behaviour
        if own.stall_every_s:
            into = (time.perf_counter() - self.began) % own.stall_every_s
            if into > own.stall_every_s - own.stall_s:
                time.sleep(own.stall_every_s - into)
        if own.service_s:
            time.sleep(own.service_s)

    def _infer(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        header = self.headers.get("Inference-Header-Content-Length")
        if header is None:
            return b"{}", {}
        told = json.loads(body[: int(header)])
        rows = np.frombuffer(body[int(header) :], np.float32).reshape(told["inputs"][0]["shape"])
        raw = (rows * np.float32(self.behaviour.weight)).tobytes()
        out = {"name": "y", "datatype": "FP32", "shape": list(rows.shape), "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"model_name": "model", "outputs": [out]}).encode()
        return head + raw, {"Inference-Header-Content-Length": str(len(head))}

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if self.request_version == "HTTP/1.0" and not self.close_connection:
            self.send_header("Connection", "keep-alive")  # ab speaks 1.0 and waits for the end without this
        for name, value in (headers or {}).items():
            if not (name == "Connection" and self.behaviour.silent_close):
                self.send_header(name, value)
        if (headers or {}).get("Connection") == "close":
            self.close_connection = True
        if self.behaviour.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = len(body) // 2
            for part in (body[:half], body[half:]):
                if part:
                    self.wfile.write(f"{len(part):x};note\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: Any) -> None:
        pass  # clients that go away in the middle are the point of some tests


@contextmanager
def server(behaviour: Behaviour | None = None) -> Iterator[tuple[str, Behaviour]]:
    """A server, as its URL and its behaviour."""
    own = behaviour or Behaviour()
    attributes: dict[str, Any] = {
        "behaviour": own,
        "began": time.perf_counter(),
        "gate": threading.Semaphore(own.cores),
        "lock": threading.Lock(),
        "ending": threading.Event(),
    }
    with Quiet(("127.0.0.1", 0), type("Own", (Handler,), attributes)) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}", own
        finally:
            attributes["ending"].set()
            http.shutdown()
            thread.join()
