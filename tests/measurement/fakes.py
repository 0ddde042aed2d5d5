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
