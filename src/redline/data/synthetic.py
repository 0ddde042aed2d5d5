"""Random samples, for models that nobody gave data for; never zeros, on which any two models agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from redline.core.errors import DataError
from redline.core.samples import Samples
from redline.core.tensor import Array, Signature, TensorSpec

DEFAULT_SIZE = 32


def synthetic_samples(
    signature: Signature, count: int, *, seed: int, sizes: Mapping[str, int] | None = None
) -> Samples:
    """Fresh random inputs for any model.

    Floating-point inputs are standard normal; integers are 0 or 1, so that they are valid indices into anything
    (``uint8``, the dtype of pixels, takes all its values); booleans are either.

    Args:
        signature: What the model takes; the first size of every input counts the samples.
        count: How many samples.
        seed: Equal seeds, equal samples.
        sizes: Values of the dynamic sizes beyond the first, by name; :data:`DEFAULT_SIZE` for one not named.

    Raises:
        DataError: an input without a first size, or of a dtype that random numbers cannot stand in for.

    >>> from redline.core.tensor import TensorSpec
    >>> taken = Signature((TensorSpec("tokens", ("batch", "length"), "int64"),), ())
    >>> synthetic_samples(taken, 3, seed=0, sizes={"length": 7}).inputs["tokens"].shape
    (3, 7)
    """
    if count < 1:
        raise DataError(f"count is {count} samples, expected at least 1")
    known = dict(sizes or {})
    random = np.random.default_rng(seed)
    inputs = {spec.name: _tensor(spec, count, known, random) for spec in signature.inputs}
    names = tuple(f"random {index}" for index in range(count))
    return Samples(inputs=inputs, labels=None, names=names, source=f"random numbers (seed {seed})")


def _tensor(spec: TensorSpec, count: int, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    if not spec.shape:
        raise DataError(f"input {spec.name!r} is a scalar; expected a first size that counts the samples")
    rest = (size if isinstance(size, int) else sizes.get(size, DEFAULT_SIZE) for size in spec.shape[1:])
    shape = (count, *rest)
    match spec.numpy_dtype.kind:
        case "f":
            return random.standard_normal(shape, dtype=np.float32).astype(spec.numpy_dtype)
        case "b":
            return random.integers(0, 2, shape).astype(np.bool_)
        case "i" | "u":
            high = 256 if spec.dtype == "uint8" else 2
            return random.integers(0, high, shape).astype(spec.numpy_dtype)
        case _:
            raise DataError(f"input {spec.name!r} is {spec.dtype}; random samples exist for numbers and booleans only")
