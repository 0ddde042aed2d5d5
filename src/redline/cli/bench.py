"""``redline bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from redline.cli.common import JsonFlag, QuietFlag, console, parse_sizes, print_json, progress

if TYPE_CHECKING:
    from redline.grid.config import GridConfig


def bench_command(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models; or they are in STUDY.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN.jsonl", help="Results file.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="STUDY.toml", help="A study; flags go before it.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="torch, onnxruntime, openvino, tensorrt …; repeatable.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="fp32, tf32, fp16, bf16, int8 …; repeatable.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="cpu or cuda; repeatable.")] = None,
    loader: Annotated[str | None, typer.Option(help="dummy, real, or both: real,dummy.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as 32,40.")] = None,
    size: Annotated[str | None, typer.Option(help="Image sizes, as 224,256 or 224x320 (height x width).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images for the loader real.")] = None,
    baseline: Annotated[str | None, typer.Option(help="What others are compared with, as torch-fp32.")] = None,
    warmup: Annotated[float | None, typer.Option(metavar="S", help="The longest warm-up of a cell.")] = None,
    duration: Annotated[float | None, typer.Option(metavar="S", help="How long a turn of a cell is.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often each cell has its turn in one repeat.")] = None,
    repeats: Annotated[int | None, typer.Option(help="How many generations of worker processes.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="The most that a cell may take.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of every runtime; 0 for every usable core.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of orders and random inputs.")] = None,
    interpreter: Annotated[
        list[str] | None, typer.Option(metavar="BACKEND=PYTHON", help="Another Python for a backend; repeatable.")
    ] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Spread it over a Ray cluster.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and about how long they take.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> int:
    """Measure a grid: model x backend x precision x device x loader x batch x image size.

    Example: `redline bench resnet18 --backend torch --backend onnxruntime --batch 1,8 -o run.jsonl`
    """
    import redline
    from redline.commands.bench import dry_run as plan
    from redline.core.errors import InputError
    from redline.grid.config import GridConfig, parse_image_size, read_config

    values: dict[str, Any] = read_config(config) if config else {}
    flags = {
        "models": tuple(models or ()),
        "backends": tuple(backend or ()),
        "precisions": tuple(precision or ()),
        "devices": tuple(device or ()),
        "loaders": tuple(loader.split(",")) if loader else (),
        "batches": parse_sizes(batch, "batch") if batch else (),
        "sizes": tuple(parse_image_size(one) for one in size.split(",")) if size else (),
        "data": str(data) if data else None,
        "baseline": baseline,
        "warmup_s": warmup,
        "window_s": duration,
        "rounds": rounds,
        "repeats": repeats,
        "cell_timeout_s": timeout,
        "threads": threads,
        "seed": seed,
        "interpreters": tuple(_interpreter(one) for one in interpreter or ()),
    }
    values |= {key: value for key, value in flags.items() if value is not None and value != ()}
    if not values.get("models"):
        raise InputError("got no model; name one, or a study by --config studies/resnet18.toml")
    grid = GridConfig(**values)
    if dry_run:
        return _print_plan(grid, *plan(grid), as_json=json)
    if out is None:
        raise InputError("got no results file; name one by -o run.jsonl")
    with progress(quiet=quiet or json) as bar:
        task = bar.add_task("bench", total=None)

        def listener(text: str, done_s: float, total_s: float) -> None:
            bar.update(task, description=escape(text), completed=int(done_s), total=int(total_s) or None)

        study = redline.bench(grid, out, resume=resume, cluster=cluster, listener=listener)
    if json:
        outcomes = [row.outcome for row in study.rows]
        counts = {outcome: outcomes.count(outcome) for outcome in ("measured", "skipped", "failed")}
        print_json({"out": out, "cells": len(study.rows), **counts, "warnings": study.warnings})
        return 0
    _print_study(study, out)
    return 0


def _interpreter(text: str) -> tuple[str, str]:
    from redline.core.errors import InputError

    backend, equals, path = text.partition("=")
    if not equals or not path:
        raise InputError(f"got interpreter {text!r}, expected BACKEND=PYTHON such as tensorrt=/opt/trt/bin/python")
    return backend, path


def _print_plan(grid: GridConfig, cells: Any, seconds: float, *, as_json: bool) -> int:
    if as_json:
        print_json({"cells": [{**cell.fields(), "refused": cell.refused} for cell in cells], "expected_s": seconds})
        return 0
    for cell in cells:
        console.print(escape(cell.id) + (f"  [yellow]skipped: {escape(cell.refused)}[/]" if cell.refused else ""))
    minutes = seconds / 60
    text = f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} s"
    console.print(f"\n{len(cells)} cells, {grid.repeats} x {grid.rounds} turns each: about {text}, model files apart")
    return 0


def _print_study(study: Any, out: Path) -> None:
    from redline.reporting.grid_terminal import grid_table

    console.print(grid_table(study))
    for anomaly in study.anomalies:
        console.print(f"[yellow]Odd:[/] {escape(anomaly.text)} {anomaly.cause}")
    for warning in study.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}")
    console.print()
    for recommendation in study.conclusions.recommendations:
        console.print(f"[bold]{escape(recommendation.goal)}:[/] {escape(recommendation.text)}")
    told = f"\nResults: {out}. For the report: redline report {out} -o {out.with_suffix('.html')}"
    console.print(told, markup=False, soft_wrap=True)
