"""Models opened for the pipeline, and how long each takes for a window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from redline.core.files import sha256_of
from redline.core.session import SupportsStream
from scale.models.loaded import OpenModel
from scale.models.opening import open_model
from scale.models.spec import ModelSpec
from scale.pipeline.plan import Plan, Strip
from scale.pipeline.runners import DetectorRunner, ModelInfo, OverlappedRunner, Runner

#: Larger batches are no faster on a CPU, where they only take memory.
CPU_BATCH = 4
_ON_CPU = ("onnxruntime", "openvino")


@contextmanager
def open_runners(
    specs: Sequence[ModelSpec],
    *,
    device: str = "auto",
    threads: int = 0,
    fallback: bool = True,
    opened: Callable[[OpenModel], None] | None = None,
) -> Iterator[tuple[Runner, ...]]:
    """Open models, one session each, and close them when the block ends.

    Args:
        specs: The models.
        device: Where they run.
        threads: Of runtimes on the CPU; 0 lets them choose.
        fallback: Whether something else may answer where an engine does not work.
        opened: Is told of each.
    """
    with ExitStack() as stack:
        runners = []
        for spec in specs:
            model = open_model(spec, device=device, threads=threads, fallback=fallback)
            stack.callback(model.close)
            if opened is not None:
                opened(model)
            runners.append(runner_of(model))
        yield tuple(runners)


def runner_of(model: OpenModel, *, name: str | None = None, window_px: int | None = None) -> DetectorRunner:
    """An open model as the pipeline sees it, under another name and with other windows where they are given."""
    spec = model.spec
    identity = {
        "sha256": sha256_of(model.origin.path),
        "runtime": model.origin.runtime,
        "precision": model.origin.precision,
        "classes": {str(index): name for index, name in sorted(model.class_names.items())},
        "confidence": spec.confidence,
        "iou": spec.iou,
    }
    info = ModelInfo(name=name or spec.name, class_names=model.names, identity=identity)
    batch = min(spec.batch, CPU_BATCH) if model.origin.runtime in _ON_CPU else spec.batch
    how = {"window_px": window_px or spec.window_px, "batch": batch}
    session = model.detector.session
    if isinstance(session, SupportsStream):
        return OverlappedRunner(model, info, session, **how)
    return DetectorRunner(model, info, **how)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a model takes for one window, in a full batch."""

    name: str
    window_s: float


def calibrate(
    runners: Sequence[Runner], *, calls: int = 2, clock: Callable[[], float] = time.perf_counter
) -> tuple[Pace, ...]:
    """Time a few calls of each model after one that warms it up."""
    paces = []
    for runner in runners:
        sealed = runner.seal([None] * runner.shape.batch)
        inputs = sealed.inputs
        runner.infer(inputs)
        start = clock()
        for _ in range(calls):
            runner.infer(inputs)
        if sealed.done is not None:
            sealed.done()
        paces.append(Pace(name=runner.info.name, window_s=(clock() - start) / calls / runner.shape.batch))
    return tuple(paces)


def estimate_s(plan: Plan, strips: Sequence[Strip], paces: Sequence[Pace]) -> float:
    """Seconds that the models need for some strips, where one device is theirs in turn."""
    seen = plan.inferences_of(strips)
    return sum(seen[pace.name] * pace.window_s for pace in paces)
