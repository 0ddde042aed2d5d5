"""``redline report`` of a benchmark: recognised by its run line, in every form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.studies import Run, lines_of

import redline
from redline.cli import main
from redline.study.rows import Study


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "grid.jsonl"
    records = lines_of(Run(devices=("cpu",), batches=(1, 4), rounds=3))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["run.md", "run.csv", "run.html"])
def test_writes_the_form_of_the_suffix(name: str, run: Path, tmp_path: Path) -> None:
    if name.endswith(".html"):
        pytest.importorskip("vl_convert")
    assert main(["report", str(run), "-o", str(tmp_path / name)]) == 0
    assert "ONNX Runtime INT8 static" in (tmp_path / name).read_text()


def test_a_tunes_folder_is_read_as_its_results(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    run.rename(folder / "results.jsonl")
    study = redline.report(folder)
    assert isinstance(study, Study)
    assert study.rows


def test_prints_the_table_and_the_recommendations(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    text = capsys.readouterr().out
    assert "cpu 4×3×224×224 dummy" in text
    assert "lowest latency at batch 1" in text


def test_json_is_one_document(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["rows"]) == 2 * 2 * 6
    assert set(document) == {"rows", "conclusion", "anomalies", "conclusions", "warnings"}


def test_a_run_that_was_killed_is_read_as_far_as_it_got(run: Path, tmp_path: Path) -> None:
    run.write_bytes(run.read_bytes()[:-4000])
    assert main(["report", str(run), "-o", str(tmp_path / "run.md")]) == 0
    assert "have no result" in (tmp_path / "run.md").read_text()


def test_a_bad_record_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"kind": "run", "format": 2, "purpose": "bench"}\n{"kind": "cell", "cell": "x"}\n')
    assert main(["report", str(bad)]) == 2
    error = capsys.readouterr().err
    assert "bad.jsonl:1: " in error
    assert error.count("\n") == 1
