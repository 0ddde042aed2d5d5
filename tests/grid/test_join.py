from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.grid.records import Record, Run, grid_records

import redline
from redline.core.errors import InputError
from redline.core.files import write_whole
from redline.grid.join import join_grids
from redline.grid.rows import summarize_grid

BOTH = Run(batches=(1, 4), sizes=((224, 224), (384, 384)))
PARTS = (
    Run(batches=(1, 4), sizes=((384, 384),)),
    Run(batches=(1, 4), sizes=((224, 224),)),
)


def lines(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def joined(*parts: Run, change: Any = lambda run: None) -> list[Record]:
    files = {Path(f"part{number}.jsonl"): grid_records(run) for number, run in enumerate(parts)}
    for number, records in enumerate(files.values()):
        if number:
            change(records[0])
    return join_grids(files)


def test_parts_have_the_cells_of_the_whole_in_its_order() -> None:
    whole = summarize_grid(grid_records(BOTH))
    found = summarize_grid(joined(*PARTS))
    assert [row.cell for row in found.rows] == [row.cell for row in whole.rows]
    assert found.run["cells"] == whole.run["cells"]
    assert found.sizes == ("224x224", "384x384")
    assert not [text for text in found.warnings if "ended early" in text]


def test_a_row_keeps_what_its_part_measured_and_where() -> None:
    part = summarize_grid(grid_records(PARTS[1]))
    found = summarize_grid(joined(*PARTS))
    for row in part.rows:
        (same,) = found.at(cell=row.cell)
        assert (same.time_s, same.speedup, same.host_bytes) == (row.time_s, row.speedup, row.host_bytes)
        assert same.node == f"part 2: {row.node}"
        assert same.node in found.nodes


def test_a_cell_that_is_in_two_parts_is_named() -> None:
    with pytest.raises(InputError, match=r"1x224x224 is in part0\.jsonl and in part1\.jsonl"):
        joined(PARTS[1], Run(batches=(1,), sizes=((224, 224),)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run["settings"].update(threads=7), "threads was"),
        (lambda run: run["settings"]["baseline"].update(cpu="onnxruntime-fp32"), "baseline on cpu was"),
        (lambda run: run["environment"].update(cpu="another"), "cpu was"),
        (lambda run: run.update(redline="0.0.1"), "redline was"),
        (lambda run: run["models"][0].update(sha256="0" * 64), "net has other weights"),
        (lambda run: run["environment"].update(gpus=[{"name": "G", "driver": "1"}]), "are G, driver 1"),
    ],
)
def test_unlike_conditions_are_not_joined(change: Any, reason: str) -> None:
    with pytest.raises(InputError, match="are not parts of one grid") as told:
        joined(*PARTS, change=change)
    assert reason in str(told.value)
    assert "redline compare" in str(told.value)


def test_report_takes_parts(tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, run in zip(files, PARTS, strict=True):
        write_whole(file, lines(grid_records(run)))
    study = redline.report(files, tmp_path / "report.md")
    assert len(study.rows) == study.run["cells"]  # type: ignore[union-attr]
    assert "384×384" in (tmp_path / "report.md").read_text()


def test_report_of_a_grid_and_a_tune_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.jsonl", lines(grid_records(PARTS[0])))
    write_whole(tmp_path / "t.jsonl", lines([{"kind": "run", "purpose": "tune", "format": 1}]))
    with pytest.raises(InputError, match=r"t\.jsonl is no grid"):
        redline.report([tmp_path / "a.jsonl", tmp_path / "t.jsonl"])
