"""``redline report``: forms by suffix, errors in one line, runs that were cut off."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.studies import write_tune

from redline.cli import main


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tune(tmp_path_factory.mktemp("tune") / "results.jsonl")


@pytest.mark.parametrize("name", ["run.md", "run.csv", "run.html"])
def test_writes_the_form_of_the_suffix(
    sample: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith(".html"):
        pytest.importorskip("vl_convert")
    assert main(["report", str(sample), "-o", str(tmp_path / name)]) == 0
    assert "ONNX Runtime INT8 static" in (tmp_path / name).read_text()
    assert capsys.readouterr().out == f"wrote {tmp_path / name}\n"


def test_without_a_file_it_prints_a_table(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(sample)]) == 0
    assert "onnxruntime-fp32 " in capsys.readouterr().out


def test_json_is_one_document(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(sample), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["rows"]) == 2 * 6
    assert document["conclusion"]["recommended"] == "onnxruntime-int8-static"
    row = next(row for row in document["rows"] if row["variant"] == "onnxruntime-int8-static" and row["batch"] == 8)
    assert row["claim"]["verdict"] == "faster"


def test_a_run_that_was_killed_is_read_as_far_as_it_got(sample: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(sample.read_bytes()[:-400])
    assert main(["report", str(torn), "-o", str(tmp_path / "run.md")]) == 0
    assert "not finished" in (tmp_path / "run.md").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not a file"),
        ("", "is not a results file"),
        ("hello\n", "run.jsonl:1: "),
        ('{"kind": "run", "format": 99}\n', "has format 99"),
        ('{"kind": "run", "format": 1}\n', "read it with Redline 0.1"),
        ('{"kind": "run", "format": 2, "models": 3}\n', "run.jsonl:1: "),
    ],
)
def test_a_bad_file_is_one_clear_line(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.jsonl"
    if content is not None:
        run.write_text(content)
    assert main(["report", str(run), "-o", str(tmp_path / "run.md")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("redline: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run.md").exists()


def test_another_suffix_is_refused(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(sample), "-o", str(tmp_path / "run.pdf")]) == 2
    assert "expected a name that ends in .html, .md, .csv" in capsys.readouterr().err


def test_only_html_needs_the_plot_packages(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    monkeypatch.delitem(sys.modules, "redline.reporting.plots", raising=False)
    assert main(["report", str(sample), "-o", str(tmp_path / "run.md")]) == 0
    assert main(["report", str(sample), "-o", str(tmp_path / "run.html")]) == 3
    assert "pip install 'redline[report]'" in capsys.readouterr().err
