"""Load tests that never ran: documents as ``redline loadtest`` writes them, from a small queue that is simulated."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from redline.core.plain import from_plain
from redline.loadtesting.results import LoadTest
from redline.loadtesting.summary import Summary, summarize

Document = dict[str, Any]
RATES = (10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0)
USERS = (1, 2, 4, 8)
_ROUNDS = 5
_CORES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers ``_CORES`` requests at once.

    Attributes:
        infer_s: Of the model, a request.
        most: Requests that may wait; more are refused with 503.
    """

    name: str
    infer_s: float
    decode_s: float = 0.004
    encode_s: float = 0.0002
    size_bytes: int = 46_800_000
    rss_bytes: int = 310_000_000
    precision: str = "fp32"
    most: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a window lies among the others."""

    target: int
    order: int
    round: int
    seconds: float


FP32 = Server(name="fp32", infer_s=0.034)
INT8 = Server(name="int8", infer_s=0.015, size_bytes=11_900_000, rss_bytes=214_000_000, precision="int8")


def usual(*servers: Server, **fields: Any) -> Document:
    """Constant and Poisson arrivals and a closed loop, driven past what both can do; ``fields`` replace parts."""
    own = servers or (FP32, INT8)
    return {**document(own, copy.deepcopy(_usual_points(own))), **fields}


def small(*servers: Server, **fields: Any) -> Document:
    """One rate below what both can do."""
    own = servers or (FP32, INT8)
    return {**document(own, [_open(own, 20.0, "constant", 7)]), **fields}


def summary_of(value: Document) -> Summary:
    """What follows from a document."""
    return summarize(from_plain(LoadTest, value, where="a document"))


def changed(change: Callable[[Document], Any], *servers: Server) -> Summary:
    """A small load test with other values; ``change`` edits the document in its place."""
    value = small(*servers)
    change(value)
    return summary_of(value)


def document(servers: tuple[Server, ...], points: list[Document]) -> Document:
    """What stands around the points."""
    return {
        "format": 1,
        "redline": "0.1.0",
        "created": "2026-11-22T14:30:00Z",
        "command": "redline loadtest fp32.onnx int8.onnx --rate 10,20,30,40,60,80,120 --slo-ms 150 -o out/load",
        "tool": "open",
        "seed": 0,
        "environment": {
            "cpu": "Some CPU @ 2.40GHz",
            "flags": ["avx2", "avx512_vnni"],
            "cores_logical": 4,
            "cores_available": 4,
            "memory_bytes": 16_000_000_000,
            "container_cpu_limit": None,
            "container_memory_bytes": None,
            "governor": None,
            "os": "Debian GNU/Linux 12",
            "python": "3.11.7",
            "versions": {"redline": "0.1.0", "onnxruntime": "1.31.0", "numpy": "2.3.0"},
            "load_average": [0.2, 0.1, 0.1],
            "noise": None,
            "variables": {},
        },
        "slo_ms": 150.0,
        "targets": [
            {
                "name": server.name,
                "url": f"http://127.0.0.1:{8001 + number}",
                "path": f"{server.name}.onnx",
                "size_bytes": server.size_bytes,
                "precision": server.precision,
                "model": server.name,
                "version": "1",
            }
            for number, server in enumerate(servers)
        ],
        "body": {"kind": "image/jpeg", "bytes": 77_000, "inputs": 64},
        "points": points,
        "agreement": {
            "inputs": 64,
            "top1": 0.984375,
            "relative_error": 0.021,
            "accuracy": {"fp32": 0.9375, "int8": 0.921875},
            "source": "64 photographs that ship with Redline",
        },
        "notes": ["Both servers ran on this machine, which also made the load."],
    }


@cache
def _usual_points(servers: tuple[Server, ...]) -> list[Document]:
    points = [_open(servers, rate, "constant", number) for number, rate in enumerate(RATES)]
    points += [_open(servers, rate, "poisson", 50 + number) for number, rate in enumerate(RATES)]
    return [*points, *(_closed(servers, users, 100 + number) for number, users in enumerate(USERS))]


def _open(servers: tuple[Server, ...], rate: float, arrivals: str, seed: int) -> Document:
    windows = []
    for place in _turns(len(servers), max(4.0, 120 / rate)):
        rng = np.random.default_rng([seed, place.order])
        seconds = place.seconds
        count = int(rate * seconds)
        gaps = rng.exponential(1 / rate, count) if arrivals == "poisson" else np.full(count, 1 / rate)
        windows.append(_window(servers[place.target], np.cumsum(gaps), rng, place))
    return {"mode": "open", "arrivals": arrivals, "rate": rate, "users": None, "windows": windows}


def _closed(servers: tuple[Server, ...], users: int, seed: int) -> Document:
    windows = []
    for place in _turns(len(servers), 4.0):
        rng = np.random.default_rng([seed, place.order])
        window = _window(servers[place.target], None, rng, place, users=users)
        windows.append({**window, "late_p99_s": None, "response_s": window["service_s"]})
    return {"mode": "closed", "arrivals": None, "rate": None, "users": users, "windows": windows}


def _turns(targets: int, seconds: float) -> list[Place]:
    """Which target has which turn; who begins changes from round to round."""
    places: list[Place] = []
    for number in range(_ROUNDS):
        turn = range(targets)[::-1] if number % 2 else range(targets)
        places += [
            Place(target=target, order=len(places) + before, round=number, seconds=seconds)
            for before, target in enumerate(turn)
        ]
    return places


def _window(
    server: Server,
    arrivals: np.ndarray | None,
    rng: np.random.Generator,
    place: Place,
    users: int = 0,
) -> Document:
    seconds = place.seconds
    drift = float(rng.normal(1.0, 0.01))
    total_s = server.infer_s + server.decode_s + server.encode_s
    free = [0.0] * _CORES
    clients = [0.0] * users
    ends: list[float] = []
    response, queued, refused = [], 0.0, 0
    number = 0
    while True:
        if arrivals is None:
            start = heapq.heappop(clients)
            if start >= seconds:
                break
        elif number >= len(arrivals):
            break
        else:
            start = float(arrivals[number])
        number += 1
        ends = [end for end in ends if end > start]
        if len(ends) >= server.most + _CORES:
            refused += 1
            continue
        begin = max(start, heapq.heappop(free))
        end = begin + total_s * drift * float(rng.lognormal(0.0, 0.06))
        heapq.heappush(free, end)
        ends.append(end)
        queued += begin - start
        response.append(end - start + 0.0012)
        if arrivals is None:
            heapq.heappush(clients, end + 0.0012)
    done = len(response)
    late = float(abs(rng.normal(0.0008, 0.0002)))
    measured_s = round(max(seconds, max(ends, default=0.0)), 6)
    return {
        "target": place.target,
        "order": place.order,
        "round": place.round,
        "start_s": place.order * (seconds + 0.5),
        "seconds": measured_s,
        "elapsed_s": measured_s,
        "lead": 0,
        "sent": done + refused,
        "offered": number,
        "dropped": 0,
        "late_p99_s": late,
        "response_s": [round(value + late / 4, 6) for value in response],
        "service_s": [round(value, 6) for value in response],
        "statuses": {"200": done, **({"503": refused} if refused else {})},
        "server": {
            "queue_s": round(queued, 6),
            "compute_input_s": round(done * server.decode_s * drift, 6),
            "compute_infer_s": round(done * server.infer_s * drift, 6),
            "compute_output_s": round(done * server.encode_s * drift, 6),
            "inferences": done,
            "executions": done,
        },
        "server_cpu_s": round(done * (total_s + 0.001) * drift, 4),
        "server_rss_bytes": server.rss_bytes + place.order * 100_000,
        "client_cpu_s": round(done * 0.0006 + 0.02, 4),
        "client_rss_bytes": 61_000_000,
    }
