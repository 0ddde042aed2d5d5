"""Bench measures a grid whole: every cell is a row once, whatever happens to some of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.onnx_models import conv_model

from redline.cli import main
from redline.commands.bench import bench, dry_run
from redline.core.errors import BusyError, InputError
from redline.study.config import StudyConfig
from redline.study.journal import read_records
from redline.study.records import CellEnded, ProcessEnded, WindowMeasured
from redline.study.rows import Study
from redline.variants import VARIANTS, Variant

ORT = "onnxruntime-fp32"


@pytest.fixture(autouse=True)
def no_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redline.study.ceilings._GEMM_TRIALS", ())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def small(model: Path, **values: object) -> StudyConfig:
    given = {
        "models": (str(model),),
        "backends": ("onnxruntime",),
        "batches": (1, 3),
        "baseline": ORT,
        "rounds": 3,
        "window_s": 0.01,
        "warmup_s": 0.1,
        "repeats": 2,
        "threads": 1,
        **values,
    }
    return StudyConfig(**given)  # type: ignore[arg-type]


def outcomes(study: Study) -> dict[str, str]:
    return {row.cell.partition("/")[2].split("/", 1)[-1]: row.outcome for row in study.rows}


def test_a_grid_is_measured_whole(tmp_path: Path, images: Path) -> None:
    config = small(
        conv_model(tmp_path / "model.onnx"), precisions=("fp32", "int8-dynamic"), loaders=("dummy", "real"),
        data=str(images),
    )  # fmt: skip
    study = bench(config, tmp_path / "run.jsonl")
    assert [row.outcome for row in study.rows] == ["measured"] * 12
    assert study.run.cells == 12
    for row in study.rows:
        assert [process.number for process in row.processes] == [0, 1]
        assert all(len(process.rounds_s) == 3 for process in row.processes)
        assert row.calls >= 2
        assert row.time_s is not None
        assert row.time_s > 0
        assert row.host_bytes is not None
        assert row.host_bytes > 10_000_000
        assert row.weights_bytes
        assert row.control or row.top1_agreement is not None
        assert (row.pipeline_s is not None) == (row.loader == "real") == (row.serial_s is not None)
    assert all(row.is_baseline == (row.variant == ORT) for row in study.rows)
    assert sum(row.control for row in study.rows) == 4
    assert {row.precision for row in study.rows} == {"fp32", "int8"}
    records = read_records(tmp_path / "run.jsonl")
    assert study.run.clock.overhead_s < 1e-3
    assert sum(isinstance(record, ProcessEnded) for record in records) == 24


def test_what_cannot_run_here_is_a_row_with_the_reason(tmp_path: Path) -> None:
    config = small(
        conv_model(tmp_path / "model.onnx"), backends=("onnxruntime", "torch", "tensorrt"), devices=("cpu", "cuda"),
        precisions=("fp32", "int8"), batches=(1,),
    )  # fmt: skip
    study = bench(config, tmp_path / "run.jsonl")
    reasons = {(row.variant, row.device): row.reason for row in study.rows if row.outcome == "skipped"}
    assert reasons["torch-eager-fp32", "cpu"] == f"{config.models[0]} is an ONNX file, and this runs PyTorch models"
    assert reasons["torch-int8", "cpu"] == "there is no torch in int8 on cpu"
    assert reasons["tensorrt-fp32", "cpu"] == "there is no tensorrt in fp32 on cpu"
    assert "no NVIDIA" in str(reasons[ORT, "cuda"])
    assert [row.variant for row in study.rows if row.outcome == "measured"] == [
        ORT, f"{ORT}-control", "onnxruntime-int8-static",
    ]  # fmt: skip


def test_a_cell_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Variant(
        name="broken-fp32", title="Broken", backend="onnxruntime", runtime="onnxruntime", requested="fp32",
        file="optimized", options={"graph_optimization": "everything"},
    )  # fmt: skip
    monkeypatch.setattr("redline.study.plan.VARIANTS", (*VARIANTS, broken))
    study = bench(small(conv_model(tmp_path / "model.onnx")), tmp_path / "run.jsonl")
    failed = [row for row in study.rows if row.variant == "broken-fp32"]
    assert {(row.outcome, row.stage) for row in failed} == {("failed", "build")}
    assert all("graph_optimization" in str(row.reason) for row in failed)
    assert {row.outcome for row in study.rows if row.variant == ORT} == {"measured"}


def test_a_cell_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    config = small(conv_model(tmp_path / "model.onnx"), cell_timeout_s=0.001, batches=(1,))
    study = bench(config, tmp_path / "run.jsonl")
    assert len(study.rows) == 2
    assert all(row.outcome == "failed" and "no answer in" in str(row.reason) for row in study.rows)


def test_a_model_that_lacks_a_size_fails_there_alone(tmp_path: Path) -> None:
    config = small(conv_model(tmp_path / "model.onnx"), sizes=((16, 16), (32, 32)), batches=(1,))
    study = bench(config, tmp_path / "run.jsonl")
    found = {row.size: (row.outcome, row.reason) for row in study.rows}
    assert found["16x16"] == ("measured", None)
    assert found["32x32"] == ("failed", "it takes images of 16x16 only, got 32x32")


def test_a_loader_without_images_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = small(conv_model(tmp_path / "model.onnx"), loaders=("dummy", "real"), data=str(tmp_path / "empty"))
    study = bench(config, tmp_path / "run.jsonl")
    assert {(row.loader, row.outcome) for row in study.rows} == {("dummy", "measured"), ("real", "skipped")}
    assert all("no image" in str(row.reason) for row in study.rows if row.loader == "real")


def test_where_no_model_loads_nothing_is_measured(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="no model can be loaded"):
        bench(small(tmp_path / "model.onnx"), tmp_path / "run.jsonl")
    assert not (tmp_path / "run.jsonl").exists()


def test_one_model_of_two_that_does_not_load_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    good, broken = str(conv_model(tmp_path / "model.onnx")), str(tmp_path / "broken.onnx")
    study = bench(small(tmp_path, models=(good, broken), batches=(1,), repeats=1), tmp_path / "run.jsonl")
    assert {row.model: (row.outcome, row.stage) for row in study.rows} == {
        good: ("measured", None),
        broken: ("failed", "load"),
    }


def test_a_finished_run_is_not_measured_again(tmp_path: Path) -> None:
    config = small(conv_model(tmp_path / "model.onnx"))
    bench(config, tmp_path / "run.jsonl")
    before = (tmp_path / "run.jsonl").read_bytes()
    bench(config, tmp_path / "run.jsonl", resume=True)
    assert (tmp_path / "run.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="holds a run already"):
        bench(config, tmp_path / "run.jsonl")
    with pytest.raises(InputError, match=r"another rounds \(3, now 4\)"):
        bench(replace(config, rounds=4), tmp_path / "run.jsonl", resume=True)


def test_an_interrupted_run_goes_on_from_its_last_window(tmp_path: Path) -> None:
    config = small(conv_model(tmp_path / "model.onnx"), precisions=("fp32", "int8-dynamic"))
    whole = bench(config, tmp_path / "run.jsonl")
    lines = (tmp_path / "run.jsonl").read_bytes().splitlines(keepends=True)
    kept = [json.loads(line) for line in lines]
    middle = [index for index, record in enumerate(kept) if record["kind"] == "samples"][17]
    (tmp_path / "run.jsonl").write_bytes(b"".join(lines[: middle + 1]) + lines[middle + 1][:20])
    again = bench(config, tmp_path / "run.jsonl", resume=True)
    assert outcomes(again) == outcomes(whole)
    records = read_records(tmp_path / "run.jsonl")
    windows = Counter((r.cell, r.process, r.round) for r in records if isinstance(r, WindowMeasured))
    assert len(windows) == 6 * 2 * 3
    assert set(windows.values()) == {1}
    assert Counter(r.cell for r in records if isinstance(r, CellEnded)) == Counter(row.cell for row in whole.rows)


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    import filelock

    with filelock.FileLock(tmp_path / ".run.jsonl.lock"), pytest.raises(BusyError, match="held by another run"):
        bench(small(conv_model(tmp_path / "model.onnx")), tmp_path / "run.jsonl")


def test_a_dry_run_says_what_would_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells, seconds = dry_run(small(tmp_path / "model.onnx"))
    assert sum(len(group.cells) for group in cells) == 4
    assert seconds > 1
    words = ["bench", "resnet18", "--backend", "torch", "--precision", "int8", "--batch", "1,2", "--size", "96"]
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "resnet18/torch-int8/cpu/dummy/2x96x96  skipped: there is no torch in int8 on cpu" in out
    assert "cells, each in 3 processes with 6 turns: about" in out
    assert main([*words, "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 6


def test_the_command_line_measures_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = conv_model(tmp_path / "model.onnx")
    out = tmp_path / "run.jsonl"
    words = ["--backend", "onnxruntime", "--baseline", ORT, "--rounds", "3", "--duration", "0.01", "--warmup", "0.1"]
    words += ["--repeats", "1", "--threads", "1"]
    assert main(["bench", str(model), "-o", str(out), *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cells"], told["measured"], told["failed"]) == (2, 2, 0)
    assert main(["bench", str(model), "-o", str(out), *words, "--resume"]) == 0
    assert "redline report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["resnet18"], "got no results file; name one by -o run.jsonl"),
        (["-o", "run.jsonl"], "got no model"),
        (["resnet18", "-o", "run.csv"], "expected a results file that ends in .jsonl"),
        (["resnet18", "-o", "run.jsonl", "--backend", "tensort"], "did you mean tensorrt?"),
        (["resnet18", "-o", "run.jsonl", "--size", "12x"], "got size '12x'"),
        (["--config", "nowhere.toml", "-o", "run.jsonl"], "nowhere.toml is not a file"),
    ],
)
def test_bad_words_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_backend_may_have_a_python_of_its_own(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\nREDLINE_OTHER=1 exec {sys.executable} "$@"\n')
    other.chmod(0o755)
    gone = ("openvino", str(tmp_path / "nowhere"))
    config = small(
        conv_model(tmp_path / "model.onnx"), backends=("onnxruntime", "openvino"), batches=(1,),
        interpreters=(("onnxruntime", str(other)), gone),
    )  # fmt: skip
    study = bench(config, tmp_path / "run.jsonl")
    found = {row.variant: (row.outcome, row.reason) for row in study.rows}
    assert found[ORT] == ("measured", None)
    assert found["openvino-fp32"][0] == "skipped"
    assert "nowhere" in str(found["openvino-fp32"][1])


def test_random_numbers_prove_errors_and_no_agreement(tmp_path: Path) -> None:
    config = small(conv_model(tmp_path / "model.onnx"), precisions=("fp32", "int8-dynamic"), batches=(1,), repeats=1)
    rows = {row.variant: row for row in bench(config, tmp_path / "run.jsonl").rows}
    int8 = rows["onnxruntime-int8-dynamic"]
    assert int8.top1_agreement is None
    assert int8.relative_error is not None
    assert 0 < int8.relative_error < 0.5
    assert int8.finite
