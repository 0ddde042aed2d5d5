"""``scale convert``: TensorRT engines for a folder of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from redline.cli.build import parse_bytes
from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress

if TYPE_CHECKING:
    from scale.models.conversion import Conversion
    from scale.models.convert import ConvertResult

_COLOURS = {"built": "green", "kept": "green", "failed": "red"}


def convert_command(
    models_dir: Annotated[Path, typer.Option("--models-dir", metavar="DIR", help="Folder of the models.")] = Path(
        "models"
    ),
    model: Annotated[
        list[Path] | None, typer.Option("--model", metavar="FILE", help="This model alone; repeatable.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Windows in one call.")] = 32,
    imgsz: Annotated[
        int | None, typer.Option("--imgsz", min=32, metavar="PX", help="Side of the input; else the model's own.")
    ] = None,
    half: Annotated[bool, typer.Option("--half/--no-half", help="FP16, or FP32.")] = True,
    input_type: Annotated[
        Literal["uint8", "float"],
        typer.Option("--input", help="What engines take: bytes, which they scale themselves, or floats."),
    ] = "uint8",
    keep_head: Annotated[
        bool,
        typer.Option("--keep-head", help="Leave outputs as they are, for other programs; else the best class alone."),
    ] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Export .pt files for 1 to --batch-size windows.")] = False,
    workspace: Annotated[
        str, typer.Option("--workspace", metavar="SIZE", help="Most memory of one layer, such as 4GiB.")
    ] = "",
    target: Annotated[
        str, typer.Option("--target", metavar="smNN", help="Build for this GPU, which need not be here (TensorRT-RTX).")
    ] = "",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build also what is there already.")] = False,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Make TensorRT engines of `.pt` and `.onnx` models, beside them; they are found there by themselves.

    Example: `scale convert --models-dir models --batch-size 32 --imgsz 640`
    """
    from scale.models.conversion import ConvertOptions
    from scale.models.convert import convert

    options = ConvertOptions(
        half=half,
        batch=batch_size,
        input_px=imgsz,
        input_type=input_type,
        keep_head=keep_head,
        dynamic=dynamic,
        workspace_bytes=parse_bytes(workspace) if workspace else 0,
        target=target,
        rebuild=rebuild,
    )
    with progress(quiet=quiet or as_json) as bar:
        task = bar.add_task("converting", total=None)
        result = convert(
            models_dir,
            models=tuple(model or ()),
            options=options,
            progress=lambda what, done, total: bar.update(task, description=what[:48], completed=done, total=total),
        )
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)
    if not result.passed:
        raise typer.Exit(1)


def _show(result: ConvertResult) -> None:
    where = ", ".join(f"{name} {value}" for name, value in result.platform.items())
    console.print(f"engines for {where}", markup=False, soft_wrap=True)
    table = Table("model", "result", "engine has", "head", "time", "MB", box=None, pad_edge=False)
    for index in (4, 5):
        table.columns[index].justify = "right"
    for conversion in result.conversions:
        table.add_row(*_row(conversion))
    console.print(table)
    for conversion in result.conversions:
        for line in ([f"failed: {conversion.reason}"] if conversion.reason else []) + list(conversion.notes):
            console.print(f"{conversion.model.name}: {line}", markup=False, soft_wrap=True)
    failed = sum(conversion.result == "failed" for conversion in result.conversions)
    console.print(f"{len(result.conversions) - failed} of {len(result.conversions)} models have their engine")


def _row(conversion: Conversion) -> tuple[str, ...]:
    size = f"{conversion.size_bytes / 1e6:.1f}" if conversion.size_bytes is not None else ""
    colour = _COLOURS[conversion.result]
    return (
        escape(conversion.model.name),
        f"[{colour}]{conversion.result}[/]",
        escape(conversion.precision or ""),
        conversion.head or "",
        f"{conversion.seconds:.1f} s",
        size,
    )
