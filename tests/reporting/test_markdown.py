"""Markdown of a grid: the same answer, tables and conditions as the page."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.reporting.grids import changed, tuned, usual

from redline.findings.conclusions import found_in
from redline.reporting.answers import answer, picks
from redline.reporting.markdown import markdown


def test_says_answer_anomalies_tables_and_conditions() -> None:
    text = markdown(usual())
    assert text.startswith("# net, benchmarked\n")
    for words in (
        "**At 224×224 pixels: for the lowest latency at batch 1 on cpu take ONNX Runtime INT8 static",
        "## For production",
        "## Anomalies",
        "## 160×160",
        "## 224×320",
        "fp32 (20 of 21 layers) (not as asked)",
        "failed while measuring: the worker was killed: out of memory",
        "NVIDIA's driver counts",
        "Some CPU",
        "redline bench net",
    ):
        assert words in text


def test_every_table_is_whole() -> None:
    for block in markdown(usual()).split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1
    text = markdown(usual())
    assert sum(line.startswith("|") and "×" in line for line in text.splitlines()) >= len(usual().rows)


def test_names_from_users_break_no_table() -> None:
    def hostile(record):
        if record["kind"] == "cell":
            return {**record, "outcome": "failed", "stage": "build", "reason": "a | b\n<script>`x`"}
        return {**record, "title": "x|y"} if record["kind"] == "variant" else record

    text = markdown(changed(hostile))
    assert "<script>" not in text
    assert "x\\|y" in text
    assert "**Nothing is recommended.**" in text


def test_a_tune_says_what_is_recommended_and_why_not_the_others() -> None:
    text = markdown(tuned())
    conclusion = tuned().conclusion
    assert conclusion is not None
    assert f"**{conclusion.headline}" in text
    for loser in conclusion.losers:
        assert loser.why in text


def test_an_unfinished_tune_recommends_nothing() -> None:
    assert "not finished" in markdown(replace(tuned(), conclusion=None))


def test_a_choice_among_equals_is_not_said_to_be_the_only_one() -> None:
    def twin(cell):
        return 0.01 * cell.images

    alone, tied = usual(), changed(lambda record: record, time=twin, devices=("cpu",), loaders=("dummy",))
    assert "level with others" in answer(tied, found_in(tied)).split(";")[0]
    assert "level with others" not in answer(alone, found_in(alone)).split(";")[0]


def test_a_headline_claims_no_more_than_a_wide_interval_does() -> None:
    study = changed(lambda record: record, noise=2.0, process_noise=0.3)
    assert not [pick for pick in picks(study, found_in(study)) if "×" in pick.speedup]
