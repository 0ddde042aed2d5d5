"""The batches that the cells of a group run on: made once, mapped by every worker."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Self

import redline.data
from redline.core.errors import InputError, RedlineError
from redline.core.plain import Json, to_plain
from redline.core.shared_arrays import Handle, SharedBatches
from redline.core.tensor import Array
from redline.data.images import infer_preprocess
from redline.data.loaders import dummy_batches, open_loader
from redline.measurement.worker import Worker
from redline.study.config import StudyConfig
from redline.study.files import Workshop
from redline.study.plan import CellGroup
from redline.verification.compare import join_answers

#: The key of the batches to verify on.
VERIFICATION = "verification"
_IN_TURN = 4
#: What the loader real takes where no folder is given.
SHIPPED = Path(redline.data.__file__).parent / "assets" / "photos"


class Inputs:
    """Batches of each loader of a group; four of each take turns, so that no cache holds the answer.

    Attributes:
        loaders: Those that have batches.
    """

    #: What a worker calls to make a loader of its own.
    factory = "redline.data.loaders:open_loader"

    def __init__(self, workshop: Workshop, group: CellGroup, config: StudyConfig) -> None:
        self._workshop, self._group, self._config = workshop, group, config
        self._model = workshop.model
        self._shared: dict[str, SharedBatches] = {}
        self._reasons: dict[str, str] = {}
        self._stack = ExitStack()
        self._lock = Lock()
        self.loaders = tuple(dict.fromkeys(cell.loader for cell in group.cells))

    def __enter__(self) -> Self:
        for loader in self.loaders:
            try:
                self._shared[loader] = self._stack.enter_context(SharedBatches.create(self._batches(loader)))
            except RedlineError as error:
                self._reasons[loader] = str(error)
        self.loaders = tuple(loader for loader in self.loaders if loader not in self._reasons)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def reason_against(self, loader: str) -> str | None:
        """Why there are no such batches; None where there are."""
        return self._reasons.get(loader)

    def handle(self, loader: str) -> Handle:
        """What a worker maps them by."""
        return self._shared[loader].handle

    def ask(self, worker: Worker) -> tuple[float, dict[str, Array]]:
        """A worker's answers on the samples to verify on, by output, and the seconds of its first call.

        Raises:
            WorkerError: it fails; says why.
            DataError: there are no samples for this model.
        """
        samples, batch = self._workshop.samples.verification, self._group.batch
        with self._lock:
            if VERIFICATION not in self._shared:
                count = len(samples) if samples.inputs else 1
                batches = [samples.batch(start, batch) for start in range(0, count, batch)]
                self._shared[VERIFICATION] = self._stack.enter_context(SharedBatches.create(batches))
            shared = self._shared[VERIFICATION]
        first = worker.prepare_shared(VERIFICATION, shared.handle, limit_s=0.0)
        answers = [worker.call_shared(VERIFICATION, index) for index in range(len(shared.batches))]
        rows = batch if samples.inputs else None
        return first.first_call_s, join_answers(answers, rows=rows, count=len(samples))

    def loader_arguments(self, loader: str) -> dict[str, Json] | None:
        """How a worker makes a loader that decodes while the model runs; None where there is nothing to decode."""
        if loader != "real":
            return None
        signature = self._model.signature
        preprocess = self._model.description.preprocess or infer_preprocess(signature)
        if preprocess is None:
            raise InputError(
                f"loader real needs a model of images, {self._model.name} takes {signature.inputs[0].shape}"
            )
        return {
            "folder": self._config.data or str(SHIPPED),
            "preprocess": to_plain(preprocess),
            "input_name": signature.inputs[0].name,
            "batch": self._group.batch,
            "threads": self._config.threads,
            "seed": self._config.seed,
        }

    def _batches(self, loader: str) -> list[dict[str, Array]]:
        batch = self._group.batch
        if loader == "samples":
            samples = self._workshop.samples.verification
            return [samples.batch(start, batch) for start in range(0, _IN_TURN * batch, batch)]
        if loader == "dummy":
            return dummy_batches(self._model.signature, batch, _IN_TURN, self._config.seed)
        with open_loader(self.loader_arguments("real") or {}) as real:
            return list(islice(real.batches(), _IN_TURN))
