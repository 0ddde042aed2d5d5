"""Models opened for the pipeline, and how long each takes for a window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from redline.core.files import sha256_of
from redline.core.host import available_cores
from redline.core.plain import Json
from redline.core.session import SupportsStream
from scale.models.loaded import OpenModel
from scale.models.opening import ON_CPU, CpuPrecision, open_model
from scale.models.spec import ModelSpec
from scale.pipeline.plan import Plan, Strip
from scale.pipeline.runners import DetectorRunner, ModelInfo, OverlappedRunner, Runner, calls_of

# Larger batches are no faster on a CPU, where they only take memory: one window of 640 px in a call, four small ones.
_CPU_BATCH, _CPU_CALL_PX = 4, 640 * 640
# Each call holds the activations of a batch; from there on calls take several cores.
_LEAST_CALLS, _MOST_CALLS = 4, 8


@contextmanager
def open_runners(
    specs: Sequence[ModelSpec],
    *,
    device: str = "auto",
    threads: int = 0,
    fallback: bool = True,
    cpu_precision: CpuPrecision = "fp32",
    opened: Callable[[OpenModel], None] | None = None,
) -> Iterator[tuple[Runner, ...]]:
    """Open models, one session each, and close them when the block ends.

    Args:
        specs: The models.
        device: Where they run.
        threads: Of runtimes on the CPU; 0 takes all cores: the session of an ONNX file is called by several threads at
            one time, as no core waits for another then.
        fallback: Whether something else may answer where an engine does not work.
        cpu_precision: What ONNX files are computed in on the CPU.
        opened: Is told of each.
    """
    calls = 1 if threads else calls_on(available_cores())
    with ExitStack() as stack:
        runners = []
        for spec in specs:
            model = open_model(
                spec, device=device, threads=threads, cpu_calls=calls, fallback=fallback, cpu_precision=cpu_precision
            )
            stack.callback(model.close)
            if opened is not None:
                opened(model)
            runners.append(runner_of(model, calls=calls if model.runtime in ON_CPU else 1))
        yield tuple(runners)


def calls_on(count: int) -> int:
    """How many calls at one time share so many cores: many, and so that few cores are idle.

    >>> [(calls_on(count), count // calls_on(count)) for count in (1, 2, 8, 11, 12, 16)]
    [(1, 1), (2, 1), (8, 1), (5, 2), (6, 2), (8, 2)]
    """
    possible = range(min(count, _LEAST_CALLS), min(count, _MOST_CALLS) + 1)
    return max(possible, key=lambda calls: (count // calls * calls, calls))


def runner_of(
    model: OpenModel, *, name: str | None = None, window_px: int | None = None, calls: int = 1
) -> DetectorRunner:
    """An open model as the pipeline sees it, under another name and with other windows where they are given.

    Args:
        model: It.
        name: Instead of the spec's.
        window_px: Instead of the spec's.
        calls: How many threads may call its session at one time.
    """
    spec = model.spec
    identity: dict[str, Json] = {
        "sha256": sha256_of(model.origin.path),
        "runtime": model.origin.runtime,
        "precision": model.origin.precision,
        "classes": {str(index): name for index, name in sorted(model.class_names.items())},
        "confidence": spec.confidence,
        "iou": spec.iou,
        "max_detections": spec.max_detections,
    }
    info = ModelInfo(
        name=name or spec.name, class_names=model.names, identity=identity, max_detections=spec.max_detections
    )
    height, width = model.detector.input_hw
    most = max(1, min(_CPU_BATCH, _CPU_CALL_PX // (height * width)))
    batch = min(spec.batch, most) if model.origin.runtime in ON_CPU else spec.batch
    how: dict[str, int] = {"window_px": window_px or spec.window_px, "batch": batch}
    session = model.detector.session
    if isinstance(session, SupportsStream):
        return OverlappedRunner(model, info, session, **how)
    return DetectorRunner(model, info, calls=calls, **how)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a model takes for one window, in a full batch."""

    name: str
    window_s: float


def calibrate(
    runners: Sequence[Runner], *, calls: int = 2, clock: Callable[[], float] = time.perf_counter
) -> tuple[Pace, ...]:
    """Time a few calls of each model after one that warms it up; as many at one time as there may be."""
    paces = []
    for runner in runners:
        sealed = runner.seal([None] * runner.shape.batch)
        threads = calls_of(runner)
        with ThreadPoolExecutor(threads) as pool:
            runner.infer(sealed.inputs)
            start = clock()
            done = [pool.submit(runner.infer, sealed.inputs) for _ in range(calls * threads)]
            for one in done:
                one.result()
            seconds = clock() - start
        if sealed.done is not None:
            sealed.done()
        paces.append(Pace(name=runner.info.name, window_s=seconds / calls / threads / runner.shape.batch))
    return tuple(paces)


def estimate_s(plan: Plan, strips: Sequence[Strip], paces: Sequence[Pace]) -> float:
    """Seconds that the models need for some strips, where one device is theirs in turn."""
    seen = plan.inferences_of(strips)
    return sum(seen[pace.name] * pace.window_s for pace in paces)
