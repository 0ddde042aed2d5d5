"""``redline build``: TensorRT engines of a model, and what each really is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress
from redline.core.errors import InputError

if TYPE_CHECKING:
    from redline.building.records import BuildResult, BuiltEngine

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def build_command(
    model: Annotated[
        str, typer.Argument(metavar="IN.onnx", help="The float32 file; a PyTorch model for torch-tensorrt.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the plans and build.json.")],
    precision: Annotated[
        list[str] | None, typer.Option("--precision", help="fp32, tf32, fp16, bf16 or int8; repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Images or an .npz: to calibrate INT8 and to verify on.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="A CSV (file, label) for the images.")] = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="The most to calibrate on, and the most to verify on.")
    ] = 128,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="MIN,OPT,MAX", help="Batch sizes (1,32,64) or NAME=shapes; repeatable."),
    ] = None,
    typing: Annotated[
        str, typer.Option("--typing", help="auto, weak (TensorRT to 10), strong, or both to compare.")
    ] = "auto",
    calibrator: Annotated[
        str, typer.Option("--calibrator", help="INT8: auto, entropy, minmax (TensorRT to 10), or qdq.")
    ] = "auto",
    backend: Annotated[str, typer.Option("--backend", help="auto, tensorrt, tensorrt-rtx, torch-tensorrt.")] = "auto",
    target: Annotated[
        str, typer.Option("--target", metavar="smNN", help="Build for this GPU, which need not be here (RTX).")
    ] = "",
    workspace: Annotated[
        str, typer.Option("--workspace", metavar="SIZE", help="Most memory of one layer, such as 4GiB.")
    ] = "",
    level: Annotated[int, typer.Option("--level", min=0, max=5, help="Builder optimization level.")] = 3,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="For every GPU since Ampere.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later versions of the same TensorRT too.")
    ] = False,
    timing_cache: Annotated[
        Path | None, typer.Option("--timing-cache", help="File of timings to start from and add to.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Time the engines that run here.")] = True,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build also what is there already.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Build TensorRT engines; says what precision their layers really have, whether they agree and how fast they are.

    Example: `redline build model.onnx -o plans --precision fp16 --precision int8 --data images/ --profile 1,32,64`
    """
    from redline.commands.build import BuildOptions, build

    options = BuildOptions(
        backend=cast("Any", backend),
        typing=cast("Any", typing),
        calibrator=cast("Any", calibrator),
        profiles=tuple(profile or ()),
        samples=samples,
        target=target,
        workspace_bytes=parse_bytes(workspace) if workspace else 0,
        optimization_level=level,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        timing_cache=str(timing_cache or ""),
        measure=measure,
        rebuild=rebuild,
    )
    with progress(quiet=quiet or as_json) as bar:
        task = bar.add_task("building", total=None)
        result = build(
            model,
            out,
            precisions=tuple(precision or ("fp32", "fp16")),
            data=data,
            labels=labels,
            options=options,
            progress=lambda what, done, total: bar.update(task, description=what[:48], completed=done, total=total),
        )
    if as_json:
        print_json(result.to_json())
    else:
        _show(result, out)
    if not result.passed:
        raise typer.Exit(1)


def parse_bytes(text: str) -> int:
    """Bytes from ``4GiB``, ``512MiB`` or a plain number.

    >>> parse_bytes("4GiB"), parse_bytes("512 MB"), parse_bytes("100")
    (4294967296, 512000000, 100)
    """
    number = text.strip().lower().rstrip("kmgib ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError) as error:
        raise InputError(f"got size {text!r}, expected a number with KiB, MiB or GiB, such as 4GiB") from error


def _show(result: BuildResult, out: Path) -> None:
    where = ", ".join(f"{name} {value}" for name, value in result.platform.items())
    console.print(f"{result.model['name']} on {where}", markup=False, soft_wrap=True)
    table = Table("asked", "typing", "engine has", "bytes", "MB", "build", "top-1", "error", box=None, pad_edge=False)
    for index in (3, 4, 5, 6, 7):
        table.columns[index].justify = "right"
    for variant in result.variants:
        table.add_row(*_row(variant))
    console.print(table)
    _show_latencies(result)
    for variant in result.variants:
        for line in ([f"failed: {variant.failed}"] if variant.failed else []) + list(variant.notes):
            console.print(f"{variant.recipe.name}: {line}", markup=False, soft_wrap=True)
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)
    ran = any(variant.agreement for variant in result.variants)
    verified = f"verified on {result.samples}; " if ran else ""
    console.print(f"{verified}everything is in {out}", markup=False, soft_wrap=True)


def _row(variant: BuiltEngine) -> tuple[str, ...]:
    asked = variant.recipe.precision + (f" ({variant.recipe.calibrator})" if variant.recipe.calibrator else "")
    if variant.engine is None:
        return asked, variant.recipe.typing, "[red]not built[/]", "", "", "", "", ""
    got = escape(variant.got or "")
    size = variant.size_bytes or 0
    return (
        asked,
        variant.recipe.typing,
        got if variant.as_asked else f"[yellow]{got}[/]",
        f"{size:,}",
        f"{size / 1e6:.2f}",
        f"{variant.build_s or 0:.1f} s",
        *_agreement(variant),
    )


def _agreement(variant: BuiltEngine) -> tuple[str, str]:
    """Share of samples with the FP32 model's class, and the norm of the error over that of the answers."""
    found = variant.agreement
    if found is None:
        return "not run", ""
    errors = [output.errors.relative for output in found.outputs if output.errors]
    words = (f"{found.top1.value:.1%}" if found.top1 else "-", f"{max(errors):.1e}" if errors else "-")
    return words if found.passed else (f"[red]{words[0]}[/]", f"[red]{words[1]}[/]")


def _show_latencies(result: BuildResult) -> None:
    if not any(variant.latencies for variant in result.variants):
        return
    table = Table("batch", "engine", "device ms", "end to end ms", "samples/s", box=None, pad_edge=False)
    for index in (0, 2, 3, 4):
        table.columns[index].justify = "right"
    rows = [(latency, variant.recipe.name) for variant in result.variants for latency in variant.latencies]
    for latency, name in sorted(rows, key=lambda row: row[0].batch):
        device = f"{latency.device_ms:.3f}" if latency.device_ms is not None else "-"
        table.add_row(
            str(latency.batch), escape(name), device, f"{latency.end_to_end_ms:.3f}", f"{latency.throughput:,.0f}"
        )
    console.print(table)
