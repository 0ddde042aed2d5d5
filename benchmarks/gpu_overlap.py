"""Copies and computing at the same time: how near a stream of batches comes to the slower of the bus and the engine.

For each engine, in turns so that the clocks of the chip are the same for all: the bus alone, the engine alone, both at
once without waiting for each other (no stream of batches can be faster than the slower of those), and Redline's
``session.stream`` from page-locked arrays, from ordinary arrays, and one call at a time; all from host arrays to host
arrays.

    python benchmarks/gpu_overlap.py plans/resnet18_fp16.plan plans/resnet18_int8.plan -o results/gpu/overlap.json
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import redline
from redline.backends import open_engine
from redline.backends.cuda import Event, Stream
from redline.core.artifact import Engine
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint

WANTED = 0.95
_HEAD = (
    "| engine | batch | bus | engine | both at once | stream, page-locked | stream, ordinary | one by one "
    "| stream of the slower | stream of both |"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", type=Path, nargs="+")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--count", type=int, default=300, help="batches in a stream")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    document: dict[str, Any] = {
        "benchmark": "gpu_overlap",
        "command": "python benchmarks/gpu_overlap.py resnet18_fp16.plan resnet18_int8.plan",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint()),
        "engines": {},
    }
    for path in args.engines:
        document["engines"][path.stem] = measure(path, args.batch, args.count, args.repeats)
        if args.out:
            write_whole(args.out, json.dumps(document, indent=1) + "\n")
            write_whole(args.out.with_suffix(".md"), markdown(document))
    print(markdown(document))
    return 0 if all(one["of_the_slower"]["stream_pinned"] >= WANTED for one in document["engines"].values()) else 1


def measure(path: Path, batch: int, count: int, repeats: int) -> dict[str, Any]:
    session: Any = open_engine(str(path))
    rng = np.random.default_rng(0)
    pinned = [session.allocate_inputs(batch) for _ in range(4)]
    for feed in pinned:
        for array in feed.values():
            array[...] = rng.standard_normal(array.shape).astype(array.dtype)
    plain = [{name: array.copy() for name, array in feed.items()} for feed in pinned]
    session.warm(pinned[0])
    list(session.stream(pinned * 3))
    ways = {
        "bus": lambda: _bus(session, pinned[0]),
        "compute": lambda: median(session.device_times(pinned[0], 40)),
        "both": lambda: _both(session, pinned, count),
        "stream_pinned": lambda: _streamed(session, pinned, count),
        "stream_ordinary": lambda: _streamed(session, plain, count),
        "one_by_one": lambda: _one_by_one(session, plain, 40),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            samples[name].append(way())
    session.close()
    seconds = {name: median(values) for name, values in samples.items()}
    slower = max(seconds["bus"], seconds["compute"])
    size = sum(array.nbytes for array in pinned[0].values())
    streams = ("stream_pinned", "stream_ordinary", "one_by_one")
    return {
        "platform": dict(Engine.described(path).platform),
        "batch": batch,
        "input_bytes": size,
        "batches_streamed": count,
        "repeats": repeats,
        "seconds": seconds,
        "samples_s": samples,
        "bus_gb_per_s": size / seconds["bus"] / 1e9,
        "of_the_slower": {name: slower / seconds[name] for name in streams},
        "of_both_at_once": {name: seconds["both"] / seconds[name] for name in streams},
    }


def _bus(session: Any, feed: Any) -> float:
    lane, stream = session._lanes[0], session._shared.overlapped.upload
    marks = [Event(timed=True) for _ in range(41)]
    marks[0].record(stream)
    for mark in marks[1:]:
        _copy(lane, feed, stream)
        mark.record(stream)
    stream.synchronize()
    return median(after.seconds_since(before) for before, after in pairwise(marks))


def _both(session: Any, feeds: Any, count: int) -> float:
    """Seconds a batch when the copies and the engine run side by side and nobody waits for anybody."""
    lines, lane = session._shared.overlapped, session._lanes[1]
    plan = session._lanes[0].plan(feeds[0])
    before = perf_counter()
    for index in range(count):
        _copy(lane, feeds[index % len(feeds)], lines.upload)
        session._lanes[0].enqueue(plan, lines.compute)
    lines.synchronize()
    return (perf_counter() - before) / count


def _copy(lane: Any, feed: Any, stream: Stream) -> None:
    for name, array in feed.items():
        stream.upload(lane._device.pointer + lane._regions[name].offset, array.ctypes.data, array.nbytes)


def _streamed(session: Any, feeds: Any, count: int) -> float:
    before = perf_counter()
    for _ in session.stream(feeds[index % len(feeds)] for index in range(count)):
        pass
    return (perf_counter() - before) / count


def _one_by_one(session: Any, feeds: Any, count: int) -> float:
    before = perf_counter()
    for index in range(count):
        session(feeds[index % len(feeds)])
    return (perf_counter() - before) / count


def markdown(document: dict[str, Any]) -> str:
    lines = [
        "# Copies and computing at the same time",
        "",
        "Milliseconds a batch, medians of turns; host arrays in, host arrays out.",
        "",
        _HEAD,
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in document["engines"].items():
        ms = {key: f"{value * 1e3:.3f}" for key, value in one["seconds"].items()}
        shown = ("compute", "both", "stream_pinned", "stream_ordinary", "one_by_one")
        lines.append(
            f"| {name} | {one['batch']} | {ms['bus']} ({one['bus_gb_per_s']:.1f} GB/s) | "
            + " | ".join(ms[key] for key in shown)
            + f" | {one['of_the_slower']['stream_pinned']:.1%} | {one['of_both_at_once']['stream_pinned']:.1%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
