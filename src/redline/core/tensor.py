"""Names, shapes and dtypes of the tensors that go into and come out of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from redline.core.errors import SignatureError

Array = NDArray[Any]
Dim = int | str


class HasShape(Protocol):
    """What a signature can check: a NumPy array, or a tensor on another device."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its elements."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: a name, a shape in which a string is a dynamic size, and a NumPy dtype name.

    Equal strings stand for equal sizes within one signature, so ``("batch", 3)`` and ``("batch", 10)``
    agree on the batch.

    >>> TensorSpec("image", ("batch", 3, 224, 224), "float32").shape
    ('batch', 3, 224, 224)
    """

    name: str
    shape: tuple[Dim, ...]
    dtype: str

    def __post_init__(self) -> None:
        if not self.name:
            raise SignatureError("a tensor needs a name, got an empty string")
        for size in self.shape:
            if isinstance(size, int) and size < 0:
                raise SignatureError(f"{self.name}: size {size} in shape {self.shape}, expected 0 or more")
        try:
            _ = self.numpy_dtype
        except TypeError as error:
            raise SignatureError(f"{self.name}: {self.dtype!r} is not a NumPy dtype") from error

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The type of its elements, as NumPy has it."""
        return _numpy_dtype(self.dtype)

    def with_batch(self, batch_size: int) -> tuple[int, ...]:
        """The shape at one batch size: a dynamic first size becomes it.

        Raises:
            SignatureError: another size is dynamic too, or a fixed first size differs from ``batch_size``.
        """
        if not self.shape:
            return ()
        first, *rest = self.shape
        if isinstance(first, int) and first != batch_size:
            raise SignatureError(f"{self.name}: batch is fixed at {first}, got {batch_size}")
        sizes = [size for size in rest if isinstance(size, int)]
        if len(sizes) != len(rest):
            raise SignatureError(f"{self.name}: shape {self.shape} is dynamic beyond the batch; name its size")
        return (batch_size, *sizes)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives.

    >>> spec = TensorSpec("x", ("batch", 2), "float32")
    >>> Signature((spec,), ()).check({"x": np.zeros((4, 3), np.float32)})
    Traceback (most recent call last):
    redline.core.errors.SignatureError: input 'x': got shape (4, 3), expected ('batch', 2)
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, tensors: Mapping[str, HasShape]) -> None:
        """Accept a complete set of inputs or say what is wrong with it.

        Raises:
            SignatureError: a missing or unknown name, a dtype, a rank, or a size that does not fit.
        """
        if len(tensors) != len(self.inputs):
            self._refuse_names(tensors)
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            try:
                tensor = tensors[spec.name]
            except KeyError:
                self._refuse_names(tensors)
                raise  # pragma: no cover
            if tensor.dtype != spec.numpy_dtype:
                raise SignatureError(f"input {spec.name!r}: got dtype {tensor.dtype}, expected {spec.dtype}")
            shape = tensor.shape
            if shape == spec.shape:
                continue
            if len(shape) != len(spec.shape):
                raise SignatureError(f"input {spec.name!r}: got shape {shape}, expected {spec.shape}")
            for got, expected in zip(shape, spec.shape, strict=True):
                if isinstance(expected, str):
                    expected = sizes.setdefault(expected, got)
                if got != expected:
                    raise SignatureError(f"input {spec.name!r}: got shape {shape}, expected {spec.shape}")

    def _refuse_names(self, tensors: Mapping[str, HasShape]) -> None:
        got, expected = sorted(tensors), sorted(spec.name for spec in self.inputs)
        raise SignatureError(f"got inputs {got}, expected {expected}")

    def at_batch(self, batch_size: int) -> Signature:
        """The same with a dynamic first size fixed, and every size that is called the same.

        >>> Signature((TensorSpec("x", ("batch", 2), "float32"),), ()).at_batch(4).inputs[0].shape
        (4, 2)
        """
        names = {spec.shape[0] for spec in self.inputs if spec.shape and isinstance(spec.shape[0], str)}

        def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(s.name, tuple(batch_size if size in names else size for size in s.shape), s.dtype)
                for s in specs
            )

        return Signature(fixed(self.inputs), fixed(self.outputs))

    @property
    def dynamic_batch(self) -> bool:
        """True when every input has a dynamic first size."""
        return bool(self.inputs) and all(spec.shape and isinstance(spec.shape[0], str) for spec in self.inputs)

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the inputs are fixed at, or None where it is dynamic or there is none."""
        for spec in self.inputs:
            if spec.shape and isinstance(spec.shape[0], int):
                return spec.shape[0]
        return None


@lru_cache(maxsize=64)
def _numpy_dtype(name: str) -> np.dtype[Any]:
    return np.dtype(name)
