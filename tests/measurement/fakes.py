"""Sessions that a worker process can be given in tests."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from redline.core.errors import BuildError
from redline.core.tensor import Array, Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", ("batch", 2), "float32"),), (TensorSpec("y", ("batch", 2), "float32"),))


class Doubler:
    """Answers with twice its input after ``megabytes`` were touched; dies on request."""

    signature = SIGNATURE

    def __init__(self, megabytes: int = 0, die_at: int = -1) -> None:
        self.ballast = np.ones(megabytes << 17)
        self.layers = ("fp32", 1)
        self._calls, self._die_at = 0, die_at

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        self.signature.check(inputs)
        self._calls += 1
        if self._calls == self._die_at:
            os.kill(os.getpid(), 9)
        return {"y": inputs["x"] * 2}

    def close(self) -> None:
        """Nothing to free."""


def make(megabytes: int = 0, die_at: int = -1) -> Doubler:
    """What a worker calls."""
    return Doubler(megabytes, die_at)


def refuse() -> Doubler:
    """Fails as a backend does."""
    raise BuildError("no such operator\nsecond line")


def hang() -> Doubler:
    """Never comes back."""
    time.sleep(1000)
    raise AssertionError


def add(a: int, b: int) -> int:
    """A step of work."""
    return a + b


class Reader(Doubler):
    """Reads its whole input and keeps nothing."""

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        return {"y": np.array([inputs["x"].sum(dtype=np.float64)])}


def make_reader() -> Reader:
    """What a worker calls."""
    return Reader()


class Failing(Doubler):
    """Fails at a call as it is told: with an exception's words, or by taking too long."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        if self._words == "hang":
            hang()
        if self._words == "MemoryError":
            raise MemoryError
        if self._words == "cause":
            raise BuildError("the model did not run") from MemoryError("std::bad_alloc")
        raise BuildError(self._words)


def make_failing(words: str) -> Failing:
    """What a worker calls."""
    return Failing(words)


class Greedy(Doubler):
    """Holds so many megabytes that it touched, and so many more during each call; tells of a GPU's allocator."""

    def __init__(self, megabytes: int, during_calls: int) -> None:
        super().__init__()
        self._held = np.ones(megabytes * 1_000_000, np.uint8)
        self._during_calls = during_calls

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        np.ones(self._during_calls * 1_000_000, np.uint8)
        return super().__call__(inputs)

    def allocator_peak_bytes(self) -> int:
        return 1234


def make_greedy(megabytes: int, during_calls: int = 0) -> Greedy:
    """What a worker calls."""
    return Greedy(megabytes, during_calls)


class Keeper(Doubler):
    """Keeps all that it is given."""

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        self.kept = [*getattr(self, "kept", []), inputs]
        return {}


def make_keeper() -> Keeper:
    """What a worker calls."""
    return Keeper()


class OnGpu(Doubler):
    """Holds so many megabytes of a GPU."""

    def __init__(self, megabytes: int) -> None:
        from redline.backends.cuda import DeviceMemory

        super().__init__()
        self.held = DeviceMemory(megabytes * 1_000_000)


def make_on_gpu(megabytes: int) -> OnGpu:
    """What a worker calls."""
    return OnGpu(megabytes)


def make_with_runtime(megabytes: int) -> Doubler:
    """A session whose process has a runtime's libraries."""
    import onnxruntime  # noqa: F401

    return Doubler(megabytes)


class Mapped(Doubler):
    """Reads a file that it maps, as runtimes read weights."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weights = np.memmap(path, np.uint8, "r")
        self.total = int(self.weights.sum(dtype=np.int64))


def make_mapping(path: str) -> Doubler:
    """What a worker calls."""
    return Mapped(path)
