"""What one model version has done since it was loaded, in the shape of Triton's statistics extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

RECENT = 512


class Took(TypedDict):
    """How often something happened, with the nanoseconds it took in all."""

    count: int
    ns: int


class BatchStat(TypedDict):
    """What was run on so many rows at once."""

    batch_size: int
    compute_input: Took
    compute_infer: Took
    compute_output: Took


class ModelStat(TypedDict):
    """One ``model_stat`` of the statistics extension."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: dict[str, Took]
    response_stats: dict[str, Took]
    batch_stats: list[BatchStat]
    memory_usage: list[str]


class Snapshot(TypedDict):
    """What a page shows; ``recent`` has the last answers as (seconds since 1970, seconds taken), oldest first."""

    model: str
    version: str
    requests: int
    failures: int
    statuses: dict[str, int]
    rows: int
    executions: int
    batches: dict[str, int]
    recent: list[tuple[float, float]]


@dataclass(slots=True)
class _Duration:
    """How often something happened, with the seconds it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def to_v2(self) -> Took:
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


class Statistics:
    """Counts and times of one model version; any thread may tell it or ask it."""

    def __init__(self, model: str, version: str, *, now: Callable[[], float] = time.time) -> None:
        self.model = model
        self.version = version
        self._now = now
        self._lock = threading.Lock()
        self._last_s = 0.0
        self._rows = 0
        self._executions = 0
        self._success, self._fail = _Duration(), _Duration()
        self._queue, self._decode, self._infer, self._encode = (_Duration() for _ in range(4))
        self._batches: defaultdict[int, _Duration] = defaultdict(_Duration)
        self._statuses: Counter[int] = Counter()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def success(self, queue_s: float, decode_s: float, infer_s: float, encode_s: float, rows: int) -> None:
        """A request was answered; ``infer_s`` is that of the batch it ran in."""
        total_s = queue_s + decode_s + infer_s + encode_s
        now_s = self._now()
        with self._lock:
            self._last_s = now_s
            self._rows += rows
            self._success.add(total_s)
            self._queue.add(queue_s)
            self._decode.add(decode_s)
            self._infer.add(infer_s)
            self._encode.add(encode_s)
            self._recent.append((now_s, total_s))

    def failure(self, status: int, seconds: float) -> None:
        """A request was answered with an error."""
        with self._lock:
            self._fail.add(seconds)
            self._statuses[status] += 1

    def executed(self, rows: int, infer_s: float = 0.0) -> None:
        """The model ran once, on this many rows, for one request or for several."""
        with self._lock:
            self._executions += 1
            self._batches[rows].add(infer_s)

    def to_v2(self) -> ModelStat:
        """One ``model_stat`` of the statistics extension: cumulative, times in nanoseconds.

        ``compute_input`` is the time to decode requests, ``compute_output`` to encode answers. Batches have neither, as
        each request is decoded by itself. There is no cache.
        """
        with self._lock:
            return {
                "name": self.model,
                "version": self.version,
                "last_inference": int(self._last_s * 1000),
                "inference_count": self._rows,
                "execution_count": self._executions,
                "inference_stats": {
                    "success": self._success.to_v2(),
                    "fail": self._fail.to_v2(),
                    "queue": self._queue.to_v2(),
                    "compute_input": self._decode.to_v2(),
                    "compute_infer": self._infer.to_v2(),
                    "compute_output": self._encode.to_v2(),
                    "cache_hit": {"count": 0, "ns": 0},
                    "cache_miss": {"count": 0, "ns": 0},
                },
                "response_stats": {},
                "batch_stats": [
                    {
                        "batch_size": rows,
                        "compute_input": {"count": batch.count, "ns": 0},
                        "compute_infer": batch.to_v2(),
                        "compute_output": {"count": batch.count, "ns": 0},
                    }
                    for rows, batch in sorted(self._batches.items())
                ],
                "memory_usage": [],
            }

    def snapshot(self) -> Snapshot:
        """What a page shows."""
        with self._lock:
            return {
                "model": self.model,
                "version": self.version,
                "requests": self._success.count,
                "failures": self._fail.count,
                "statuses": {str(status): count for status, count in sorted(self._statuses.items())},
                "rows": self._rows,
                "executions": self._executions,
                "batches": {str(rows): batch.count for rows, batch in sorted(self._batches.items())},
                "recent": list(self._recent),
            }
