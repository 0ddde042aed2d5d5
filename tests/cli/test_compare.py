"""``redline compare``: two runs side by side, and an exit code for scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.studies import Cell, Run, lines_of, usual_outcome, usual_time

from redline.cli import main


def slower_ort(cell: Cell) -> float:
    return usual_time(cell) * (1.3 if cell.variant == "onnxruntime-fp32" else 1.0)


def written(path: Path, run: Run) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in lines_of(run)))
    return path


def test_a_regression_ends_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(tmp_path / "before.jsonl", Run(seed=1))
    same, after = (
        written(tmp_path / "same.jsonl", Run(seed=2)),
        written(tmp_path / "after.jsonl", Run(seed=3, time=slower_ort)),
    )
    assert main(["compare", str(before), str(same), "--fail-on-regression", "5%"]) == 0
    assert "Slower than allowed" not in capsys.readouterr().out
    assert main(["compare", str(before), str(after)]) == 0
    assert main(["compare", str(before), str(after), "--fail-on-regression", "5%"]) == 1
    assert "Slower than allowed" in capsys.readouterr().out
    assert main(["compare", str(before), str(after), "--fail-on-regression", "0.05", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["regressions"]
    assert all("onnxruntime-fp32" in cell for cell in told["regressions"])


def test_a_cell_that_ran_before_and_fails_now_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(cell: Cell) -> tuple[str, str | None, str | None]:
        if cell.variant == "onnxruntime-fp32" and cell.batch == 4:
            return "failed", "open", "it is broken now"
        return usual_outcome(cell)

    before = written(tmp_path / "before.jsonl", Run(seed=1))
    after = written(tmp_path / "after.jsonl", Run(seed=2, outcome=fails))
    assert main(["compare", str(before), str(after), "--fail-on-regression", "5%"]) == 1
    assert "Measured before and not now: net/onnxruntime-fp32/cpu/dummy/4x224x224" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["fast", "-5%", "2000%"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "run.jsonl", Run())
    assert main(["compare", str(run), str(run), "--fail-on-regression", share]) == 2
    assert repr(share) in capsys.readouterr().err
