"""The page of a load test: whole without a network, safe with hostile names, drawn by a browser, usable on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert")

from tests.reporting.browser import CHROMIUM, chromium, on_a_phone
from tests.reporting.loadtest_documents import FP32, INT8, Document, Server, changed, summary_of, usual

from redline.loadtesting.summary import Summary
from redline.reporting.loadtest_html import loadtest_page, write_loadtest_html

HOSTILE = "</script><img src=x onerror=\"document.documentElement.dataset.hacked='1'\"><script>alert(1)</script>"


def hostile() -> Summary:
    """Markup in every text that comes from a user or a server."""

    def spoil(document: Document) -> None:
        document["command"] = document["environment"]["cpu"] = HOSTILE
        document["notes"] = [HOSTILE]
        document["agreement"]["source"] = HOSTILE
        for target in document["targets"]:
            for key in ("name", "url", "path", "precision", "model", "version"):
                target[key] = f"{target[key]} {HOSTILE}"
        document["points"][0]["windows"][0]["statuses"][HOSTILE] = 3

    return changed(spoil)


def body(summary: Summary) -> str:
    """The page's visible markup, without the plots and scripts."""
    return loadtest_page(summary).partition("<body>")[2].partition('<script type="application/json"')[0]


def words_of(summary: Summary) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body(summary))).split())


def test_says_the_conclusion_first_and_how_to_do_it_again_last() -> None:
    text = words_of(summary_of(usual()))
    parts = (
        "int8 against fp32",
        "2.00×",
        "the requests a second of fp32, with 8 users",
        "95 % confidence interval 1.95–2.05×",
        "keeps up with",
        "int8 answers 2.00× as many",
        "Latency against throughput",
        "Response times",
        "Where the time goes",
        "What it takes",
        "Answered against offered",
        "How requests ended",
        "Every load",
        "Conditions",
        "Do it again",
        "redline loadtest fp32.onnx int8.onnx",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_main_figures_stand_beside_what_they_were() -> None:
    text = words_of(summary_of(usual()))
    for part in (
        "p99 at 40/s 45.1 ms from 151 ms",
        "CPU a request 20.2 ms from 38.9 ms",
        "size of the file 11.9 MB from 46.8 MB",
        "same answer 98.4 % on 64 inputs",
        "accuracy 92.2 % −1.6 points against fp32",
    ):
        assert part in text


def test_every_load_of_every_target_is_a_row() -> None:
    summary = summary_of(usual())
    rows = re.findall(r'<tr class="[^"]*">\s*<th scope="row" class="name">', body(summary).partition("Every load")[2])
    assert len(rows) == sum(len(target.points) for target in summary.targets)


def test_failed_requests_are_counted_by_status() -> None:
    text = words_of(summary_of(usual()))
    assert "Status fp32 int8 200 15,881 22,307 503 3,386 431" in text
    assert "25.8 % 412× 503" in text
    assert "503: the server's queue was full" in text
    assert "refused:" not in text


def test_nothing_failed_is_one_sentence() -> None:
    assert "All 1,200 were answered with 200." in words_of(changed(lambda _: None))


def test_the_client_as_bottleneck_is_a_warning() -> None:
    def busy(document: Document) -> None:
        for window in document["points"][0]["windows"]:
            window["client_cpu_s"] = 0.97 * window["elapsed_s"]

    text = words_of(changed(busy))
    assert text.index("The client is the bottleneck at 20/s") < text.index("Response times")
    assert "97 % of a core" in text


@pytest.mark.parametrize(
    "drop",
    [
        lambda document: document.update(agreement=None, slo_ms=None, notes=[]),
        lambda document: document["environment"].update(cpu="", memory_bytes=0, flags=[]),
        lambda document: [target.update(path=None, size_bytes=None, precision=None) for target in document["targets"]],
        lambda document: [
            window.update(server=None, server_cpu_s=None, server_rss_bytes=None)
            for window in document["points"][0]["windows"]
        ],
        lambda document: [
            window.update(response_s=[], service_s=[], statuses={"refused": window["sent"]})
            for window in document["points"][0]["windows"]
        ],
        lambda document: document.update(points=[]),
        lambda document: [window.update(target=0) for window in document["points"][0]["windows"]],
    ],
    ids=["answers", "machine", "files", "statistics", "responses", "points", "second target"],
)
def test_what_was_not_measured_leaves_a_page(drop: Callable[[Document], Any]) -> None:
    text = words_of(changed(drop))
    assert "Conditions" in text
    assert not re.search(r"\b(None|nan|inf)\b", text)


def test_one_target_is_compared_with_none() -> None:
    text = words_of(changed(lambda document: document.update(agreement=None), FP32))
    assert "ratio" not in text
    assert "Ratios" not in text
    assert "requests answered, at 20/s, constant arrivals" in text


def test_three_targets_have_a_table_of_comparisons() -> None:
    middle = Server(name="fp16", infer_s=0.020, precision="fp16")
    text = words_of(changed(lambda _: None, FP32, middle, INT8))
    assert "fp16 and int8 against fp32" in text
    assert "Against fp32 Target" in text
    assert "Against fp32 Target" not in words_of(changed(lambda _: None))


def test_every_plot_has_words_in_its_place() -> None:
    text = loadtest_page(summary_of(usual()))
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    plots = re.findall(r'data-spec="([^"]*)" role="img" aria-label="([^"]*)"', text)
    assert {key for key, _ in plots} == set(specs)
    assert len(specs) == 3 + 2 + 18
    assert all("ms" in label for _, label in plots)


def test_names_from_users_are_text() -> None:
    text = loadtest_page(hostile())
    assert "<img src=x" not in text
    assert "<script>alert" not in text


def test_the_page_names_nothing_to_fetch() -> None:
    text = loadtest_page(summary_of(usual()))
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"@import|url\(", markup)
    assert re.findall(r'(?:src|href)="([^"]*)"', markup) == ["data:,"]
    assert "default-src 'none'" in text
    assert len(text) < 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_every_plot_and_asks_for_nothing(tmp_path: Path) -> None:
    def spoil(document: Document) -> None:
        document["targets"][0]["name"] = document["command"] = HOSTILE

    document = usual()
    spoil(document)
    write_loadtest_html(summary_of(document), tmp_path / "page.html")
    drawn, console = chromium(tmp_path, tmp_path / "page.html")
    # A request or a foreign script would be refused by the page's policy, and the console would say so.
    assert console == []
    assert "data-hacked" not in drawn
    # The curve, the response times at one load, the offered rate. The others wait until they are seen.
    assert drawn.count('data-drawn=""') == 3


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_phone_never_scrolls_sideways_and_switches_loads(tmp_path: Path) -> None:
    tell = """
    setTimeout(() => {
      const d = document.documentElement, all = s => [...document.querySelectorAll(s)];
      for (const box of all('details')) box.open = true;
      all('button[value="closed"]')[0].click();
      all('[data-in="load-closed"] .plot').length;
      const switched = all('button[data-group="load-closed"]')[0];
      switched.click();
      const shown = all('[data-in="load-closed"]').filter(one => !one.hidden).length;
      setTimeout(() => parent.postMessage(
        [d.clientWidth, d.scrollWidth, all('[data-drawn]').length, shown].join(" "), "*"), 2000);
    }, 2000)
    """
    page = loadtest_page(summary_of(usual()))
    (width, needed, drawn, shown), console = on_a_phone(page, tmp_path, script=tell, width_px=360)
    assert console == []
    assert needed <= width <= 360
    # Three at first; of the closed loop its curve and two loads.
    assert drawn == 6
    assert shown == 1
