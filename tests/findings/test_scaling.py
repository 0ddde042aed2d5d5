"""A known exponent comes back, with an interval that holds it."""

from __future__ import annotations

import numpy as np
import pytest
from tests.studies import Run, study_of

from redline.findings.scaling import Fit, fit_rows, power_law


@pytest.mark.parametrize("exponent", [0.5, 0.87, 1.0, 1.4])
def test_a_known_exponent_is_recovered(exponent: float) -> None:
    batches = [1, 2, 4, 8, 16, 32]
    fit = power_law(batches, [0.003 * batch**exponent for batch in batches])
    assert fit is not None
    assert fit == pytest.approx((exponent, exponent, exponent), abs=1e-6)


@pytest.mark.parametrize("points", [3, 4, 5, 8])
def test_nineteen_intervals_in_twenty_hold_the_exponent(points: int) -> None:
    rng = np.random.default_rng(points)
    batches = 2.0 ** np.arange(points)
    held = 0
    for _ in range(1000):
        fit = power_law(batches, 0.01 * batches**0.9 * np.exp(rng.normal(0, 0.05, points)))
        assert fit is not None
        held += fit[1] <= 0.9 <= fit[2]
    assert 930 <= held <= 970


@pytest.mark.parametrize("quantity", [[1], [1, 2], [1, 2, 2]])
def test_two_points_give_no_fit(quantity: list[float]) -> None:
    assert power_law(quantity, [0.1] * len(quantity)) is None


def fits(exponent: float, **fields: object) -> tuple[Fit, ...]:
    run = Run(
        devices=("cpu",),
        loaders=("dummy",),
        noise=0.002,
        drift=0.0,
        process_noise=0.0,
        outcome=lambda cell: ("measured", None, None),
        variants=("torch-eager-fp32", "onnxruntime-fp32"),
        time=lambda cell: 0.01 * cell.images**exponent,
        **fields,  # type: ignore[arg-type]
    )
    return fit_rows(study_of(run).rows)


def test_fits_over_the_batch_and_over_the_pixels() -> None:
    found = fits(0.8, batches=(1, 2, 4), sizes=((112, 112), (224, 224), (448, 448)))
    assert len(found) == 3 * (3 + 3)  # the control too
    assert {fit.over for fit in found} == {"batch", "pixels"}
    assert {fit.fixed for fit in found if fit.over == "pixels"} == {"batch 1", "batch 2", "batch 4"}
    assert {fit.fixed for fit in found if fit.over == "batch"} == {"112x112", "224x224", "448x448"}
    for fit in found:
        assert fit.exponent == pytest.approx(0.8, abs=0.01)
        assert fit.points == 3
        assert fit.words == "less than in proportion"
    assert {fit.words for fit in fits(1.3, batches=(1, 2, 4))} == {"more than in proportion"}


def test_one_batch_and_one_size_give_none() -> None:
    assert fits(1.0, batches=(1,)) == ()
    assert fits(1.0, batches=(1, 2)) == ()
