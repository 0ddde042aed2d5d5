"""What Prometheus scrapes: requests, where their time went, queues, shadows.

Each server has a registry of its own. The series of one model version are looked up once and kept, so that counting a
request costs a few microseconds.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

_SECONDS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RELATIVE_ERROR = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1)
_BEYOND = 10.0  # stands for an error that is no number: above every bucket, and the sum stays a number
_PHASES = ("queue", "decode", "infer", "encode", "total")
_VERSION = ("model", "version")
_SHADOW = ("model", "reference")
_Key = tuple[str, str]


class Metrics(Collector):
    """Everything that one server counts.

    Attributes:
        registry: Its own, so that a process may hold several servers.
        content_type: Of :meth:`text`.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.requests = counter(
            "redline_requests_total", "Requests answered, by the HTTP status of the answer.", *_VERSION, "code"
        )
        self.rejections = counter("redline_rejected_total", "Requests turned away, by reason.", "reason")
        labels = (*_VERSION, "precision", "backend")
        self.model_info = Gauge(
            "redline_model_info", "1 for each model version that is served.", labels, registry=registry
        )
        self.shadow_requests = counter(
            "redline_shadow_requests_total", "Requests that a reference model has answered too.", *_SHADOW
        )
        self.shadow_disagreements = counter(
            "redline_shadow_disagreements_total",
            "Requests for which the model and its reference gave another first class.",
            *_SHADOW,
        )
        self.shadow_error = Histogram(
            "redline_shadow_error",
            "Relative error of an answer against the reference's.",
            _SHADOW,
            registry=registry,
            buckets=_RELATIVE_ERROR,
        )
        self.shadow_dropped = counter(
            "redline_shadow_dropped_total", "Sampled requests that the reference had no time for.", *_SHADOW
        )
        self._lock = threading.Lock()
        self._versions: dict[_Key, VersionMetrics] = {}
        self._infos: dict[_Key, tuple[str, str]] = {}
        self._watched: dict[object, tuple[_Key, Callable[[], int], Callable[[], int]]] = {}
        registry.register(self)
        ProcessCollector(registry=registry)

    def version(self, model: str, version: str) -> VersionMetrics:
        """The series of one model version; for names that are served, never for what a client typed."""
        key = (model, version)
        found = self._versions.get(key)
        if found is not None:
            return found
        with self._lock:
            return self._versions.setdefault(key, VersionMetrics(self, model, version))

    def served(self, model: str, version: str, *, precision: str, backend: str) -> None:
        """A version is served from now on; what was said of it before is replaced."""
        with self._lock:
            self._forget_info(model, version)
            self._infos[model, version] = (precision, backend)
            self.model_info.labels(model, version, precision, backend).set(1)

    def forget(self, model: str, version: str) -> None:
        """A version is gone, with its series."""
        with self._lock:
            self._forget_info(model, version)
            found = self._versions.pop((model, version), None)
        if found is not None:
            found.remove()

    def watch(
        self, model: str, version: str, *, waiting: Callable[[], int], running: Callable[[], int]
    ) -> Callable[[], None]:
        """Ask these two for the gauges at each scrape, until the returned function is called.

        While an old and a new copy of a version are both watched, their numbers are added.
        """
        ticket = object()
        with self._lock:
            self._watched[ticket] = ((model, version), waiting, running)

        def stop() -> None:
            with self._lock:
                self._watched.pop(ticket, None)

        return stop

    def rejected(self, reason: str) -> None:
        """A request was turned away; ``reason`` is one of the server's few words, never a client's text."""
        self.rejections.labels(reason).inc()

    def shadow(self, model: str, reference: str) -> ShadowMetrics:
        """The series of one model beside its reference."""
        return ShadowMetrics(self, model, reference)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What is asked for at each scrape: queues, executions in progress, the histograms of all versions."""
        with self._lock:
            versions, watched = list(self._versions.values()), list(self._watched.values())
        depth: Tally[_Key] = Tally()
        flight: Tally[_Key] = Tally()
        for labels, waiting, running in watched:
            depth[labels] += waiting()
            flight[labels] += running()
        for name, text, values in (
            ("redline_queue_depth", "Requests that wait for the model.", depth),
            ("redline_in_flight", "Executions of the model in progress.", flight),
        ):
            family = GaugeMetricFamily(name, text, labels=_VERSION)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family
        seconds = HistogramMetricFamily(
            "redline_request_seconds",
            "Time of a request in seconds, by phase: waiting in the queue, decoding the body, the model itself, "
            "encoding the answer, and the total.",
            labels=(*_VERSION, "phase"),
        )
        rows = HistogramMetricFamily(
            "redline_batch_rows",
            "Rows of each execution of the model; several requests share one where batching is on.",
            labels=_VERSION,
        )
        for version in versions:
            version.collect(seconds, rows)
        yield seconds
        yield rows

    def _forget_info(self, model: str, version: str) -> None:
        known = self._infos.pop((model, version), None)
        if known is not None:
            self.model_info.remove(model, version, *known)


class VersionMetrics:
    """The series of one model version, looked up once.

    Its histograms are plain lists under one lock: six of the library's own would take a tenth of a small request.
    """

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        self._codes: dict[int, Counter] = {}
        self._lock = threading.Lock()
        self._phases = tuple(_Histogram(_SECONDS) for _ in _PHASES)
        self._queue, self._decode, self._infer, self._encode, self._total = self._phases
        self._rows = _Histogram(_ROWS)

    def success(
        self, queue_s: float, decode_s: float, infer_s: float, encode_s: float, total_s: float | None = None
    ) -> None:
        """A request was answered; without ``total_s`` the total is the sum."""
        with self._lock:
            self._queue.observe(queue_s)
            self._decode.observe(decode_s)
            self._infer.observe(infer_s)
            self._encode.observe(encode_s)
            self._total.observe(queue_s + decode_s + infer_s + encode_s if total_s is None else total_s)
        self._count(200)

    def failure(self, status: int, seconds: float) -> None:
        """A request was answered with an error."""
        with self._lock:
            self._total.observe(seconds)
        self._count(status)

    def executed(self, rows: int) -> None:
        """The model ran once, on this many rows."""
        with self._lock:
            self._rows.observe(rows)

    def collect(self, seconds: HistogramMetricFamily, rows: HistogramMetricFamily) -> None:
        """Add what was counted so far to these two families."""
        with self._lock:
            for name, phase in zip(_PHASES, self._phases, strict=True):
                seconds.add_metric((*self._labels, name), *phase.read())
            rows.add_metric(self._labels, *self._rows.read())

    def remove(self) -> None:
        """Take the counters out of the registry."""
        for code in list(self._codes):
            with suppress(KeyError):
                self._metrics.requests.remove(*self._labels, str(code))

    def _count(self, code: int) -> None:
        counter = self._codes.get(code)
        if counter is None:
            counter = self._codes[code] = self._metrics.requests.labels(*self._labels, code)
        counter.inc()


class _Histogram:
    """How many values fell into each bucket, and their sum; the caller locks."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative buckets, each with its upper bound, and the sum."""
        names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class ShadowMetrics:
    """The series of one model beside its reference, looked up once."""

    def __init__(self, metrics: Metrics, model: str, reference: str) -> None:
        self._requests = metrics.shadow_requests.labels(model, reference)
        self._disagreements = metrics.shadow_disagreements.labels(model, reference)
        self._error = metrics.shadow_error.labels(model, reference)
        self._dropped = metrics.shadow_dropped.labels(model, reference)

    def compared(self, *, disagreed: bool, relative_error: float) -> None:
        """The reference answered too; an error that is no finite number counts as a large one."""
        self._requests.inc()
        if disagreed:
            self._disagreements.inc()
        self._error.observe(relative_error if math.isfinite(relative_error) else _BEYOND)

    def dropped(self) -> None:
        """A sampled request found the reference busy."""
        self._dropped.inc()
