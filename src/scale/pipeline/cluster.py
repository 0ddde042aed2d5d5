"""Detection spread over the machines of a Ray cluster: strips go out, what was found comes back and is kept here.

The machines need to read the slides and the models, under the same paths; results are written by this one alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from redline.core.ray_cluster import ray_at
from scale.models.opening import CpuPrecision
from scale.models.spec import ModelSpec
from scale.pipeline.cluster_fleet import Fleet
from scale.pipeline.cluster_worker import Order
from scale.pipeline.options import DetectOptions
from scale.pipeline.reports import Listener, Planned, SlideReport
from scale.pipeline.slide_job import Bench

Result = TypeVar("Result")

# While the strips of one are searched, others are planned, merged and written.
_SLIDES_AT_ONCE = 4


@contextmanager
def cluster_bench(
    address: str,
    models: Sequence[ModelSpec],
    options: DetectOptions,
    *,
    device: str = "auto",
    threads: int = 0,
    fallback: bool = True,
    cpu_precision: CpuPrecision = "fp32",
    listener: Listener,
) -> Iterator[tuple[Bench, Callable[[], None]]]:
    """What slides are searched with, and how that is stopped; the workers go when the block ends.

    Args:
        address: Of a Ray cluster, or ``local`` for one of this machine alone, or ``auto`` for the one that runs here.
        models: What looks for what; their files are under the same paths on every machine.
        options: How slides are searched.
        device: ``auto`` takes GPUs where the cluster has any; ``cpu`` or ``cuda``.
        threads: How many cores a worker without a GPU has; 0 takes all of a machine.
        fallback: Whether something else may answer where a TensorRT engine does not work.
        cpu_precision: What ONNX files are computed in on a CPU.
        listener: Is told what happens, by one thread at a time.

    Raises:
        MissingDependencyError: Ray is not installed.
        DeviceError: no cluster answers, it has no room, or a machine of it is not as this one.
        InputError: a model cannot be opened there.
    """
    told = _OneAtATime(listener)
    order = Order(
        models=tuple(replace(model, path=model.path.absolute()) for model in models),
        device=device,
        threads=threads,
        fallback=fallback,
        cpu_precision=cpu_precision,
        reader=options.reader,
        run=options.run,
    )
    with ray_at(address) as ray:
        fleet = Fleet(ray, order, note=told.note)
        try:
            ready = fleet.begin()
            told.note(f"workers on the cluster: {fleet.size}")
            paces = tuple(replace(pace, window_s=pace.window_s / fleet.size) for pace in ready.paces)
            bench = Bench(runners=ready.models, paces=paces, options=options, listener=told, search=fleet.search)
            yield bench, fleet.interrupt
        finally:
            fleet.close()


def side_by_side(calls: Sequence[Callable[[], Result]], stop: Callable[[], None]) -> list[Result]:
    """What some calls give, a few of them at a time; on Ctrl-C they are stopped, waited for, and it goes on its way."""
    with ThreadPoolExecutor(_SLIDES_AT_ONCE, thread_name_prefix="scale slide") as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            stop()
            raise


class _OneAtATime(Listener):
    """Passes on what several threads tell, one after the other."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        with self._lock:
            self._listener.note(text)

    def planned(self, planned: Planned) -> None:
        with self._lock:
            self._listener.planned(planned)

    def windows(self, count: int) -> None:
        with self._lock:
            self._listener.windows(count)

    def finished(self, report: SlideReport) -> None:
        with self._lock:
            self._listener.finished(report)
