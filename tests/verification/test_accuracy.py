import numpy as np
import pytest

from redline.core.errors import DataError
from redline.verification.accuracy import change, score, top1_of, wilson


def test_score_and_paired_change():
    labels = np.array([0, 1, 2, 0])
    right = np.eye(3)[[0, 1, 0, 1]]
    given = np.eye(3)[[0, 2, 2, 1]]
    assert score(right, labels).value == 0.5
    flips = change(right, given, labels)
    assert (flips.broken, flips.repaired, flips.drop) == (1, 1, 0)
    assert "1 of 4 answers became wrong, 1 became right" in flips.describe()


def test_a_row_of_nan_is_no_answer():
    assert top1_of(np.array([[np.nan, 1.0], [0.0, 1.0]])).tolist() == [-1, 1]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0], []])
def test_bad_labels(labels: list[int]):
    with pytest.raises(DataError, match="label"):
        score(np.eye(3)[: len(labels) or 2] if len(labels) != 1 else np.eye(3), np.array(labels, dtype=int))


def test_wilson_interval_narrows_with_samples():
    assert wilson(48, 48)[0] < wilson(480, 480)[0] < 1
    assert wilson(0, 0) == (0, 1)
