"""Markdown for a README or a pull request."""

from __future__ import annotations

import re

from redline.measurement.summary import Study
from redline.reporting.markdown import markdown


def table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_says_the_conclusion_the_table_and_the_conditions(study: Study) -> None:
    text = markdown(study)
    assert "**OpenVINO INT8 (NNCF) is 6.3 times faster" in text
    assert "> **Warning:** This machine was noisy" in text
    assert re.search(r"bf16 \(20 of 21 layers\) \(asked for fp32\)", text)
    for words in ("## Batch 1", "## Batch 8", "AMD EPYC", "broken.jpg", "redline tune resnet18 -o out", "2.13.0+cpu"):
        assert words in text


def test_every_line_of_a_table_has_the_same_cells(edited) -> None:
    def hostile(record):
        return {**record, "reason": "a | b\n<script>`x`"} if record["kind"] in ("failed", "skipped") else record

    text = markdown(edited(hostile))
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table_lines(text)}) == 1
    assert "<script>" not in text


def test_an_unfinished_run_recommends_nothing(edited) -> None:
    text = markdown(edited(lambda record: None if record["kind"] == "conclusion" else record))
    assert "not finished" in text
    assert "Why not the others" not in text
