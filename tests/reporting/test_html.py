"""The page: whole without a network, safe with hostile names, and really drawn by a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert")

from tests.reporting.browser import CHROMIUM, chromium, on_a_phone

from redline.measurement.summary import Study, summarize
from redline.reporting.html import page, write_html

HOSTILE = "</script><img src=x onerror=\"document.documentElement.dataset.hacked='1'\"><script>alert(1)</script>"


@pytest.fixture
def hostile(records: list[dict[str, Any]]) -> Study:
    """The sample with markup in every text that comes from a user."""
    run = records[0]
    run["model"]["name"] = run["command"] = run["data"]["source"] = run["environment"]["cpu"] = HOSTILE
    run["data"]["skipped"][0]["name"] = run["data"]["warning"] = HOSTILE
    for record in records:
        if record["kind"] == "variant":
            record["title"] = f"{record['title']} {HOSTILE}"
        if record["kind"] in ("failed", "skipped", "agreement"):
            record["reason"] = HOSTILE
        if record["kind"] == "artifact":
            record["name"] = record["path"] = HOSTILE
            record["provenance"][0]["arguments"] = {HOSTILE: HOSTILE}
        if record["kind"] == "conclusion":
            record["sentences"] = [HOSTILE]
            record["losers"][0]["why"] = HOSTILE
    return summarize(records)


def body(study: Study) -> str:
    """The page's visible markup, without the plots and scripts."""
    text = page(study).partition("<body>")[2]
    return text.partition('<script type="application/json"')[0]


def test_says_what_is_recommended(study: Study) -> None:
    text = body(study)
    assert "<h1>OpenVINO INT8 (NNCF)</h1>" in text
    for words in ("6.34×", "99 % confidence interval", "at batch 1", "PyTorch eager FP32", "5.40", "94.2", "12.0"):
        assert words in text
    assert "This machine was noisy" in text


def test_shows_every_variant_and_why_some_have_no_numbers(study: Study) -> None:
    text = body(study)
    for row in study.rows:
        assert f"<small>{row.variant}</small>" in text
    for words in (
        "asked for fp32",
        "no difference",
        "not passed",
        "torch.compile needs a C++",
        "no avx512_fp16",
        "n=42",
    ):
        assert words in text


def test_shows_conditions_command_and_provenance(study: Study) -> None:
    text = body(study)
    for words in ("AMD EPYC 9R14", "broken.jpg", "redline tune resnet18 -o out", "861 GFLOP/s", "exporter = dynamo"):
        assert words in text
    for artifact in study.artifacts:
        assert artifact["sha256"] in text


def test_nothing_recommended_is_said_plainly(edited: Callable[..., Study]) -> None:
    def refuse(record: dict[str, Any]) -> dict[str, Any]:
        if record["kind"] != "conclusion":
            return record
        return {**record, "recommended": None, "pareto": [], "headline": "No variant passed the gate", "sentences": []}

    assert "<h1>No variant passed the gate</h1>" in body(edited(refuse))
    unfinished = body(edited(lambda record: None if record["kind"] == "conclusion" else record))
    assert "<h1>This run was not finished</h1>" in unfinished


@pytest.mark.parametrize(
    "kinds",
    [
        ("conclusion", "samples"),
        ("conclusion", "agreement", "memory", "load"),
        ("ceiling", "bandwidth", "macs", "artifact", "memory"),
        ("conclusion", "variant"),
    ],
)
def test_a_run_with_parts_missing_still_makes_a_page(kinds: tuple[str, ...], edited: Callable[..., Study]) -> None:
    text = body(edited(lambda record: None if record["kind"] in kinds else record))
    assert "Conditions" in text
    assert not re.search(r"\b(None|nan|inf)\b", re.sub(r"<[^>]*>", " ", text))


def test_without_labels_it_plots_agreement(without_labels: Study) -> None:
    text = page(without_labels)
    assert "answers that changed, %" in text
    assert "accuracy lost" not in text
    assert "Accuracy" not in body(without_labels)


def test_names_from_users_are_text(hostile: Study) -> None:
    text = page(hostile)
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    specs = re.search(r'<script type="application/json" id="specs">(.*?)</script>', text, re.DOTALL)
    assert specs is not None
    points = json.loads(specs.group(1))["pareto-1-latency"]["data"]["values"]
    assert all(point["title"].endswith(HOSTILE) for point in points)


def test_the_page_names_nothing_to_fetch(study: Study) -> None:
    text = page(study)
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://", markup)
    assert not re.search(r"@import|url\(", markup)
    assert re.findall(r'(?:src|href)="([^"]*)"', markup) == ["data:,"]
    assert "default-src 'none'" in text
    assert len(text) < 1_500_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_draws_every_plot_and_asks_for_nothing(hostile: Study, tmp_path: Path) -> None:
    write_html(hostile, tmp_path / "page.html")
    document, console = chromium(tmp_path, tmp_path / "page.html")
    # A request or a foreign script would be refused by the page's policy, and the console would say so.
    assert console == []
    assert "data-hacked" not in document
    # One plot of quality and one of latencies is seen; the others wait until they are.
    assert document.count('data-drawn=""') == 2
    assert document.count("<svg") >= 3
    assert document.count("<path") > 300


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_phone_never_scrolls_sideways(study: Study, tmp_path: Path) -> None:
    tell = (
        "setTimeout(() => { const d = document.documentElement, n = s => document.querySelectorAll(s).length;"
        "document.querySelector('button[value=\"8\"]').click();"
        "setTimeout(() => parent.postMessage([d.clientWidth, d.scrollWidth, n('[data-drawn]')].join(' '), '*'), 2000);"
        "}, 2000)"
    )
    (width, needed, drawn), console = on_a_phone(page(study), tmp_path, script=tell, width_px=390)
    assert console == []
    assert needed <= width <= 390
    assert drawn == 4
