"""Samples: what a model is calibrated, verified and measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.core.errors import DataError
from redline.core.tensor import Array


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be used, with the reason in words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Inputs of a model, ready to be given to it; the first axis of every array counts the samples.

    Attributes:
        inputs: Arrays by input name.
        labels: Class indices, int64, shape (samples,); None where nobody knows the answers.
        names: One name per sample (a file, or a number in an array).
        skipped: What was in the source and could not be used.
        source: Where they came from, in words.

    >>> few = Samples(inputs={"x": np.arange(3)}, labels=None, names=("a", "b", "c"), source="a test")
    >>> few.batch(2, 4)["x"]
    array([2, 0, 1, 2])
    """

    inputs: dict[str, Array]
    labels: Array | None
    names: tuple[str, ...]
    source: str
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError(f"{self.source}: got no samples, expected at least one")
        for name, array in self.inputs.items():
            if array.ndim == 0 or len(array) != len(self.names):
                raise DataError(
                    f"{self.source}: input {name!r} has shape {array.shape}, expected {len(self.names)} samples first"
                )
        if self.labels is None:
            return
        if self.labels.shape != (len(self.names),):
            raise DataError(
                f"{self.source}: labels have shape {self.labels.shape}, expected one for each of "
                f"{len(self.names)} samples"
            )
        if not np.issubdtype(self.labels.dtype, np.integer):
            raise DataError(f"{self.source}: labels are {self.labels.dtype}, expected integers (class indices)")
        object.__setattr__(self, "labels", self.labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def used(self) -> int:
        """How many samples there are."""
        return len(self.names)

    def batch(self, start: int, size: int) -> dict[str, Array]:
        """``size`` samples from ``start`` on, going round to the first after the last: contiguous copies."""
        if size < 1:
            raise DataError(f"batch size is {size}, expected at least 1")
        index = np.arange(start, start + size) % len(self)
        return {name: np.ascontiguousarray(array[index]) for name, array in self.inputs.items()}

    def take(self, index: Sequence[int] | Array) -> Samples:
        """The samples at these positions, in this order; what was skipped stays noted."""
        chosen = np.asarray(index, dtype=np.intp)
        return Samples(
            inputs={name: array[chosen] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[chosen],
            names=tuple(self.names[i] for i in chosen),
            source=self.source,
            skipped=self.skipped,
        )

    def split(self, calibration: int, *, seed: int) -> tuple[Samples, Samples]:
        """Two disjoint parts, (for calibration, for verification), each in the original order.

        Where there are labels both parts have the classes in the same shares. Verification keeps at least half of
        the samples, so fewer than ``calibration`` may come back; what is verified on was never calibrated on.

        Raises:
            DataError: fewer than 2 samples, or ``calibration`` below 1.
        """
        if calibration < 1:
            raise DataError(f"calibration is {calibration} samples, expected at least 1")
        if len(self) < 2:
            raise DataError(f"{self.source}: got 1 sample, expected at least 2 (one to calibrate, one to verify)")
        order = self._stratified_order(np.random.default_rng(seed))
        count = min(calibration, len(self) // 2)
        return self.take(np.sort(order[:count])), self.take(np.sort(order[count:]))

    def _stratified_order(self, random: np.random.Generator) -> Array:
        """A random order of which every beginning has the classes in their shares."""
        shuffled = random.permutation(len(self))
        if self.labels is None:
            return shuffled
        share = np.empty(len(self))
        for label in np.unique(self.labels):
            members = shuffled[self.labels[shuffled] == label]
            share[members] = (np.arange(len(members)) + 0.5) / len(members)
        return shuffled[np.argsort(share[shuffled], kind="stable")]

    def fingerprint(self) -> str:
        """The SHA-256 of names, arrays and labels, in hexadecimal: equal samples, equal fingerprint."""
        digest = hashlib.sha256()
        labels = {} if self.labels is None else {"labels": self.labels}
        for kind, arrays in (("input", self.inputs), ("labels", labels)):
            for name, array in sorted(arrays.items()):
                digest.update(f"{kind}\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update("\0".join(self.names).encode())
        return digest.hexdigest()


def save_samples(samples: Samples, path: Path) -> None:
    """Write samples for another process; the names and the source are left behind."""
    labels = {} if samples.labels is None else {"labels": samples.labels}
    arrays: dict[str, Any] = {f"input {name}": array for name, array in samples.inputs.items()} | labels
    np.savez(path, allow_pickle=False, **arrays)


def load_saved(path: str) -> Samples:
    """The inverse of :func:`save_samples`; the names of the samples are numbers."""
    with np.load(path, allow_pickle=False) as file:
        inputs = {name.removeprefix("input "): file[name] for name in file.files if name.startswith("input ")}
        labels = file["labels"] if "labels" in file.files else None
    count = len(next(iter(inputs.values()))) if inputs else 1
    return Samples(inputs=inputs, labels=labels, names=tuple(map(str, range(count))), source=Path(path).name)
