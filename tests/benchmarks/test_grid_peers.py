"""The side by side: rows of our own run, reasons of what failed, and the page's table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.studies import Run, lines_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def grid_peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program as it runs: with its own folder on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("grid_peers")


def cell(batch: int, times: list[list[float]], **more: Any) -> list[dict[str, Any]]:
    name = f"resnet18/onnxruntime-fp32/cpu/dummy/{batch}x224x224"
    memory = {"private_peak_bytes": 100, "private_before_bytes": 10, "rss_peak_bytes": 300}
    process = {"load_s": 0.5, "first_call_s": 0.1, "warm_up_calls": 5, "stable": True, "memory": memory}
    place = {"model": "resnet18", "variant": "onnxruntime-fp32", "device": "cpu", "loader": "dummy", "node": "n0"}
    lines: list[dict[str, Any]] = []
    for repeat, samples in enumerate(times):
        where = {"cell": name, "phase": "screen", "process": repeat}
        lines.append({"kind": "process", **where, "window_s": 0.2, **process})
        lines.append({"kind": "samples", **where, "round": 0, "samples_s": samples})
    ended = {"outcome": "measured", "stage": None, "reason": None, **more}
    return [*lines, {"kind": "cell", "cell": name, **place, "batch": batch, "size": [224, 224], **ended}]


def results(path: Path, *cells: list[dict[str, Any]]) -> Path:
    run = lines_of(Run(models=("resnet18",), devices=("cpu",)))[0]
    run["settings"]["threads"] = 1
    path.write_text("".join(json.dumps(line) + "\n" for line in [run, *(line for one in cells for line in one)]))
    return path


def test_our_cells_are_read_from_a_run(grid_peers: ModuleType, tmp_path: Path) -> None:
    path = results(tmp_path / "results.jsonl", cell(1, [[0.010, 0.012, 0.011], [0.020, 0.022, 0.021]]))
    rows = {(row["runtime"], row["batch"]): row["runs"] for row in grid_peers.redline_rows(path)}
    assert set(rows) == {(runtime, batch) for runtime in ("PyTorch eager", "ONNX Runtime") for batch in (1, 8)}
    first, second = rows["ONNX Runtime", 1]
    assert (first["time_s"], second["time_s"]) == (0.011, 0.021)
    assert (first["statistic"], first["calls"]) == ("median", 3)
    assert (first["memory_bytes"], first["rss_peak_bytes"], first["load_s"]) == (100, 300, 0.5)
    assert first["threads"] == "1, by its option"
    assert rows["ONNX Runtime", 8] == [{"failed": "results.jsonl has no such cell"}]


def test_a_cell_of_ours_that_failed_says_why(grid_peers: ModuleType, tmp_path: Path) -> None:
    failed = cell(1, [], outcome="failed", stage="open", reason="no memory")
    rows = grid_peers.redline_rows(results(tmp_path / "results.jsonl", failed))
    (runs,) = [row["runs"] for row in rows if (row["runtime"], row["batch"]) == ("ONNX Runtime", 1)]
    assert runs == [{"failed": "failed: no memory"}]


def test_without_a_run_of_ours_there_are_no_rows_of_ours(grid_peers: ModuleType) -> None:
    assert grid_peers.redline_rows(None) == []


def test_the_reason_is_what_was_raised(grid_peers: ModuleType) -> None:
    told = 'Traceback\n  File "a.py"\nImportError: cannot load:\nImportError("no name X")\nSet HYDRA_FULL_ERROR=1\n'
    assert grid_peers.reason(1, told) == 'exit 1: ImportError: cannot load: ImportError("no name X")'
    assert grid_peers.reason(2, "") == "exit 2: no output"
    assert grid_peers.reason(None, "") == "did not end in time"


def test_a_hung_tool_is_ended_with_what_it_started(grid_peers: ModuleType, tmp_path: Path) -> None:
    assert grid_peers.execute(["tail", "-f", "/dev/null"], tmp_path, limit_s=0.05) == (None, "")
    assert grid_peers.execute(["sh", "-c", "echo told; exit 3"], tmp_path) == (3, "told\n")


def test_nothing_of_where_things_lay_is_written(grid_peers: ModuleType) -> None:
    text = f"/x/venv-a/bin/python /x/work/hub /x/work/runs/1 /y/ours.jsonl {ROOT / 'benchmarks/grid_peers.py'}"
    plain = grid_peers.without_paths(text, Path("/x/work"), {"polygraphy": Path("/x/venv-a/bin/python")}, {"/y": "out"})
    assert plain.split() == [
        ".peers/polygraphy/bin/python", "out/grid_peers/hub", "out/grid_peers/runs/1", "out/ours.jsonl",
        "benchmarks/grid_peers.py",
    ]  # fmt: skip


def test_every_tool_is_one_row(grid_peers: ModuleType) -> None:
    names = [(tool.name, tool.how, tool.runtime) for tool in grid_peers.TOOLS]
    assert len(set(names)) == len(names)
    assert {tool.environment for tool in grid_peers.TOOLS} == set(grid_peers.PACKAGES)


def test_the_table_goes_between_the_markers_and_again(grid_peers: ModuleType, tmp_path: Path) -> None:
    run = {"statistic": "median", "said": "", "threads": "1", "calls": 5}
    memory = {"memory_bytes": 5_000_000, "rss_peak_bytes": 9_000_000, "memory": "private (USS)"}
    row = {"how": "", "runtime": "ONNX Runtime", "batch": 1, "model": "m"}
    document = {
        "environment": {"cpu": "A CPU", "cores_available": 2, "noise": {"warning": "others are at work"}},
        "repeats": 2, "created": "2026-01-02T00:00:00", "versions": {"torch": "torch 2"},
        "rows": [
            {**row, "tool": "torch.utils.benchmark", "runs": [{**run, "time_s": 0.010}, {**run, "time_s": 0.012}]},
            {**row, "tool": "other", "runs": [{**run, "time_s": 0.022, **memory}]},
            {**row, "tool": "broken", "runs": [{"failed": "ImportError: no X | Y"}]},
        ],
    }  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table:begin (x) -->\nold\n<!-- table:end -->\nafter\n")
    grid_peers.write_table(page, document)
    once = page.read_text()
    grid_peers.write_table(page, document)
    assert page.read_text() == once
    assert once.startswith("before\n<!-- table:begin (x) -->\n")
    assert once.endswith("<!-- table:end -->\nafter\n")
    assert "old" not in once
    assert "**Not measured on a quiet machine**: others are at work" in once
    assert "| torch.utils.benchmark | 1 | 11.0 (median) | 10.0 · 12.0 | 1.00 |" in once
    assert "| other | 1 | 22.0 (median) | 22.0 | 2.00 |  |  | 5 |  | 5 USS, 9 RSS |  |" in once
    assert "| broken | | – | ImportError: no X \\| Y |" in once


def test_the_page_has_markers(grid_peers: ModuleType) -> None:
    text = grid_peers.PAGE.read_text(encoding="utf-8")
    table = sys.modules["peers.grid_table"]
    assert text.index(table.BEGIN) < text.index(table.END)
