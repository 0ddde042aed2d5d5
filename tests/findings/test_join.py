from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.studies import Record, Run, lines_of, records_of, study_of

import redline
from redline.core.errors import InputError
from redline.core.files import write_whole
from redline.findings.conclusions import found_in
from redline.findings.join import join_parts
from redline.study import records as kinds
from redline.study.derive import summarize

BOTH = Run(batches=(1, 4), sizes=((224, 224), (384, 384)))
PARTS = (
    Run(batches=(1, 4), sizes=((384, 384),)),
    Run(batches=(1, 4), sizes=((224, 224),)),
)


def lines(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def joined(*parts: Run, change: Any = lambda run: None) -> tuple[kinds.Record, ...]:
    def at(number: int) -> Any:
        def edit(record: Record) -> Record:
            if number and record["kind"] == "run":
                change(record)
            return record

        return edit

    return join_parts({Path(f"part{n}.jsonl"): records_of(replace(run, change=at(n))) for n, run in enumerate(parts)})


def test_parts_have_the_cells_of_the_whole_in_its_order() -> None:
    whole = study_of(BOTH)
    found = summarize(joined(*PARTS))
    assert [row.cell for row in found.rows] == [row.cell for row in whole.rows]
    assert found.run.cells == whole.run.cells
    assert {row.size for row in found.rows} == {"224x224", "384x384"}
    assert not [text for text in found_in(found).warnings if "ended early" in text]


def test_a_row_keeps_what_its_part_measured_and_where() -> None:
    part = study_of(PARTS[1])
    found = summarize(joined(*PARTS))
    for row in part.rows:
        (same,) = [one for one in found.rows if one.cell == row.cell]
        assert (same.time_s, same.ratio, same.host_bytes) == (row.time_s, row.ratio, row.host_bytes)
        assert same.node == f"part 2: {row.node}"
        assert same.node in found.nodes


def test_a_cell_that_is_in_two_parts_is_named() -> None:
    with pytest.raises(InputError, match=r"1x224x224 is in part0\.jsonl and in part1\.jsonl"):
        joined(PARTS[1], Run(batches=(1,), sizes=((224, 224),)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run["settings"].update(threads=7), "threads was"),
        (lambda run: run["baselines"].update(cpu="onnxruntime-fp32"), "baseline on cpu was"),
        (lambda run: run["machine"]["environment"].update(cpu="another"), "cpu was"),
        (lambda run: run.update(redline="0.0.1"), "redline was"),
        (lambda run: run["models"][0].update(sha256="0" * 64), "net has other weights"),
        (lambda run: run["machine"]["gpus"][0].update(name="G", driver="1"), "G, driver 1"),
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
        write_whole(file, lines(lines_of(run)))
    study = redline.report(files, tmp_path / "report.md")
    assert len(study.rows) == study.run.cells + sum(row.control for row in study.rows)
    assert "384×384" in (tmp_path / "report.md").read_text()


def test_report_of_a_grid_and_a_tune_is_refused(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.jsonl", lines(lines_of(PARTS[0])))
    write_whole(tmp_path / "t.jsonl", lines(lines_of(replace(PARTS[1], purpose="tune"))))
    with pytest.raises(InputError, match=r"t\.jsonl is of redline tune"):
        redline.report([tmp_path / "a.jsonl", tmp_path / "t.jsonl"])
