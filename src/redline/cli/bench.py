"""``redline bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.common import JsonFlag, QuietFlag, console, listening, parse_sizes, print_json, print_plan
from redline.cli.common import study_values as values_of

if TYPE_CHECKING:
    from redline.study.rows import Study


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
    loader: Annotated[str | None, typer.Option(help="dummy, samples, real, or several: real,dummy.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as 32,40.")] = None,
    size: Annotated[str | None, typer.Option(help="Image sizes, as 224,256 or 224x320 (height x width).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images for the loader real.")] = None,
    baseline: Annotated[str | None, typer.Option(help="What others are compared with, as torch-fp32.")] = None,
    warmup: Annotated[float | None, typer.Option(metavar="S", help="The longest warm-up of a cell.")] = None,
    duration: Annotated[float | None, typer.Option(metavar="S", help="How long a turn of a cell is, at least.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often each cell has its turn in one generation.")] = None,
    repeats: Annotated[int | None, typer.Option(help="How many generations of worker processes.")] = None,
    confirm: Annotated[int | None, typer.Option(help="Fresh generations that measure the best again; 0.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="The most that a cell may take.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of every runtime; 0 for the cores that are idle.")
    ] = None,
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
    from redline.study.config import StudyConfig, parse_image_size

    nothing = StudyConfig(models=("",))
    grid = values_of(
        nothing,
        config,
        models=tuple(models or ()),
        backends=tuple(backend or ()),
        precisions=tuple(precision or ()),
        devices=tuple(device or ()),
        loaders=tuple(loader.split(",")) if loader else (),
        batches=parse_sizes(batch, "batch") if batch else (),
        sizes=tuple(parse_image_size(one) for one in size.split(",")) if size else (),
        data=str(data) if data else None,
        baseline=baseline,
        warmup_s=warmup,
        window_s=duration,
        rounds=rounds,
        repeats=repeats,
        confirm=confirm,
        cell_timeout_s=timeout,
        threads=threads,
        seed=seed,
        interpreters=tuple(_interpreter(one) for one in interpreter or ()),
    )
    if grid.models == nothing.models:
        raise InputError("got no model; name one, or a study by --config studies/resnet18.toml")
    if dry_run:
        print_plan(grid, *plan(grid), as_json=json)
        return 0
    if out is None:
        raise InputError("got no results file; name one by -o run.jsonl")
    with listening("bench", quiet=quiet or json) as listener:
        study = redline.bench(grid, out, resume=resume, cluster=cluster, listener=listener)
    _print_study(study, out, as_json=json)
    return 0


def _interpreter(text: str) -> tuple[str, str]:
    from redline.core.errors import InputError

    backend, equals, path = text.partition("=")
    if not equals or not path:
        raise InputError(f"got interpreter {text!r}, expected BACKEND=PYTHON such as tensorrt=/opt/trt/bin/python")
    return backend, path


def _print_study(study: Study, out: Path, *, as_json: bool) -> None:
    from redline.cli.report import print_study
    from redline.findings.conclusions import found_in

    if as_json:
        outcomes = [row.outcome for row in study.rows]
        counts = {outcome: outcomes.count(outcome) for outcome in ("measured", "skipped", "failed")}
        print_json({"out": out, "cells": len(study.rows), **counts, "warnings": found_in(study).warnings})
        return
    print_study(study)
    told = f"\nResults: {out}. For the report: redline report {out} -o {out.with_suffix('.html')}"
    console.print(told, markup=False, soft_wrap=True)
