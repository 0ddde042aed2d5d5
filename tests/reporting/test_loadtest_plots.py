"""The plots and bars of a load test: what is in them, and how targets are told apart."""

from __future__ import annotations

from typing import Any

import pytest
from tests.reporting.loadtest_documents import FP32, INT8, Document, Server, changed, summary_of, usual

from redline.reporting.loadtest_answers import claim, usual_point
from redline.reporting.loadtest_panels import client_bars, cpu_bars, memory_bars, rate_bars, split_bars
from redline.reporting.loadtest_plots import (
    curve_in_words,
    curve_spec,
    distribution_spec,
    looks,
    objective_shown,
    offered_spec,
    service_shown,
)
from redline.reporting.loadtest_table import loads, modes

SUMMARY = summary_of(usual())


def values(spec: Any) -> list[dict[str, Any]]:
    assert spec is not None
    return list(spec["data"]["values"])


def own(spec: Any, field: str) -> list[dict[str, Any]]:
    """Points that a layer brings along."""
    return [value for one in spec["layer"] for value in one.get("data", {}).get("values", []) if field in value]


def test_modes_and_loads_are_in_order() -> None:
    assert modes(SUMMARY) == ("constant", "poisson", "closed")
    assert [load.label for load in loads(SUMMARY, "closed")] == ["1 user", "2 users", "4 users", "8 users"]
    assert [load.rate for load in loads(SUMMARY, "poisson")] == [10, 20, 30, 40, 60, 80, 120]


def test_the_curve_has_p50_and_p99_of_every_load_of_both() -> None:
    points = values(curve_spec(SUMMARY, "poisson"))
    assert len(points) == 7 * 2 * 2
    first = [point for point in points if point["title"] == "fp32, p99"]
    assert [point["load"] for point in first][:2] == ["10/s", "20/s"]
    assert [point["kept"] for point in first] == [True] * 4 + [False] * 3
    assert all(point["errors"] == "none" or "503" in point["errors"] for point in points)


@pytest.mark.parametrize(("mode", "knees"), [("poisson", {"knee 40/s", "knee 80/s"}), ("closed", set())])
def test_the_knee_is_marked_on_the_curve_that_it_is_of(mode: str, knees: set[str]) -> None:
    spec = curve_spec(SUMMARY, mode)
    assert {value["text"] for value in own(spec, "text")} == knees


def test_a_closed_loop_alone_has_a_knee_in_users() -> None:
    document = usual()
    document["points"] = [point for point in document["points"] if point["mode"] == "closed"]
    spec = curve_spec(summary_of(document), "closed")
    assert [value["text"] for value in own(spec, "text")][:1] == ["knee 2 users"]


def test_the_objective_is_drawn_where_there_is_one() -> None:
    assert own(curve_spec(SUMMARY, "poisson"), "y")[0] == {"y": 150.0}
    without = usual(slo_ms=None)
    assert all("text" in value for value in own(curve_spec(summary_of(without), "poisson"), "y"))


def test_an_objective_far_from_all_times_does_not_flatten_them() -> None:
    point = usual_point(SUMMARY)
    assert point is not None
    assert objective_shown(SUMMARY, point) == 150.0
    assert objective_shown(summary_of(usual(slo_ms=60_000.0)), point) is None


def test_percentiles_go_no_further_than_there_are_requests() -> None:
    point = usual_point(SUMMARY)
    assert point is not None
    lines = values(distribution_spec(SUMMARY, point))
    named = {line["percentile"] for line in lines if line["named"]}
    assert named == {"50 %", "90 %", "99 %"}
    for title in ("fp32", "int8"):
        heights = [line["y"] for line in lines if line["title"] == title]
        assert heights == sorted(heights)
    busiest = next(load.point for load in loads(SUMMARY, "poisson") if load.rate == 120)
    assert "99.9 %" in {line["percentile"] for line in values(distribution_spec(SUMMARY, busiest))}


def test_service_time_is_drawn_only_where_it_tells_something() -> None:
    def late(document: Document) -> None:
        for window in document["points"][0]["windows"]:
            window["response_s"] = [seconds + 0.1 for seconds in window["service_s"]]

    assert not service_shown(SUMMARY, 0)
    assert {line["of"] for line in values(distribution_spec(SUMMARY, 0))} == {"response"}
    waited = changed(late)
    assert service_shown(waited, 0)
    lines = values(distribution_spec(waited, 0))
    times = {of: max(line["y"] for line in lines if line["of"] == of) for of in ("response", "service")}
    assert times["response"] == pytest.approx(times["service"] + 100, rel=0.01)


