"""One version of a model while it is served: what was opened, who runs it, and how many use it now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from redline.core.errors import InputError, SignatureError
from redline.core.preprocess import Detection, Preprocess
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.scheduling import Batching, Run, Scheduler, scheduler_of
from redline.serving.statistics import Statistics

if TYPE_CHECKING:
    from redline.serving.metrics import Metrics

_logger = logging.getLogger("redline.serving")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """A model that is open and answers.

    Attributes:
        runs: One for each call that may run at once; the same one several times where it bears that.
        precision: Of most of its layers; what a tune measured, where it is of a tune.
        backend: Its name in the table of backends, or ``torch``.
        platform: Triton's word for it.
        device: ``cpu`` or ``cuda``.
        detection: What its outputs mean, for a detector; None for any other model.
        batch_sizes: Smallest to largest that it was prepared for; empty where it takes any.
        notes: What the user should know.
        close: Frees it; called once, when nothing runs any more.
    """

    runs: tuple[Run, ...]
    signature: Signature
    precision: str
    backend: str
    platform: str
    size_bytes: int
    close: Callable[[], None]
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] | None = None
    detection: Detection | None = None
    device: str = "cpu"
    batch_sizes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


Opener = Callable[[Path], Loaded]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How every model is served.

    Attributes:
        batching: How requests are put together; ``auto`` does it on a GPU and not on a CPU.
        batch_rows: The most rows for ``auto`` where a model takes any batch.
        queue: How many requests may wait for one version.
        keep: How many versions of a name answer: the newest that load.
        allow_signature_change: Whether a version may replace one that takes or gives something else.
    """

    batching: Batching | Literal["auto"] | None = "auto"
    batch_rows: int = 32
    queue: int = 256
    keep: int = 1
    allow_signature_change: bool = False

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise InputError(f"keep is {self.keep} versions, expected 1 or more")


