"""A grid that is killed again and again ends with every cell once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.onnx_models import conv_model

KILLS = 6
# Two precisions and the control at six batches.
CELLS, REPEATS, ROUNDS = 18, 2, 3
# What comes after the cells is not what this is about, and the limits of this machine take longer than all of them.
RUNNER = """
import sys
import redline.study.ceilings as ceilings
ceilings._GEMM_TRIALS = ()
ceilings.copy_gbytes_per_s = lambda threads: 10.0
from redline.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as told:
        return subprocess.Popen(
            [sys.executable, "-c", RUNNER, *words], stdout=told, stderr=subprocess.STDOUT, start_new_session=True
        )


def lines_in(out: Path) -> list[bytes]:
    return out.read_bytes().splitlines(keepends=True) if out.is_file() else []


def records_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_in(out) if line.endswith(b"\n")]


def test_killed_at_any_moment_it_ends_with_every_cell_once(tmp_path: Path) -> None:
    model, out = conv_model(tmp_path / "model.onnx"), tmp_path / "run.jsonl"
    words = ["bench", str(model), "-o", str(out), "--backend", "onnxruntime", "--baseline", "onnxruntime-fp32"]
    words += ["--precision", "fp32", "--precision", "int8-dynamic", "--batch", "1,2,3,4,5,6", "--quiet", "--resume"]
    words += ["--rounds", str(ROUNDS), "--repeats", str(REPEATS), "--duration", "0.01", "--warmup", "0.05"]
    moments = random.Random(0)
    for _ in range(KILLS):
        process = start([*words, "--threads", "1"], tmp_path / "log")
        target = len(lines_in(out)) + moments.randint(1, 25)
        end = time.monotonic() + 60
        while len(lines_in(out)) < target and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start([*words, "--threads", "1"], tmp_path / "log")
    assert process.wait(timeout=240) == 0, (tmp_path / "log").read_text()
    records = records_in(out)
    cells = Counter(record["cell"] for record in records if record["kind"] == "cell")
    assert len(cells) == CELLS
    assert set(cells.values()) == {1}
    windows = Counter((r["cell"], r["process"], r["round"]) for r in records if r["kind"] == "samples")
    assert len(windows) == CELLS * REPEATS * ROUNDS
    assert set(windows.values()) == {1}
    assert {record["outcome"] for record in records if record["kind"] == "cell"} == {"measured"}