def test_the_offered_rate_is_that_of_open_loops() -> None:
    assert len(values(offered_spec(SUMMARY, "constant"))) == 14
    assert offered_spec(SUMMARY, "closed") is None
    assert offered_spec(changed(lambda _: None), "constant") is None


def test_plots_say_in_words_what_they_show() -> None:
    words = curve_in_words(SUMMARY, "closed")
    assert words.startswith("fp32 from 25.5 requests a second with p50 39.2 ms and p99 44.6 ms to 52.0")
    assert "int8 from 48.9" in words


def test_colours_tell_targets_apart() -> None:
    many = [Server(name=f"m{number}", infer_s=0.02) for number in range(4)]
    colours = [look.colour for look in looks(changed(lambda _: None, FP32, *many))]
    assert len(set(colours)) == 5


def test_the_servers_time_is_whole() -> None:
    point = usual_point(SUMMARY)
    assert point is not None
    bars = split_bars(SUMMARY, point)
    assert [bar.title for bar in bars] == ["fp32", "int8"]
    assert max(sum(part.percent for part in bar.parts) for bar in bars) == pytest.approx(100)
    assert [part.name for part in bars[0].parts] == ["queue", "decode", "infer", "encode", "outside"]
    for bar in bars:
        total = sum(float(part.value.removesuffix(" ms")) for part in bar.parts)
        assert total == pytest.approx(float(bar.value.removesuffix(" ms")), rel=0.01)


def test_bars_of_cost_say_what_they_are() -> None:
    assert [bar.value for bar in memory_bars(SUMMARY, 0)] == ["311 MB", "215 MB"]
    assert [bar.value for bar in cpu_bars(SUMMARY, 0)] == ["39.1 ms", "20.1 ms"]
    assert all("p99 of lateness" in bar.aside for bar in client_bars(SUMMARY, 0))
    assert [bar.aside for bar in rate_bars(SUMMARY, None)] == ["at 80/s, constant arrivals", "with 8 users"]


def test_latency_is_compared_at_the_highest_rate_that_both_keep_up_with() -> None:
    point = usual_point(SUMMARY)
    load = next(one for one in loads(SUMMARY, "poisson") if one.point == point)
    assert load.rate == 40.0


@pytest.mark.parametrize(
    ("server", "figure", "text"),
    [
        (
            Server(name="same", infer_s=0.034),
            "the same within 5 %",
            "same against fp32 in requests a second, with 4 users",
        ),
        (Server(name="slow", infer_s=0.068), "0.5", "the requests a second of fp32, with 4 users"),
    ],
)
def test_the_claim_is_no_number_that_may_be_chance(server: Server, figure: str, text: str) -> None:
    document = usual(FP32, server)
    document["points"] = [point for point in document["points"] if point["users"] in (2, 4)]
    told = claim(summary_of(document))
    assert told is not None
    assert told.figure.startswith(figure)
    assert told.text.startswith(text)
    assert told.plain


def test_a_wide_interval_says_nothing() -> None:
    def disturb(document: Document) -> None:
        for window in document["points"][0]["windows"]:
            if window["target"] == 1:
                keep = len(window["response_s"]) // (1 + 3 * (window["round"] % 2))
                window["response_s"] = window["service_s"] = [9.0, *window["response_s"][:keep]]
                window["response_s"][1:] = [
                    seconds * (1 + 3 * (window["round"] % 2)) for seconds in window["response_s"][1:]
                ]

    told = claim(changed(disturb, FP32, Server(name="other", infer_s=0.02)))
    assert told is not None
    assert (told.figure, told.plain) == ("not decided", True)
    assert told.text.startswith("other against fp32 in ")


def test_below_their_limits_targets_are_told_apart_by_latency() -> None:
    told = claim(changed(lambda _: None, FP32, INT8))
    assert told is not None
    assert told.text == "the p99 of fp32, at 20/s, constant arrivals"
    assert 0.5 < float(told.figure.removesuffix("×")) < 0.6