@dataclass(slots=True, kw_only=True, eq=False)
class Version:
    """One version of a model; ``with models.use(name)`` keeps it open while the block runs.

    Attributes:
        batching: How requests are put together; None where each runs alone.
        unwatch: Ends what watches its queue; called when it is freed.
    """

    name: str
    number: str
    loaded: Loaded
    scheduler: Scheduler
    statistics: Statistics
    batching: Batching | None = None
    unwatch: Callable[[], object] = lambda: None
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _uses: int = field(init=False, default=0)
    _retired: bool = field(init=False, default=False)
    _unused: threading.Event = field(init=False, default_factory=threading.Event)

    def acquire(self) -> bool:
        """Count a use; False where it is going away, and then it must not be used."""
        with self._lock:
            if self._retired:
                return False
            self._uses += 1
            return True

    def release(self) -> None:
        """End a use."""
        with self._lock:
            self._uses -= 1
            if self._retired and not self._uses:
                self._unused.set()

    def retire(self) -> None:
        """Let no further use begin."""
        with self._lock:
            self._retired = True
            if not self._uses:
                self._unused.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Wait until its last use has ended and free it; False where that takes too long, and it stays open then."""
        if not self._unused.wait(timeout_s):
            _logger.warning("%s version %s is still in use and stays open", self.name, self.number)
            return False
        if not self.scheduler.close():
            _logger.warning("%s version %s still runs and stays open", self.name, self.number)
            return False
        self.unwatch()
        self.loaded.close()
        return True


def open_version(
    opener: Opener,
    what: tuple[str, str, Path],
    settings: Settings,
    *,
    replaces: Version | None = None,
    metrics: Metrics | None = None,
) -> Version:
    """Open, check and warm up a version.

    Args:
        opener: What opens a model.
        what: Its name, its number and what to open for it.
        settings: How it is served.
        replaces: The version whose clients it gets.
        metrics: Is told of its runs and queue.

    Raises:
        InputError: its signature is not the one of what it replaces.
        Exception: whatever the model raises when it is opened or run on zeros.
    """
    name, number, path = what
    loaded = opener(path)
    try:
        if replaces is not None and not settings.allow_signature_change:
            check_replaces(replaces, loaded.signature)
        warm_up(loaded)
        batching = batching_for(settings.batching, loaded, rows=settings.batch_rows)
        statistics = Statistics(name, number)

        def executed(rows: int, seconds: float) -> None:
            statistics.executed(rows, seconds)
            if metrics is not None:
                metrics.version(name, number).executed(rows)

        scheduler = scheduler_of(loaded.runs, batch=batching, queue=settings.queue, on_executed=executed)
    except BaseException:
        loaded.close()
        raise
    version = Version(
        name=name, number=number, loaded=loaded, scheduler=scheduler, statistics=statistics, batching=batching
    )
    if metrics is not None:
        version.unwatch = metrics.watch(
            name, number, waiting=lambda: scheduler.waiting, running=lambda: scheduler.running
        )
    return version


def warm_up(loaded: Loaded) -> bool:
    """Run each of its runs once on zeros of the smallest batch; False where a size of its input cannot be known."""
    batch = loaded.batch_sizes[0] if loaded.batch_sizes else loaded.signature.fixed_batch or 1
    try:
        inputs = {spec.name: _zeros(spec, batch, loaded.preprocess) for spec in loaded.signature.inputs}
    except SignatureError:
        return False
    for run in {id(run): run for run in loaded.runs}.values():
        run(inputs)
    return True


def _zeros(spec: TensorSpec, batch: int, preprocess: Preprocess | None) -> Array:
    shape = spec.shape
    if preprocess is not None and len(shape) == 4:
        size = (preprocess.height_px, preprocess.width_px)
        image = (*size, preprocess.channels) if preprocess.layout == "nhwc" else (preprocess.channels, *size)
        shape = (shape[0], *(got if isinstance(got, int) else told for got, told in zip(shape[1:], image, strict=True)))
    sizes = TensorSpec(spec.name, shape, spec.dtype).with_batch(batch)
    return np.full(sizes, "", object) if spec.numpy_dtype.kind in "OSUT" else np.zeros(sizes, spec.numpy_dtype)


def batching_for(wanted: Batching | str | None, loaded: Loaded, *, rows: int) -> Batching | None:
    """How this model's requests are put together.

    Args:
        wanted: None never does it, ``auto`` on a GPU only: on a CPU it gains nothing that is worth waiting for.
        loaded: A model is batched only where the first size of every tensor is the same dynamic one: that of the
            detections of an image, for one, is not.
        rows: The most for ``auto`` where the model takes any batch.
    """
    signature = loaded.signature
    firsts = {spec.shape[0] if spec.shape else 0 for spec in (*signature.inputs, *signature.outputs)}
    dynamic = len(firsts) == 1 and isinstance(next(iter(firsts)), str)
    if wanted is None or not dynamic or not signature.inputs:
        return None
    if isinstance(wanted, str):
        if loaded.device == "cpu":
            return None
        wanted = Batching(max_rows=rows)
    largest = loaded.batch_sizes[-1] if loaded.batch_sizes else wanted.max_rows
    return Batching(max_rows=min(wanted.max_rows, largest), max_delay_s=wanted.max_delay_s)


def check_replaces(old: Version, signature: Signature) -> None:
    """Refuse a signature that the clients of ``old`` do not know; names of dynamic sizes may differ.

    Raises:
        InputError: says what differs.
    """
    for kind, before, after in (
        ("input", old.loaded.signature.inputs, signature.inputs),
        ("output", old.loaded.signature.outputs, signature.outputs),
    ):
        theirs, ours = _described(before), _described(after)
        for name in [*theirs, *(name for name in ours if name not in theirs)]:
            if theirs.get(name) != ours.get(name):
                was, now = theirs.get(name, "not there"), ours.get(name, "not there")
                raise InputError(
                    f"its signature differs from that of version {old.number}, which clients use: {kind} {name!r} "
                    f"was {was} and is {now}; serve it under another name, or allow signatures to change"
                )


def _described(specs: tuple[TensorSpec, ...]) -> Mapping[str, str]:
    return {
        spec.name: f"{spec.dtype} [{','.join(str(size) if isinstance(size, int) else '-1' for size in spec.shape)}]"
        for spec in specs
    }
