"""INT8 calibrators of TensorRT 10 and older, over samples that lie in a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from redline.backends.cuda import DeviceMemory
from redline.backends.tensorrt.library import Library
from redline.core.errors import BuildError, InputError
from redline.core.files import write_whole
from redline.core.samples import Samples
from redline.core.tensor import Signature

CLASSES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


def cache_key(library: Library, model_sha256: str, samples: Samples, method: str, batch: int) -> str:
    """Equal for equal model, data, method, batch and library."""
    digest = hashlib.sha256(f"{library.version} {model_sha256} {method} {batch}".encode())
    for name, array in sorted(samples.inputs.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


class Calibration:
    """Samples in batches on the GPU, and what was learnt from them in a file.

    The batch must be the OPT size of the calibration profile: TensorRT reads as much as that size says, whatever the
    calibrator gave it.
    """

    def __init__(self, samples: Samples | None, signature: Signature, *, batch: int, cache: Path) -> None:
        """Prepare it.

        Args:
            samples: None where ``cache`` is there already.
            signature: Of the model.
            batch: Samples at a time.
            cache: The file of what was learnt.

        Raises:
            InputError: there are fewer samples than one batch, or they do not fit the model.
        """
        first = samples.batch(0, batch) if samples is not None else {}
        if samples is not None:
            signature.check(first)
            if len(samples) < batch:
                raise InputError(f"got {len(samples)} calibration samples, expected at least one batch of {batch}")
        self.batch = batch
        self.used_cache = False
        self.cache = cache
        self._samples = samples
        self._memory = {name: DeviceMemory(array.nbytes) for name, array in first.items()}
        self._given = 0
        self._failure: BaseException | None = None

    def next_batch(self, names: list[str]) -> list[int] | None:
        """Addresses of the next batch on the GPU; None when there is none, or one failed."""
        if self._samples is None or self._failure is not None or (self._given + 1) * self.batch > len(self._samples):
            return None
        try:
            feed = self._samples.batch(self._given * self.batch, self.batch)
            self._given += 1
            for name in names:
                self._memory[name].fill(feed[name])
            return [self._memory[name].pointer for name in names]
        except BaseException as error:  # noqa: BLE001 (TensorRT is the caller: it would end the process)
            self._failure = error
            return None

    def read_cache(self) -> bytes | None:
        """What was learnt from the same samples before."""
        if not self.cache.is_file():
            return None
        self.used_cache = True
        return self.cache.read_bytes()

    def write_cache(self, content: Any) -> None:
        """Keep what was learnt."""
        write_whole(self.cache, bytes(content))

    def check(self) -> None:
        """Raise what went wrong while TensorRT called.

        Raises:
            BuildError: the samples could not be copied to the GPU.
        """
        if self._failure is not None:
            raise BuildError(f"calibration failed: {self._failure}") from self._failure


def make_calibrator(library: Library, calibration: Calibration, method: str) -> Any:
    """What TensorRT wants as ``int8_calibrator``; it must be kept alive until the build is done."""
    base = getattr(library.module, CLASSES[method])

    class Calibrator(base):  # type: ignore[misc,valid-type]
        """Hands TensorRT's questions on."""

        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return calibration.batch

        def get_batch(self, names: list[str], *_: object) -> list[int] | None:
            return calibration.next_batch(names)

        def read_calibration_cache(self) -> bytes | None:
            return calibration.read_cache()

        def write_calibration_cache(self, content: Any) -> None:
            calibration.write_cache(content)

    return Calibrator()
