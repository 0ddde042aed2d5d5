"""``redline export``: PyTorch to ONNX, compared with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress
from redline.core.errors import InputError

if TYPE_CHECKING:
    from redline.commands.export import Exported


def export_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A built-in name, file.py:function, a .pt2 or TorchScript file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ONNX file to write.")],
    size: Annotated[str | None, typer.Option("--size", metavar="H[xW]", help="Image size in pixels.")] = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="dynamic|N", help="The batch that the file takes.")
    ] = "dynamic",
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Leave height and width open too.")] = False,
    opset: Annotated[int | None, typer.Option("--opset", help="Operator set; by default 20 (torchscript: 17).")] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint: .safetensors or a state dict.")
    ] = None,
    exporter: Annotated[str | None, typer.Option("--exporter", metavar="dynamo|torchscript", help="Which one.")] = None,
    fold: Annotated[bool, typer.Option("--fold/--no-fold", help="Fold batch normalization and constants.")] = True,
    torchscript: Annotated[
        Path | None, typer.Option("--torchscript", metavar="OUT.ts", help="Write a TorchScript file as well.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Export a PyTorch model to ONNX; the file is kept only if it answers as PyTorch does.

    Example: `redline export resnet18 -o resnet18.onnx`
    """
    parsed_size, parsed_batch = parse_size(size), _parse_batch(batch)
    from redline.commands.export import export

    with progress(quiet=quiet) as bar:
        bar.add_task(f"export {model}", total=None)
        result = export(
            model,
            out,
            size=parsed_size,
            batch=parsed_batch,
            dynamic_size=dynamic_size,
            opset=opset,
            weights=weights,
            exporter=cast("Any", exporter),
            fold=fold,
            torchscript=torchscript,
        )
    if as_json:
        print_json(
            {
                "out": result.model.path,
                "sha256": result.model.sha256,
                "size_bytes": result.model.size_bytes,
                "opset": result.model.opset,
                "signature": result.model.signature,
                "max_abs_difference": result.max_abs_difference,
                "batch_sizes": result.batch_sizes,
                "notes": result.notes,
                "torchscript": str(result.torchscript) if result.torchscript else None,
            }
        )
    else:
        _show(result)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``224`` or ``480x640`` as (height, width).

    >>> parse_size("480x640")
    (480, 640)
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"got size {text!r}, expected H or HxW in pixels, as in 224 or 480x640")
    return int(parts[0]), int(parts[-1])


def _parse_batch(text: str) -> Literal["dynamic"] | int:
    if text == "dynamic":
        return "dynamic"
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"got batch {text!r}, expected 'dynamic' or a number of at least 1")
    return int(text)


def _show(result: Exported) -> None:
    model = result.model
    sizes = " and ".join(map(str, result.batch_sizes))
    lines = [
        f"wrote {model.path} ({model.size_bytes / 1e6:.1f} MB, opset {model.opset})",
        *(f"  in   {spec.name} {list(spec.shape)} {spec.dtype}" for spec in model.signature.inputs),
        *(f"  out  {spec.name} {list(spec.shape)} {spec.dtype}" for spec in model.signature.outputs),
        f"compared with PyTorch at batch {sizes}: largest difference {result.max_abs_difference:.2g}",
        *(f"note: {note}" for note in result.notes),
    ]
    if result.torchscript:
        lines.append(f"wrote {result.torchscript}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
