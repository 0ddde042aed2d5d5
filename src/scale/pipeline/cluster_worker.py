"""What runs on a machine of a cluster: models that are opened once, and strips of slides that are searched with them.

Nothing is written here. What goes wrong is a value, since an error's class may not survive the way back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from redline.core.errors import DataError, RedlineError
from redline.core.host import available_cores
from redline.core.plain import JsonObject
from scale.models.loaded import OpenModel
from scale.models.opening import CpuPrecision, FallbackWarning
from scale.models.spec import ModelSpec
from scale.pipeline.batches import StripResult
from scale.pipeline.cluster_likeness import processor, software
from scale.pipeline.models import Pace, calibrate, open_runners
from scale.pipeline.plan import ModelShape, Plan
from scale.pipeline.reader_pool import ReaderPool, reader_pool
from scale.pipeline.run import run_strips
from scale.pipeline.run_options import RunOptions
from scale.pipeline.runners import ModelInfo, Runner
from scale.pipeline.shards import differences
from scale.pipeline.slide_job import slide_identity
from scale.pipeline.timing import StageClock, Timing
from scale.slides.base import Slide
from scale.slides.cache import TileCache
from scale.slides.opening import Reader, open_slide

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What every worker is to be ready for.

    Attributes:
        models: With paths from the root.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: Of runtimes on the CPU; 0 takes all cores that the worker has.
        fallback: Whether something else may answer where a TensorRT engine does not work.
        cpu_precision: What ONNX files are computed in on the CPU.
        reader: Of slides.
        run: How the work is spread inside of a worker.
    """

    models: tuple[ModelSpec, ...]
    device: str
    threads: int
    fallback: bool
    cpu_precision: CpuPrecision
    reader: Reader
    run: RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class FarModel:
    """A model that is open on a worker."""

    info: ModelInfo
    shape: ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a worker has opened.

    Attributes:
        files: The file that answers, by the model's name.
        notes: What the user should know.
        on_gpu: Whether a GPU runs any of it for certain, or may.
        processor: Of the machine.
    """

    models: tuple[FarModel, ...]
    paces: tuple[Pace, ...]
    files: Mapping[str, str]
    notes: tuple[str, ...]
    on_gpu: bool
    processor: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideWork:
    """A slide and its plan.

    Attributes:
        path: From the root; the same on every machine.
        identity: As :func:`scale.pipeline.slide_job.slide_identity` gives it where the slide was planned.
    """

    path: Path
    identity: JsonObject
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """Strips that are finished."""

    results: tuple[StripResult, ...]
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why there is no answer, in one line."""

    reason: str


class Worker:
    """Has models open and searches strips with them; one call at a time, and one slide open at a time."""

    def __init__(self, cores: int) -> None:
        """Take so many cores of the machine."""
        self._cores = cores
        self._stack = ExitStack()
        self._runners: tuple[Runner, ...] = ()
        self._run = RunOptions()
        self._reader: Reader = "auto"
        self._pool: ReaderPool | None = None
        self._slide: _Opened | None = None

    def software(self) -> dict[str, str]:
        """What is installed on this machine; asked before anything is sent that only the same software can read."""
        return software()

    def open(self, order: Order) -> Ready | Refused:
        """Open the models, which stay open."""
        return _as_value(lambda: self._open(order))

    def search(self, work: SlideWork, strips: Sequence[int]) -> Searched | Refused:
        """Search some strips of a slide."""
        return _as_value(lambda: self._search(work, strips))

    def _open(self, order: Order) -> Ready:
        self._reader = order.reader
        self._run = self._own_share(order.run)
        opened: list[OpenModel] = []
        with warnings.catch_warnings():  # they are told where the user is
            warnings.simplefilter("ignore", FallbackWarning)
            self._runners = self._stack.enter_context(
                open_runners(
                    order.models,
                    device="cpu" if order.device == "cpu" else "auto",  # who sent it here has counted the GPUs
                    threads=order.threads or self._threads(),
                    fallback=order.fallback,
                    cpu_precision=order.cpu_precision,
                    opened=opened.append,
                )
            )
        self._pool = self._stack.enter_context(reader_pool(self._run, self._runners))
        return Ready(
            models=tuple(FarModel(info=runner.info, shape=runner.shape) for runner in self._runners),
            paces=calibrate(self._runners),
            files={model.spec.name: str(model.origin.path) for model in opened},
            notes=tuple(note for model in opened for note in model.notes),
            on_gpu=any(model.origin.on_gpu or model.runtime == "torch" for model in opened),
            processor=processor(),
        )

    def _threads(self) -> int:
        """0, which lets a runtime choose as it does without a cluster, where the worker has the whole machine."""
        return 0 if self._cores >= available_cores() else self._cores

    def _own_share(self, run: RunOptions) -> RunOptions:
        """The threads that a run without a cluster would have, as far as the worker's cores go."""
        share = min(1.0, self._cores / available_cores())
        decoders = run.decoders or max(1, int(share * run.decoder_threads))
        return replace(run, readers=run.readers or min(self._cores, run.reader_threads), decoders=decoders)

    def _search(self, work: SlideWork, strips: Sequence[int]) -> Searched:
        opened, clock = self._opened(work), StageClock()
        chosen = [work.plan.strips[strip] for strip in strips]
        before = opened.cache.stats()
        found = run_strips(
            opened.slide, work.plan, chosen, self._runners, options=self._run, clock=clock, pool=self._pool
        )
        with closing(found):
            results = tuple(sorted(found, key=lambda result: result.strip))
        after = opened.cache.stats()
        clock.add("decode", after.decode_s - before.decode_s, count=after.misses - before.misses)
        return Searched(results=results, timing=clock.report(work.plan.inferences_of(chosen)))

    def _opened(self, work: SlideWork) -> _Opened:
        """The slide, open from the last time or opened now.

        Raises:
            DataError: what is under its path here is not what was planned.
        """
        key = (work.path, repr(work.identity))
        if self._slide is not None and self._slide.key == key:
            return self._slide
        if self._slide is not None:
            self._slide.slide.close()
            self._slide = None
        cache = TileCache(work.plan.cache_bytes)
        slide = open_slide(work.path, reader=self._reader, cache=cache)
        other = differences(dict(work.identity), slide_identity(slide))
        if other:
            slide.close()
            raise DataError(f"{work.path} is not the slide that was planned: {'; '.join(other)}")
        self._slide = _Opened(key=key, slide=slide, cache=cache)
        return self._slide


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    key: tuple[Path, str]
    slide: Slide
    cache: TileCache


def _as_value(call: Callable[[], Answer]) -> Answer | Refused:
    try:
        return call()
    except (RedlineError, OSError) as error:
        return Refused(reason=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001 (the edge of a machine: whoever asked decides what follows)
        return Refused(reason=" ".join(f"internal error, {type(error).__name__}: {error}".split()))
