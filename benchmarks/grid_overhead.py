"""How much of a grid's wall time is not measuring, for eight cells of small networks with turns of half a second.

What is not measuring: reading the models, making files, starting processes, warming up, reading the memory, writing.
Wanted: at most a quarter. ``stages_s`` says where the time goes; "round" holds the turns, and what is between them.

    python benchmarks/grid_overhead.py -o results/cpu/grid_overhead.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint
from redline.study.config import StudyConfig
from redline.study.journal import read_records
from redline.study.records import ProcessEnded, WindowMeasured

WANTED = 0.25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    config = StudyConfig(
        models=("digits", "convnet"),
        backends=("torch", "onnxruntime"),
        batches=(1, 8),
        threads=1,
        window_s=0.5,
    )
    with tempfile.TemporaryDirectory() as folder:
        before = perf_counter()
        stages = Stages()
        study = redline.bench(config, Path(folder) / "run.jsonl", listener=stages)
        wall_s = perf_counter() - before
        stages("")
        records = read_records(Path(folder) / "run.jsonl")
    measured_s = sum(sum(record.samples_s) for record in records if isinstance(record, WindowMeasured))
    document = {
        "benchmark": "grid_overhead",
        "command": "python benchmarks/grid_overhead.py",
        "settings": to_plain(config),
        "environment": to_plain(fingerprint()),
        "median_call_s": {row.cell: row.time_s for row in study.rows},
        "wall_s": wall_s,
        "stages_s": {name: round(seconds, 2) for name, seconds in stages.seconds.most_common()},
        "processes": len({(r.cell, r.process) for r in records if isinstance(r, ProcessEnded)}),
        "measured_s": measured_s,
        "not_measuring": 1 - measured_s / wall_s,
    }
    print(json.dumps({key: document[key] for key in ("stages_s", "wall_s", "measured_s", "not_measuring")}))
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if document["not_measuring"] < WANTED else 1


class Stages:
    """Seconds by what the engine said that it is doing."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._name, self._since = "", perf_counter()

    def __call__(self, text: str, *_: float) -> None:
        now = perf_counter()
        if self._name:
            self.seconds[self._name] += now - self._since
        place, sign, doing = text.partition(": ")
        self._name, self._since = doing.split()[0] if sign else place, now


if __name__ == "__main__":
    sys.exit(main())
