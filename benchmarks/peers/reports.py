"""What a benchmark tool says at the end of a run, read from its own report: a file or what it printed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of one tool; None is what its report does not have.

    Attributes:
        said: The lines that the numbers were read from, as the tool wrote them.
        statistic: What the tool puts forward as the time of a call.
        time_s: That time.
        spread_s: Standard deviation or interquartile range, whichever the tool prints; ``spread`` says which.
        calls: Timed calls.
        warm_up_calls: Calls before them.
        memory_bytes: The largest memory figure of the report; ``memory`` says what it is.
        load_s: Until the model can be called.
        threads: As the report, or the runtime itself, has it.
    """

    said: str
    statistic: Literal["mean", "median"]
    time_s: float
    mean_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    spread_s: float | None = None
    spread: str | None = None
    calls: int | None = None
    warm_up_calls: int | None = None
    memory_bytes: int | None = None
    memory: str | None = None
    load_s: float | None = None
    first_call_s: float | None = None
    threads: str | None = None


class NoReportError(RuntimeError):
    """The tool ended well and its report has no time of a call; the message has what it said instead."""


def read_optimum(document: Mapping[str, Any], *, warm_up_calls: int, threads: str) -> Report:
    """``benchmark_report.json`` of optimum-benchmark; what it was told is not in there and comes from its config."""
    forward, load, first = document["forward"], document["load_model"], document["first_forward"]
    latency = forward["latency"]
    if latency["unit"] != "s":
        raise NoReportError(f"latency in {latency['unit']}, expected s")
    memories = [target["memory"]["max_ram"] for target in (load, first, forward) if target["memory"]]
    return Report(
        said=f"forward.latency: mean {latency['mean']:.6f}, p50 {latency['p50']:.6f}, count {latency['count']} (s)"
        + (f"; max_ram {max(memories):.2f} (MB)" if memories else ""),
        statistic="mean",
        time_s=latency["mean"],
        mean_s=latency["mean"],
        p50_s=latency["p50"],
        p90_s=latency["p90"],
        p99_s=latency["p99"],
        spread_s=latency["stdev"],
        spread="standard deviation",
        calls=latency["count"],
        # Its first call is timed apart, then come warmup_runs more.
        warm_up_calls=1 + warm_up_calls,
        memory_bytes=round(max(memories) * 1e6) if memories else None,
        memory="largest RSS of its process, polled every 10 ms",
        load_s=load["latency"]["mean"],
        first_call_s=first["latency"]["mean"],
        threads=threads,
    )


def read_polygraphy(text: str, *, threads: str) -> Report:
    """What ``polygraphy run --sequential-runners`` prints."""
    text = _COLOURS.sub("", text)
    found = re.search(r"Completed (\d+) iteration\(s\) in .*? \| Average inference time: ([\d.e+]+) ms", text)
    if not found:
        raise NoReportError(f"no time of a call in its output, which ends with: {_last_line(text)}")
    warm_up = re.search(r"Finished (\d+) warm-up run", text)
    mean_s = float(found[2]) * 1e-3
    return Report(
        said=found[0],
        statistic="mean",
        time_s=mean_s,
        mean_s=mean_s,
        calls=int(found[1]),
        warm_up_calls=int(warm_up[1]) if warm_up else 0,
        threads=threads,
    )


def read_profile(text: str) -> Report:
    """What Ultralytics' ``ProfileModels`` prints: one row of Markdown, and a progress bar that has the calls."""
    text = _COLOURS.sub("", text)
    found = re.search(r"^\| .*?\| *\d+ \| - \| ([\d.]+)±([\d.]+) ms \|.*$", text, flags=re.M)
    if not found:
        raise NoReportError(f"no row in its output, which ends with: {_last_line(text)}")
    if float(found[1]) == 0:
        raise NoReportError(f"its row has no ONNX time: {found[0]}")
    bars = re.findall(r"100% \S+ (\d+)/\1\b", text)
    mean_s = float(found[1]) * 1e-3
    return Report(
        said=found[0],
        statistic="mean",
        time_s=mean_s,
        mean_s=mean_s,
        spread_s=float(found[2]) * 1e-3,
        spread="standard deviation of what is left after clipping at 2 sigma",
        calls=int(bars[-1]) if bars else None,
        threads=_threads(text),
    )


def read_yolo_benchmark(text: str) -> Report:
    """What Ultralytics' ``benchmark`` prints for one format: a table with one row, and the images that it went over."""
    text = _COLOURS.sub("", text)
    row = r"^\| *1 +(?P<format>\S+) +\S+ +(?P<size>\S+) +(?P<metric>\S+) +(?P<ms>\S+) +(?P<fps>\S+) *\|$"
    found = re.search(row, text, flags=re.M)
    if not found or found["ms"] == "-":
        why = re.search(r"Benchmark failure for .*", text)
        raise NoReportError(why[0] if why else f"no row in its output, which ends with: {_last_line(text)}")
    bars = re.findall(r"100% \S+ (\d+)/\1 ", text)
    mean_s = float(found["ms"]) * 1e-3
    return Report(
        said=" ".join(found[0].split()),
        statistic="mean",
        time_s=mean_s,
        mean_s=mean_s,
        calls=int(bars[-1]) if bars else None,
        threads=_threads(text),
    )


def read_torch_timer(text: str) -> Report:
    """What a ``Measurement`` of ``torch.utils.benchmark`` prints."""
    middle = re.search(r"^ +Median: ([\d.]+) (s|ms|us|ns)$", text, flags=re.M)
    count = re.search(r"^ +(\d+) measurements?, (\d+) runs per measurement, (\d+) threads?$", text, flags=re.M)
    if not middle or not count:
        raise NoReportError(f"no median in its output, which ends with: {_last_line(text)}")
    spread = re.search(r"^ +IQR: +([\d.]+) (s|ms|us|ns) ", text, flags=re.M)
    warning = re.search(r"^ +WARNING: (.*)$", text, flags=re.M)
    median_s = float(middle[1]) * _UNITS_S[middle[2]]
    said = [line[0].strip() for line in (middle, spread, count, warning) if line]
    return Report(
        said="; ".join(said),
        statistic="median",
        time_s=median_s,
        p50_s=median_s,
        spread_s=float(spread[1]) * _UNITS_S[spread[2]] if spread else None,
        spread="interquartile range" if spread else None,
        calls=int(count[1]) * int(count[2]),
        threads=count[3],
    )


def _threads(text: str) -> str | None:
    """What ``timed_ultralytics.py`` read from the runtimes."""
    found = re.search(r"^threads: (.*)$", text, flags=re.M)
    return found[1].strip() if found else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].split(" | ")[0][:200] if lines else "nothing"
