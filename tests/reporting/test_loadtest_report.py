"""``redline report`` of a load test: recognised by its file, in every form; Markdown and the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.reporting.loadtest_documents import FP32, INT8, Document, Server, changed, small, summary_of, usual

import redline
from redline.cli import main
from redline.core.errors import ArtifactError, InputError
from redline.loadtesting.summary import Summary
from redline.reporting.loadtest_markdown import loadtest_markdown
from redline.reporting.loadtest_terminal import loadtest_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loadtest.json").write_text(json.dumps(small()))
    return tmp_path


def in_terminal(summary: Summary) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(loadtest_table(summary))
    return captured.get().splitlines()


@pytest.mark.parametrize("name", ["run.md", "run.html"])
@pytest.mark.parametrize("given", [".", "loadtest.json"])
def test_writes_the_form_of_the_suffix(name: str, given: str, folder: Path) -> None:
    if name.endswith(".html"):
        pytest.importorskip("vl_convert")
    assert main(["report", str(folder / given), "-o", str(folder / name)]) == 0
    assert "int8 against fp32" in (folder / name).read_text()


def test_a_load_test_has_no_csv(folder: Path) -> None:
    with pytest.raises(InputError, match=r"got x\.csv, expected a name that ends in \.html, \.md$"):
        redline.report(folder, folder / "x.csv")


def test_prints_the_table_and_the_conclusion(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"20/s +fp32", text)
    assert "int8 keeps up with 20 requests/s" in text
    assert "Warning: Both servers ran on this machine" in text


def test_json_is_one_document(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"targets", "comparisons", "conclusion", "warnings"}


@pytest.mark.parametrize("text", ["[]", "{", '{"format": 1, "points": [{}]}'])
def test_a_file_that_is_no_load_test_is_one_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "loadtest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"loadtest\.json"):
        redline.report(tmp_path / "loadtest.json")


def test_a_terminal_of_80_columns_shows_every_number() -> None:
    long = Server(name="openvino-int8-with-a-name-of-forty-letters", infer_s=0.015)
    for summary in (summary_of(usual()), summary_of(usual(FP32, long))):
        lines = in_terminal(summary)
        assert max(len(line.rstrip()) for line in lines) <= 80
        assert sum("×" in line and " of " not in line for line in lines) == 18
        assert any(re.search(r"60/s +fp32 +51\.0 +321 +506 +517 +7\.0 %", line) for line in lines)
        assert any("fp32: 3,386× 503 of 19,267 requests" in line for line in lines)


def test_square_brackets_in_names_are_text() -> None:
    lines = in_terminal(changed(lambda _: None, FP32, Server(name="[bold]x[/y]", infer_s=0.01)))
    assert any("[bold]x[/y]" in line for line in lines)


def test_markdown_says_claim_figures_tables_and_conditions() -> None:
    text = loadtest_markdown(summary_of(usual()))
    assert text.startswith(
        "# int8 against fp32, load-tested\n\n**2.00×** the requests a second of fp32, with 8 users (95"
    )
    for words in (
        "- p99 at 40/s: 45.1 ms (from 151 ms)",
        "> **Warning:** More than 1 % of the requests failed",
        "## Where the time goes, at 40/s, Poisson arrivals",
        "| 60/s \\* | fp32 | 51.0 | 321 | 485 | 506 | 517 | 7.0 % (84× 503) | 36.7 |  |",
        "## Closed loop",
        "| 503 | 3,386 | 431 |",
        "- objective: 150 ms",
        "- seed: 0",
        "```sh\nredline loadtest fp32.onnx int8.onnx",
    ):
        assert words in text


def test_every_markdown_table_is_whole() -> None:
    three = changed(lambda _: None, FP32, Server(name="a|b", infer_s=0.02), INT8)
    for summary in (summary_of(usual()), three):
        for block in loadtest_markdown(summary).split("\n\n"):
            lines = [line for line in block.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1


def test_names_from_users_break_no_markdown() -> None:
    def spoil(document: Document) -> None:
        document["targets"][1]["name"] = "a | b\n<script>`x`"
        document["command"] = "redline ```\n<b>"

    text = loadtest_markdown(changed(spoil))
    assert "<script>" not in text
    assert "````sh" in text


def test_an_empty_load_test_still_makes_a_text() -> None:
    text = loadtest_markdown(changed(lambda document: document.update(points=[], agreement=None)))
    assert "Nothing was answered" in text
    assert not re.search(r"\b(None|nan)\b", text)
