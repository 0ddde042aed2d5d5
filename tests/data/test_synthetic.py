"""Random samples for any signature, never zeros."""

import numpy as np
import pytest

from redline.core.errors import DataError
from redline.core.tensor import Signature, TensorSpec
from redline.data.synthetic import DEFAULT_SIZE, synthetic_samples


def make(*specs, count=5, seed=0, **sizes):
    return synthetic_samples(Signature(specs, ()), count, seed=seed, sizes=sizes)


def test_floats_are_normal_and_repeatable():
    spec = TensorSpec("x", ("n", 3, 16, 16), "float32")
    first = make(spec).inputs["x"]
    assert abs(first.std() - 1) < 0.05
    assert np.array_equal(first, make(spec).inputs["x"])
    assert not np.array_equal(first, make(spec, seed=1).inputs["x"])


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "bool", "float16", "float64", "uint8"])
def test_every_dtype(dtype):
    array = make(TensorSpec("x", (1, 50), dtype)).inputs["x"]
    assert array.dtype == dtype
    assert array.any()
    if dtype.startswith("int"):
        assert set(np.unique(array)) == {0, 1}


def test_dynamic_sizes():
    a, b = TensorSpec("a", ("n", "length"), "float32"), TensorSpec("b", ("n", 2, "length"), "float32")
    samples = make(a, b, length=9)
    assert samples.inputs["a"].shape == (5, 9)
    assert samples.inputs["b"].shape == (5, 2, 9)
    assert make(a).inputs["a"].shape == (5, DEFAULT_SIZE)


def test_no_inputs_and_what_is_refused():
    assert len(make()) == 5
    with pytest.raises(DataError, match="scalar"):
        make(TensorSpec("x", (), "float32"))
    with pytest.raises(DataError, match="object"):
        make(TensorSpec("x", ("n",), "object"))
    with pytest.raises(DataError, match="count is 0"):
        make(count=0)
