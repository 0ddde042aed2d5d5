"""One inference from its bytes to its answer: decode, queue, run, encode, each timed and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from redline.core.errors import InputError, RequestError
from redline.core.tensor import Array, Signature
from redline.serving.answers import Reply
from redline.serving.limits import Limits
from redline.serving.metrics import Metrics
from redline.serving.models import Models
from redline.serving.scheduling import Timing
from redline.serving.shadow import Shadow
from redline.serving.versions import Version

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Spent:
    """Where a request's time went until its answer was to be encoded, in seconds."""

    decode_s: float
    queue_s: float
    infer_s: float


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    """What a model is to be run on.

    Attributes:
        rows: How many answers are wanted.
        encode: Makes the answer of the outputs.
        deadline_s: How long the client waits, from the moment its request was whole.
    """

    inputs: Mapping[str, Array]
    rows: int
    encode: Callable[[Mapping[str, Array], Spent], Reply]
    deadline_s: float | None = None


class Inference:
    """Runs the models that are served on what is asked."""

    def __init__(self, models: Models, *, limits: Limits, metrics: Metrics, shadows: Mapping[str, Shadow]) -> None:
        self._models = models
        self._limits = limits
        self._metrics = metrics
        self._shadows = shadows

    def answer(self, name: str, version: str | None, decode: Callable[[Version], Asked]) -> Reply:
        """Answer one request with a model, the newest version where none is named; ``decode`` reads the request.

        Raises:
            RequestError: what the client has to be told.
        """
        begun = time.perf_counter()
        with self._models.use(name, version) as served:
            status = 500
            try:
                reply = self._answered(served, decode, begun)
                status = reply.status
            except RequestError as error:
                status = error.status
                raise
            finally:
                if status >= 400:
                    seconds = time.perf_counter() - begun
                    served.statistics.failure(status, seconds)
                    self._metrics.version(served.name, served.number).failure(status, seconds)
        return reply

    def _answered(self, served: Version, decode: Callable[[Version], Asked], begun: float) -> Reply:
        until = time.monotonic() + self._limits.deadline_s
        asked = decode(served)
        if asked.deadline_s is not None:
            until = min(until, time.monotonic() + asked.deadline_s)
        decode_s = time.perf_counter() - begun
        outputs, timing = self._run(served, asked, until)
        spent = Spent(decode_s=decode_s, queue_s=timing.queue_s, infer_s=timing.run_s)
        ran = time.perf_counter()
        reply = asked.encode(outputs, spent)
        ended = time.perf_counter()
        served.statistics.success(timing.queue_s, decode_s, timing.run_s, ended - ran, asked.rows)
        self._metrics.version(served.name, served.number).success(
            timing.queue_s, decode_s, timing.run_s, ended - ran, ended - begun
        )
        shadow = self._shadows.get(served.name)
        if shadow is not None:
            shadow.offer(asked.inputs, outputs)
        return reply

    def _run(self, served: Version, asked: Asked, until: float) -> tuple[dict[str, Array], Timing]:
        signature = served.loaded.signature
        rows = asked.rows if signature.dynamic_batch else None
        try:
            return served.scheduler.run(asked.inputs, rows=rows, deadline=until)
        except RequestError:
            raise
        except InputError as error:
            raise RequestError(str(error)) from error
        except Exception as error:
            if not _depends_on_values(signature):
                raise
            _log.warning("%s version %s did not run on a request's inputs", served.name, served.number, exc_info=True)
            raise RequestError(
                f"model '{served.name}' does not run on these inputs; other sizes or values may"
            ) from error


def limits_of(served: Version, limits: Limits) -> Limits:
    """The server's limits, or narrower ones where a model was prepared for fewer rows."""
    prepared = served.loaded.batch_sizes
    if not prepared or prepared[-1] >= limits.batch_rows:
        return limits
    return replace(limits, batch_rows=prepared[-1])


def _depends_on_values(signature: Signature) -> bool:
    """Whether inputs that fit the signature may still be too small, too large or out of range for the model."""
    return any(
        spec.numpy_dtype.kind not in "fb" or any(isinstance(size, str) for size in spec.shape[1:])
        for spec in signature.inputs
    )
