"""What a scrape sees, read by Prometheus' own parser."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from redline.serving.metrics import Metrics

VERSION = {"model": "resnet", "version": "3"}


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, labels: Mapping[str, str] = VERSION, **more: str) -> float | None:
    return scrape(metrics).get((name, frozenset({**labels, **more}.items())))


def test_requests_are_counted_by_status_and_timed_by_phase() -> None:
    metrics = Metrics()
    version = metrics.version("resnet", "3")
    version.success(0.001, 0.002, 0.04, 0.0005)
    version.success(0.001, 0.002, 0.04, 0.0005, 0.05)
    version.failure(503, 0.2)
    version.executed(2)
    assert value(metrics, "redline_requests_total", code="200") == 2
    assert value(metrics, "redline_requests_total", code="503") == 1
    sums = {"queue": 0.002, "decode": 0.004, "infer": 0.08, "encode": 0.001, "total": 0.0435 + 0.05 + 0.2}
    for phase, seconds in sums.items():
        assert value(metrics, "redline_request_seconds_sum", phase=phase) == pytest.approx(seconds)
        assert value(metrics, "redline_request_seconds_count", phase=phase) == (3 if phase == "total" else 2)
    assert value(metrics, "redline_request_seconds_bucket", phase="infer", le="0.025") == 0
    assert value(metrics, "redline_request_seconds_bucket", phase="infer", le="0.05") == 2
    assert value(metrics, "redline_batch_rows_sum") == 2


def test_the_buckets_reach_from_what_a_small_model_takes_to_the_deadline() -> None:
    metrics = Metrics()
    metrics.version("resnet", "3").executed(1)
    metrics.version("resnet", "3").success(0.0, 0.0, 0.0, 0.0)
    bounds = {
        name: sorted(float(dict(labels)["le"]) for found, labels in scrape(metrics) if found == f"{name}_bucket")
        for name in ("redline_request_seconds", "redline_batch_rows")
    }
    seconds = sorted(set(bounds["redline_request_seconds"]))
    assert (seconds[0], seconds[-2], seconds[-1]) == (50e-6, 30.0, math.inf)
    assert bounds["redline_batch_rows"] == [1, 2, 4, 8, 16, 32, 64, 128, 256, math.inf]


def test_every_family_says_what_it_is() -> None:
    metrics = Metrics()
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    kinds = {
        "redline_requests": "counter",
        "redline_request_seconds": "histogram",
        "redline_batch_rows": "histogram",
        "redline_queue_depth": "gauge",
        "redline_in_flight": "gauge",
        "redline_rejected": "counter",
        "redline_model_info": "gauge",
        "redline_shadow_requests": "counter",
        "redline_shadow_disagreements": "counter",
        "redline_shadow_error": "histogram",
        "redline_shadow_dropped": "counter",
    }
    assert {name: families[name].type for name in kinds} == kinds
    assert all(families[name].documentation.endswith(".") for name in kinds)
    assert "process_resident_memory_bytes" in families
    assert metrics.content_type.startswith("text/plain; version=0.0.4")


def test_gauges_are_asked_at_each_scrape_until_told_otherwise() -> None:
    metrics = Metrics()
    queue = [5]
    old = metrics.watch("resnet", "3", waiting=lambda: queue[0], running=lambda: 2)
    assert (value(metrics, "redline_queue_depth"), value(metrics, "redline_in_flight")) == (5, 2)
    queue[0] = 7
    new = metrics.watch("resnet", "3", waiting=lambda: 1, running=lambda: 1)  # a reload: two copies for a while
    assert (value(metrics, "redline_queue_depth"), value(metrics, "redline_in_flight")) == (8, 3)
    old()
    old()
    assert (value(metrics, "redline_queue_depth"), value(metrics, "redline_in_flight")) == (1, 1)
    new()
    assert value(metrics, "redline_queue_depth") is None


def test_a_version_that_is_replaced_or_gone_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.served("resnet", "3", precision="fp32", backend="onnxruntime")
    metrics.served("resnet", "3", precision="int8", backend="onnxruntime")
    assert value(metrics, "redline_model_info", precision="int8", backend="onnxruntime") == 1
    assert value(metrics, "redline_model_info", precision="fp32", backend="onnxruntime") is None
    metrics.version("resnet", "3").success(0.0, 0.0, 0.0, 0.0)
    metrics.version("resnet", "3").failure(404, 0.0)
    metrics.version("resnet", "4").failure(404, 0.0)
    metrics.forget("resnet", "3")
    metrics.forget("resnet", "3")
    left = {dict(labels).get("version") for _, labels in scrape(metrics)}
    assert left == {"4", None}


def test_a_version_that_comes_back_counts_again() -> None:
    metrics = Metrics()
    old = metrics.version("resnet", "3")
    assert metrics.version("resnet", "3") is old
    old.failure(500, 0.1)
    metrics.forget("resnet", "3")
    old.failure(500, 0.1)  # a request that was still under way
    metrics.version("resnet", "3").failure(500, 0.1)
    assert value(metrics, "redline_requests_total", code="500") == 1


def test_shadows() -> None:
    metrics = Metrics()
    labels = {"model": "q", "reference": "fp32"}
    shadow = metrics.shadow("q", "fp32")
    shadow.compared(disagreed=False, relative_error=0.004)
    shadow.compared(disagreed=True, relative_error=math.nan)
    shadow.compared(disagreed=False, relative_error=math.inf)
    shadow.dropped()
    assert value(metrics, "redline_shadow_requests_total", labels) == 3
    assert value(metrics, "redline_shadow_disagreements_total", labels) == 1
    assert value(metrics, "redline_shadow_dropped_total", labels) == 1
    assert value(metrics, "redline_shadow_error_bucket", labels, le="0.01") == 1
    assert value(metrics, "redline_shadow_error_bucket", labels, le="1.0") == 1
    assert value(metrics, "redline_shadow_error_bucket", labels, le="+Inf") == 3
    total = value(metrics, "redline_shadow_error_sum", labels)
    assert total is not None
    assert math.isfinite(total)


def test_rejections_and_names_that_need_quoting() -> None:
    metrics = Metrics()
    metrics.rejected("queue")
    metrics.rejected("queue")
    assert value(metrics, "redline_rejected_total", {"reason": "queue"}) == 2
    odd = {"model": 'a"b\\c\nd', "version": "1"}
    metrics.version(odd["model"], "1").failure(400, 0.1)
    assert value(metrics, "redline_requests_total", odd, code="400") == 1


def test_servers_of_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.version("resnet", "3").failure(500, 0.1)
    assert value(one, "redline_requests_total", code="500") == 1
    assert value(other, "redline_requests_total", code="500") is None
