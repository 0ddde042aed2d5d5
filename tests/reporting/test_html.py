"""The page of a grid: whole without a network, safe with hostile names, drawn by a browser, usable on a phone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert")

from tests.reporting.browser import CHROMIUM, chromium, on_a_phone
from tests.reporting.grids import changed, tuned, usual
from tests.studies import Run, study_of

from redline.findings.conclusion import conclude
from redline.reporting.html import page, write_html
from redline.reporting.markdown import markdown
from redline.study.rows import Study

HOSTILE = "</script><img src=x onerror=\"document.documentElement.dataset.hacked='1'\"><script>alert(1)</script>"


def hostile(purpose: str = "bench") -> Study:
    """A small study with markup in every text that comes from a user or a runtime."""

    def spoil(record: dict[str, Any]) -> dict[str, Any]:
        if record["kind"] == "run":
            record["machine"]["environment"]["cpu"] = record["machine"]["gpus"][0]["name"] = HOSTILE
            data = {"source": HOSTILE, "images": 1, "warning": HOSTILE, "skipped": [{"name": HOSTILE, "reason": "x"}]}
            return {**record, "name": HOSTILE, "command": HOSTILE, "data": data}
        if record["kind"] == "variant":
            return {**record, "title": f"{record['title']} {HOSTILE}", "elsewhere": HOSTILE, "note": HOSTILE}
        if record["kind"] == "agreement" and "int8" in record["variant"]:
            return {**record, "passed": False, "reason": HOSTILE}
        return {**record, "reason": HOSTILE} if record["kind"] == "cell" and record["reason"] else record

    study = changed(spoil, sizes=((160, 160), (224, 224)), purpose=purpose)
    if purpose == "tune":
        return replace(study, conclusion=conclude(study, batch=1, objective="latency"))
    return study


def body(study: Study) -> str:
    """The page's visible markup, without the plots and scripts."""
    return page(study).partition("<body>")[2].partition('<script type="application/json"')[0]


def words_of(study: Study) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body(study))).split())


def test_says_the_answer_first() -> None:
    text = words_of(usual())
    answer = "At 224×224 pixels: for the lowest latency at batch 1 on cpu take ONNX Runtime INT8 static"
    places = [text.index(part) for part in (answer, "For production", "Anomalies", "against batch", "Every cell")]
    assert places == sorted(places)
    assert text.index("Conditions") < text.index("Do it again") < text.index("redline bench net")


def test_a_tune_says_what_is_recommended_with_its_interval_and_why_not_the_others() -> None:
    text = words_of(tuned())
    conclusion = tuned().conclusion
    assert conclusion is not None
    assert "ONNX Runtime INT8 static" in text
    assert re.search(r"4\.\d+ times faster than the baseline \(99 % interval 4\.\d+ to 4\.\d+\)", text)
    assert all(loser.why in text for loser in conclusion.losers)


def test_the_hero_of_a_tune_is_the_recommended_variant_with_its_ratio() -> None:
    text = body(tuned())
    assert "<h1>ONNX Runtime INT8 static</h1>" in text
    assert re.search(r'class="big">4\.\d+×<', text)
    assert "<em>recommended</em>" in text


def test_an_unfinished_tune_recommends_nothing_anywhere() -> None:
    text = words_of(study_of(Run(purpose="tune", devices=("cpu",), loaders=("samples",), batches=(1, 4))))
    assert "Nothing is recommended" in text
    assert "For production" not in text
    assert "Lowest latency" not in text.partition("Every cell")[0]


def test_memory_that_is_not_sound_is_said_in_its_column() -> None:
    def change(record: dict[str, Any]) -> dict[str, Any]:
        if record["kind"] == "process" and "control" in record["cell"]:
            record["memory"]["private_peak_bytes"] *= 2
        return record

    study = changed(change, devices=("cpu",), loaders=("dummy",))
    assert re.search(r"\d<small>not sound</small>", body(study))
    assert re.search(r"\| \d+ \(not sound\) \|", markdown(study))


def test_a_disturbed_study_shows_no_number_in_its_headline() -> None:
    def change(record: dict[str, Any]) -> dict[str, Any]:
        if record["kind"] == "samples":
            record["disturbance"]["run_delay"] = 0.3
        return record

    study = changed(change, devices=("cpu",), loaders=("samples",), purpose="tune")
    text = words_of(replace(study, conclusion=conclude(study, batch=1, objective="latency")))
    assert "too disturbed to say" in text
    assert "--threads 1" in text
    assert not re.search(r"\d times faster", text)


