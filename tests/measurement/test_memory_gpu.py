"""What a worker has on a GPU, as the driver tells it, against allocations of known size."""

from __future__ import annotations

import numpy as np
import pytest
from tests.gpu import needs_cuda

from redline.measurement.gpu_state import state
from redline.measurement.worker import Source, Worker

pytestmark = [pytest.mark.gpu, needs_cuda]
X = {"x": np.ones((1, 2), np.float32)}


def device_peak(megabytes: int) -> int | None:
    source = Source(factory="tests.measurement.fakes:make_on_gpu", arguments={"megabytes": megabytes})
    with Worker(source, cuda_device=0) as worker:
        worker.prepare(1, [X], limit_s=0.0)
        return worker.memory().device_peak_bytes


def test_what_a_session_holds_on_the_gpu_is_told_within_5_percent() -> None:
    # A CUDA context takes some hundred megabytes itself, the same for each.
    empty = device_peak(0)
    if empty is None:
        pytest.skip("the driver does not tell memory by process here")
    for megabytes in (200, 1000):
        held = device_peak(megabytes)
        assert held is not None
        assert held - empty == pytest.approx(megabytes * 1e6, rel=0.05)


def test_the_state_of_the_gpu_is_told() -> None:
    told = state(0)
    assert told is not None
    assert told.max_sm_mhz is None or told.max_sm_mhz > 100
    assert all(isinstance(reason, str) for reason in told.throttle)
