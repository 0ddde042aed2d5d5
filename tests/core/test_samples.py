"""Samples: batches that go round, disjoint splits, fingerprints."""

import numpy as np
import pytest

from redline.core.errors import DataError
from redline.core.samples import Samples, Skipped


def make(count=10, labels=None):
    return Samples(
        inputs={"x": np.arange(count * 2, dtype=np.float32).reshape(count, 2)},
        labels=labels,
        names=tuple(f"s{i}" for i in range(count)),
        source="a test",
        skipped=(Skipped("notes.txt", "not an image"),),
    )


def test_a_batch_goes_round():
    assert make(3).batch(2, 5)["x"][:, 0].tolist() == [4, 0, 2, 4, 0]
    assert make(3).batch(7, 1)["x"].tolist() == [[2, 3]]


def test_a_batch_is_a_copy():
    samples = make(3)
    samples.batch(0, 3)["x"][:] = 99
    assert samples.inputs["x"].max() == 5


def test_split_is_disjoint_complete_and_repeatable():
    samples = make(10)
    first, rest = samples.split(4, seed=1)
    assert sorted(first.names + rest.names) == sorted(samples.names)
    assert len(first) == 4
    assert first.names == samples.split(4, seed=1)[0].names
    assert first.names != samples.split(4, seed=2)[0].names
    assert first.skipped == samples.skipped


def test_split_leaves_half_for_verification():
    first, rest = make(5).split(100, seed=0)
    assert (len(first), len(rest)) == (2, 3)


def test_split_keeps_the_shares_of_the_classes():
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    first, rest = make(100, labels).split(20, seed=3)
    assert np.bincount(first.labels).tolist() == [12, 6, 2]
    assert np.bincount(rest.labels).tolist() == [48, 24, 8]


@pytest.mark.parametrize("calibration", [0, -1])
def test_split_refuses_a_silly_count(calibration):
    with pytest.raises(DataError, match="at least 1"):
        make().split(calibration, seed=0)


def test_split_refuses_one_sample():
    with pytest.raises(DataError, match="at least 2"):
        make(1).split(1, seed=0)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(DataError, match="no samples"):
        Samples(inputs={}, labels=None, names=(), source="nothing")
    with pytest.raises(DataError, match="'x' has shape"):
        Samples(inputs={"x": np.zeros((2, 3))}, labels=None, names=("a",), source="t")
    with pytest.raises(DataError, match="labels have shape"):
        make(3, np.array([1, 2]))
    with pytest.raises(DataError, match="expected integers"):
        make(2, np.array([0.5, 1.0]))


def test_fingerprint_tells_content_apart():
    assert make().fingerprint() == make().fingerprint()
    assert make().fingerprint() != make(labels=np.zeros(10, int)).fingerprint()
    assert make().fingerprint() != make(9).fingerprint()