def test_every_cell_is_a_row_and_says_why_it_has_no_numbers() -> None:
    text = body(usual())
    rows = re.findall(r'<tr class="(measured|failed|skipped)', text)
    assert len(rows) == len(usual().rows)
    assert [rows.count(word) for word in ("measured", "failed", "skipped")] == [
        sum(row.outcome == word for row in usual().rows) for word in ("measured", "failed", "skipped")
    ]
    assert text.count('class="why">failed while measuring: the worker was killed: out of memory') == rows.count(
        "failed"
    )


def test_every_plot_has_words_in_its_place() -> None:
    text = page(usual())
    specs = json.loads(re.search(r'id="specs">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    plots = re.findall(r'data-spec="([^"]*)" role="img" aria-label="([^"]*)"', text)
    assert {key for key, _ in plots} == set(specs)
    assert len(specs) == 2 * (2 * 3 + 3)
    assert all("ms" in label for _, label in plots)


@pytest.mark.parametrize(
    "kinds",
    [
        ("samples",),
        ("process", "agreement"),
        ("ceiling", "bandwidth", "macs", "node"),
        ("variant",),
        ("cell", "variant"),
    ],
)
def test_a_run_with_parts_missing_still_makes_a_page(kinds: tuple[str, ...]) -> None:
    text = words_of(changed(lambda record: None if record["kind"] in kinds else record))
    assert "Conditions" in text
    assert not re.search(r"\b(None|nan|inf)\b", text)


@pytest.mark.parametrize("kinds", [(), ("samples", "process", "cell")])
def test_one_point_shows_bars_and_nothing_shows_no_plot(kinds: tuple[str, ...]) -> None:
    study = changed(lambda record: None if record["kind"] in kinds else record, batches=(4,))
    text = words_of(study)
    assert ("Time of a call cpu, 224×224, batch 4" in text) == (not kinds)
    assert ("Nothing is recommended: no cell was measured." in text) == bool(kinds)
    assert "data-spec" not in body(study)


@pytest.mark.parametrize("purpose", ["bench", "tune"])
def test_names_from_users_are_text(purpose: str) -> None:
    text = page(hostile(purpose))
    assert "<img src=x" not in text
    assert "<script>alert" not in text


def test_the_page_names_nothing_to_fetch() -> None:
    text = page(usual())
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://", markup)
    assert not re.search(r"@import|url\(", markup)
    assert re.findall(r'(?:src|href)="([^"]*)"', markup) == ["data:,"]
    assert "default-src 'none'" in text
    assert len(text) < 2_000_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_every_plot_and_asks_for_nothing(tmp_path: Path) -> None:
    write_html(hostile(), tmp_path / "page.html")
    document, console = chromium(tmp_path, tmp_path / "page.html")
    # A request or a foreign script would be refused by the page's policy, and the console would say so.
    assert console == []
    assert "data-hacked" not in document
    # Of one device at one size and batch: time, throughput, sizes. The others wait until they are seen.
    assert document.count('data-drawn=""') == 3
    assert re.search(r'id="count"[^>]*>(\d+) of \1 cells<', document)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_phone_never_scrolls_sideways_and_filters_and_sorts(tmp_path: Path) -> None:
    tell = """
    setTimeout(() => {
      const d = document.documentElement, all = s => [...document.querySelectorAll(s)];
      for (const box of all('details')) box.open = true;
      all('button[value="cpu"]')[0].click();
      const outcome = document.querySelector('[data-filter="outcome"]');
      outcome.value = "measured";
      outcome.dispatchEvent(new Event("input"));
      const table = all('table[data-grid]')[1];
      table.tHead.rows[0].cells[6].querySelector("button").click();
      const rows = [...table.tBodies[0].rows].filter(row => !row.hidden);
      const times = rows.map(row => Number(row.cells[6].dataset.v));
      const sorted = times.every((time, i) => i === 0 || times[i - 1] <= time) ? 1 : 0;
      setTimeout(() => parent.postMessage(
        [d.clientWidth, d.scrollWidth, all('[data-drawn]').length, rows.length, sorted].join(" "), "*"), 2000);
    }, 2000)
    """
    (width, needed, drawn, rows, sorted_), console = on_a_phone(page(usual()), tmp_path, script=tell, width_px=360)
    assert console == []
    assert needed <= width <= 360
    assert drawn == 6
    assert rows == sum(row.outcome == "measured" for row in usual().at(size="224x224"))
    assert sorted_ == 1
