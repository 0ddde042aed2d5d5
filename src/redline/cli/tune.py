"""``redline tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redline.cli.common import JsonFlag, QuietFlag, console, parse_size, parse_sizes, print_json, progress


def tune_command(
    model: Annotated[str, typer.Argument(help="Built-in name, file.py:factory, .pt2, TorchScript or .onnx.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    data: Annotated[Path | None, typer.Option(help="Folder of images, or arrays in a .npz.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV file with the columns file,label.")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for an NVIDIA GPU.")] = "cpu",
    batch: Annotated[str, typer.Option(help="Batch sizes, as 1 or 1,8; the first is recommended for.")] = "1",
    objective: Annotated[str, typer.Option(help="latency, throughput, memory or size.")] = "latency",
    max_accuracy_drop: Annotated[float, typer.Option(help="How much accuracy may be lost, 0 to 1.")] = 0.01,
    min_agreement: Annotated[float, typer.Option(help="Share of top-1 answers that must stay, 0 to 1.")] = 0.99,
    threads: Annotated[int, typer.Option(help="Threads of every runtime; 0 for every usable core.")] = 0,
    weights: Annotated[str | None, typer.Option(help="Checkpoint for MODEL.")] = None,
    size: Annotated[str | None, typer.Option(help="Image size, as 224 or 224x256 (height x width).")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each variant has its turn.")] = 60,
    window: Annotated[float, typer.Option(help="Seconds of a turn.")] = 0.05,
    samples: Annotated[int, typer.Option(help="The most samples to calibrate on.")] = 64,
    method: Annotated[str, typer.Option(help="Ranges of static INT8: minmax, entropy or percentile.")] = "minmax",
    seed: Annotated[int, typer.Option(help="Of orders, splits and random inputs.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> int:
    """Make every variant of a model, verify and measure each, recommend one.

    Example: `redline tune resnet18 -o out/`
    """
    import redline
    from redline.reporting.table import terminal_table
    from redline.tuning.options import TuneOptions

    options = TuneOptions(
        device=device,  # type: ignore[arg-type]
        batches=parse_sizes(batch, "batch"),
        objective=objective,  # type: ignore[arg-type]
        max_accuracy_drop=max_accuracy_drop,
        min_agreement=min_agreement,
        threads=threads,
        weights=weights,
        size_px=parse_size(size) if size else None,
        variants=tuple(variant or ()),
        rounds=rounds,
        window_s=window,
        calibration_samples=samples,
        method=method,
        seed=seed,
        resume=resume,
    )
    with progress(quiet=quiet or json) as bar:
        task = bar.add_task("tune", total=None)

        def listener(text: str, done_s: float, total_s: float) -> None:
            bar.update(task, description=text, completed=int(done_s), total=int(total_s))

        result = redline.tune(model, out, data=data, labels=labels, options=options, listener=listener)
    conclusion = result.study.conclusion or {}
    if json:
        print_json({**conclusion, "best": result.best, "report": result.report, "out": out})
    else:
        console.print(terminal_table(result.study))
        for warning in result.study.warnings:
            console.print(f"[yellow]Warning:[/] {warning}")
        console.print(f"\n[bold]{conclusion['headline']}[/]")
        for sentence in conclusion["sentences"]:
            console.print(sentence)
        console.print(f"\nReport: {result.report or out / 'report.md'}")
        if result.best:
            console.print(f"Deploy: {result.best}")
    return 0 if conclusion["gate_passed"] else 1
