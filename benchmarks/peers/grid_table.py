"""The side by side as a Markdown table, from its result file, between two markers of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- table:begin", "<!-- table:end -->"
REFERENCE = "torch.utils.benchmark"


def write_table(page: Path, document: Mapping[str, Any]) -> None:
    """Put the tables between the page's markers."""
    text = page.read_text(encoding="utf-8")
    start, end = text.index(BEGIN), text.index(END)
    head = text[start:].split("\n", 1)[0]
    page.write_text(text[:start] + f"{head}\n\n{tables(document)}\n" + text[end:], encoding="utf-8")


def tables(document: Mapping[str, Any]) -> str:
    """Conditions, one table for each runtime and batch, what failed, the versions."""
    environment, rows = document["environment"], document["rows"]
    noise = (environment.get("noise") or {}).get("warning")
    conditions = (
        f"{environment['cpu']}, {environment['cores_available']} cores, each tool {document['repeats']} times, "
        f"one after another, {document['created'][:10]}."
    )
    lines = [conditions, "", *([f"**Not measured on a quiet machine**: {noise}", ""] if noise else [])]
    found = {(row["runtime"], row["batch"]) for row in rows}
    cells = sorted(found, key=lambda cell: (cell[0] != "PyTorch eager", cell))
    for runtime, batch in cells:
        here = [row for row in rows if (row["runtime"], row["batch"]) == (runtime, batch)]
        lines += _cell(runtime, batch, here)
    lines += ["Versions: " + "; ".join(f"{name}: {text}" for name, text in document["versions"].items()) + "."]
    return "\n".join([*lines, ""])


def _cell(runtime: str, batch: int, rows: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"### {runtime}, FP32, batch {batch}",
        "",
        "| tool | threads | says, ms | each run, ms | against torch's timer | p90, ms | p99, ms | calls | warm-up | memory, MB | load, s |",  # noqa: E501
        "|---|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    reference = next((_time(row) for row in rows if row["tool"] == REFERENCE), None)
    for row in rows:
        good = [run for run in row["runs"] if not run.get("failed")]
        name = row["tool"] + (f", {row['how']}" if row["how"] else "")
        if not good:
            why = row["runs"][0]["failed"].replace("|", "\\|") if row["runs"] else "not run"
            lines.append(f"| {name} | | – | {why} | | | | | | | |")
            continue
        time_s = _time(row)
        ratio = f"{time_s / reference:.2f}" if time_s and reference else ""
        last = good[-1]
        each = " · ".join(_ms(run["time_s"]) for run in good)
        words = [
            name, last.get("threads") or "", f"{_ms(time_s)} ({last['statistic']})", each, ratio,
            _ms(_middle(good, "p90_s")), _ms(_middle(good, "p99_s")), _count(good, "calls"),
            _count(good, "warm_up_calls"), _memory(good), _s(_middle(good, "load_s")),
        ]  # fmt: skip
        lines.append("| " + " | ".join(words) + " |")
    return [*lines, ""]


def _time(row: Mapping[str, Any]) -> float | None:
    return _middle([run for run in row["runs"] if not run.get("failed")], "time_s")


def _middle(runs: Iterable[Mapping[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name) is not None]
    return median(values) if values else None


def _count(runs: Iterable[Mapping[str, Any]], name: str) -> str:
    found = sorted({run[name] for run in runs if run.get(name) is not None})
    return "" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value * 1e3:.1f}"


def _s(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _memory(runs: list[Mapping[str, Any]]) -> str:
    """With the word for what was counted: resident pages, or those that are the process's own."""
    value, resident = _middle(runs, "memory_bytes"), _middle(runs, "rss_peak_bytes")
    if value is None:
        return ""
    kind = "USS" if "USS" in (runs[0].get("memory") or "") else "RSS"
    return f"{value / 1e6:.0f} {kind}" + (f", {resident / 1e6:.0f} RSS" if resident else "")
