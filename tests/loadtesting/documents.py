"""Load tests that never ran, out of a few numbers."""

from __future__ import annotations

from typing import Any

from redline.loadtesting.results import AnswerAgreement, Body, LoadTest, Point, ServerSplit, Target, Window
from redline.measurement.environment import fingerprint


def target(name: str, **fields: Any) -> Target:
    values: dict[str, Any] = {"path": None, "size_bytes": 1000, "precision": None, "model": "m", "version": "1"}
    return Target(name=name, url="http://127.0.0.1:1", **{**values, **fields})


def window(number: int, round_: int, response_s: list[float], seconds: float = 1.0, **fields: Any) -> Window:
    values: dict[str, Any] = {
        "order": 2 * round_ + number,
        "start_s": float(round_),
        "elapsed_s": seconds,
        "lead": 0,
        "sent": len(response_s),
        "offered": len(response_s),
        "dropped": 0,
        "late_p99_s": None,
        "service_s": tuple(response_s),
        "statuses": {"200": len(response_s)},
        "server": None,
        "server_cpu_s": 0.5,
        "server_rss_bytes": 10_000_000,
        "client_cpu_s": 0.1,
        "client_rss_bytes": 20_000_000,
    }
    known = {**values, **fields}
    return Window(target=number, round=round_, seconds=seconds, response_s=tuple(response_s), **known)


def closed(users: int, rps: tuple[int, ...], rounds: int = 5, **fields: Any) -> Point:
    """A closed loop in which target i answers ``rps[i]`` requests a second, a little differently each round."""
    windows = [
        window(number, round_, [users / rate] * rate, 1.0 + 0.01 * ((round_ + number) % 3), **fields)
        for round_ in range(rounds)
        for number, rate in enumerate(rps)
    ]
    return Point(mode="closed", users=users, windows=tuple(windows))


def opened(rate: float, capacity: tuple[float, ...], rounds: int = 5, arrivals: str = "constant") -> Point:
    """An open loop for targets that answer so many requests a second at most, one at a time."""
    windows = []
    for round_ in range(rounds):
        for number, most in enumerate(capacity):
            free, response = 0.0, []
            for index in range(int(rate)):
                due = index / rate
                free = max(free, due) + 1 / most
                response.append(free - due)
            service = [1 / most] * len(response)
            windows.append(window(number, round_, response, max(1.0, free), service_s=tuple(service), late_p99_s=0.0))
    return Point(mode="open", arrivals=arrivals, rate=rate, windows=tuple(windows))  # type: ignore[arg-type]


def split(inferences: int, infer_s: float) -> ServerSplit:
    return ServerSplit(
        queue_s=0.1,
        compute_input_s=0.2,
        compute_infer_s=infer_s,
        compute_output_s=0.05,
        inferences=inferences,
        executions=inferences // 2,
    )


def document(points: list[Point], names: tuple[str, ...] = ("fp32", "int8"), **fields: Any) -> LoadTest:
    values: dict[str, Any] = {"slo_ms": None, "agreement": None, "notes": ()}
    return LoadTest(
        command="redline loadtest",
        created="2026-11-22T14:00:00+00:00",
        tool="open",
        seed=0,
        environment=fingerprint(),
        targets=tuple(target(name) for name in names),
        body=Body(kind="binary", bytes=100, inputs=2),
        points=tuple(points),
        redline="0.1.0",
        **{**values, **fields},
    )


AGREEMENT = AnswerAgreement(
    inputs=200, top1=0.98, relative_error=0.02, accuracy={"fp32": 0.9, "int8": 0.89}, source="a folder"
)
