import numpy as np
import pytest

from redline.core.errors import InputError
from redline.verification.measures import errors_between
from redline.verification.tolerance import tolerance_for

VALUES = np.random.default_rng(0).normal(size=(30, 4))


def test_wider_where_the_precision_is_lower_and_every_one_says_why():
    bounds = [tolerance_for(VALUES, precision) for precision in ("fp32", "fp16", "bf16")]
    sizes = [bound.absolute or 0 for bound in bounds]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    assert [bits for bits, bound in zip(("24", "11", "8"), bounds, strict=True) if f"{bits}-bit" in bound.why]
    assert tolerance_for(VALUES, "int8").absolute is None


def test_scales_with_the_output():
    small, large = tolerance_for(VALUES, "fp32"), tolerance_for(VALUES * 1000, "fp32")
    assert large.absolute == pytest.approx(1000 * (small.absolute or 0))


def test_the_users_bound_wins():
    assert tolerance_for(VALUES, "int8", absolute=0.5).absolute == 0.5
    assert tolerance_for(VALUES, "fp32", relative=0.5).absolute == 0
    with pytest.raises(InputError, match="-1"):
        tolerance_for(VALUES, "fp32", absolute=-1.0)


def test_centred_numbers_see_what_a_large_mean_hides():
    reference = 100 + 0.01 * VALUES
    shuffled = reference[::-1]
    errors = errors_between(reference, shuffled)
    assert errors.cosine > 0.9999
    assert errors.snr_db > 60
    assert errors.centred_snr_db is not None
    assert errors.centred_snr_db < 0
    assert errors.centred_cosine is not None
    assert errors.centred_cosine < 0.5


def test_zeros_and_nothing_are_no_trouble():
    zeros = np.zeros((3, 2))
    assert errors_between(zeros, zeros).cosine == 1
    assert errors_between(zeros, zeros).centred_snr_db is None
    assert errors_between(zeros, zeros + 1).snr_db == -np.inf
    assert np.isnan(errors_between(np.zeros((3, 0)), np.zeros((3, 0))).max_abs)
