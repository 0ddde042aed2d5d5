"""``redline tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from redline.cli.common import JsonFlag, QuietFlag, console, listening, parse_size, parse_sizes, print_json, print_plan
from redline.cli.common import study_values as values_of


def tune_command(
    model: Annotated[
        str | None, typer.Argument(help="Built-in name, file.py:factory, .pt2, TorchScript or .onnx.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="STUDY.toml", help="A study; flags go before it.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images, or arrays in a .npz.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV file with the columns file,label.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda for an NVIDIA GPU.")] = None,
    batch: Annotated[str | None, typer.Option(help="Batch sizes, as 1 or 1,8; the first is recommended for.")] = None,
    objective: Annotated[str | None, typer.Option(help="latency, throughput, memory or size.")] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="How much accuracy may be lost, 0 to 1; 0.01.")
    ] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Share of top-1 answers that must stay, 0 to 1; 0.99.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of every runtime; 0 for the cores that are idle.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Checkpoint for MODEL.")] = None,
    size: Annotated[str | None, typer.Option(help="Image size, as 224 or 224x256 (height x width).")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only this variant; may be repeated.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Generations of processes that measure every variant; 3.")] = None,
    confirm: Annotated[int | None, typer.Option(help="Fresh generations that measure the finalists again; 6.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often each variant has its turn in a generation; 6.")] = None,
    window: Annotated[float | None, typer.Option(help="Seconds of a turn, at least; 0.05.")] = None,
    samples: Annotated[int | None, typer.Option(help="The most samples to calibrate on; 64.")] = None,
    method: Annotated[str | None, typer.Option(help="Ranges of static INT8: minmax, entropy or percentile.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of orders, splits and random inputs.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the variants and about how long it takes.")] = False,
    quiet: QuietFlag = False,
    json: JsonFlag = False,
) -> int:
    """Make every variant of a model, verify and measure each, recommend one.

    Example: `redline tune resnet18 -o out/`
    """
    import redline
    from redline.commands.tune import TUNE, tune_config
    from redline.commands.tune import dry_run as plan
    from redline.core.errors import InputError

    study = values_of(
        TUNE,
        config,
        models=(model,) if model else (),
        data=str(data) if data else None,
        labels=str(labels) if labels else None,
        devices=(device,) if device else (),
        batches=parse_sizes(batch, "batch") if batch else (),
        objective=objective,
        max_accuracy_drop=max_accuracy_drop,
        min_agreement=min_agreement,
        threads=threads,
        weights=weights,
        sizes=(parse_size(size),) if size else (),
        variants=tuple(variant or ()),
        repeats=repeats,
        confirm=confirm,
        rounds=rounds,
        window_s=window,
        samples=samples,
        method=method,
        seed=seed,
    )
    if study.models == TUNE.models or len(study.models) != 1:
        raise InputError(f"got {len(study.models) if study.models != TUNE.models else 'no'} models, expected one MODEL")
    if dry_run:
        print_plan(tune_config(study.models[0], study), *plan(study.models[0], study), as_json=json)
        return 0
    if out is None:
        raise InputError("got no folder; name one by -o out/")
    with listening("tune", quiet=quiet or json) as listener:
        result = redline.tune(study.models[0], out, config=study, resume=resume, listener=listener)
    return _print_result(result, out, as_json=json)


def _print_result(result: object, out: Path, *, as_json: bool) -> int:
    from redline.cli.report import print_study
    from redline.commands.tune import TuneResult
    from redline.core.plain import to_plain

    if not isinstance(result, TuneResult) or result.study.conclusion is None:
        return 1
    conclusion = result.study.conclusion
    if as_json:
        plain = to_plain(conclusion)
        told = plain if isinstance(plain, dict) else {}
        print_json({**told, "best": result.best, "report": result.report, "out": out})
        return 0 if conclusion.gate_passed else 1
    print_study(result.study)
    console.print(f"\nReport: {result.report or out / 'report.md'}", markup=False, soft_wrap=True)
    if result.best:
        console.print(f"Deploy: {result.best}", markup=False, soft_wrap=True)
    return 0 if conclusion.gate_passed else 1
