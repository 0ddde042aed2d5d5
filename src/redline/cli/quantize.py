"""``redline quantize``: INT8 for one runtime or another, or half precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress

if TYPE_CHECKING:
    from redline.commands.quantize import Quantized

_SHOWN_LAYERS = 12


def quantize_command(
    model: Annotated[Path, typer.Argument(metavar="IN.onnx", help="The float32 model; it is left as it is.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    mode: Annotated[str, typer.Option("--mode", help="static, dynamic or fp16.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Samples to calibrate on: a folder of images or an .npz.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="The most samples to calibrate on.")] = 128,
    target: Annotated[
        str, typer.Option("--for", help="The runtime: onnxruntime (its file is right for openvino too) or tensorrt.")
    ] = "onnxruntime",
    method: Annotated[
        str, typer.Option("--method", help="How ranges are chosen: minmax, entropy or percentile.")
    ] = "minmax",
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="NODE", help="A node to leave in float; repeatable.")
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Leave the fewest layers in float that make the accuracy gate pass.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Show the error of every layer.")] = False,
    labels: Annotated[Path | None, typer.Option("--labels", help="A CSV (file, label) for the gate of --auto.")] = None,
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", help="For --auto: share of samples with the float model's class.")
    ] = 0.99,
    max_accuracy_drop: Annotated[
        float, typer.Option("--max-accuracy-drop", help="For --auto, with labels: by how much accuracy may fall.")
    ] = 0.01,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Quantize a model for a runtime; says what became int8 and what each file weighs.

    Example: `redline quantize model.onnx -o int8.onnx --mode static --data images/ --auto`
    """
    from redline.commands.quantize import QuantizeOptions, quantize
    from redline.verification.compare import Gate

    options = QuantizeOptions(
        target=cast("Any", target),
        method=cast("Any", method),
        samples=samples,
        labels=labels,
        keep=tuple(keep or ()),
        auto=auto,
        report=report,
        gate=Gate(min_agreement=min_agreement, max_accuracy_drop=max_accuracy_drop),
    )
    with progress(quiet=quiet or as_json) as bar:
        task = bar.add_task("quantizing", total=None)
        result = quantize(
            model,
            out,
            mode=cast("Any", mode),
            data=data,
            options=options,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print_json(
            {
                **{
                    name: {
                        "path": model.path,
                        "sha256": model.sha256,
                        "size_bytes": model.size_bytes,
                        "precision": model.precision,
                        "layers": model.layers.counts,
                    }
                    for name, model in (("before", result.source), ("after", result.model))
                },
                "samples": result.samples,
                "skipped": result.skipped,
                "kept": result.kept,
                "tried": [
                    {"kept": one.kept, "passed": one.result.passed, "reason": one.result.reason} for one in result.tried
                ],
                "layers": result.errors,
                "suggested": result.suggested,
                "expectation": result.expectation,
            }
        )
    else:
        _show(result, report=report)


def _show(result: Quantized, *, report: bool) -> None:
    table = Table("", "file", "size", "layers", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for word, one in (("before", result.source), ("after", result.model)):
        table.add_row(word, escape(one.path.name), f"{one.size_bytes / 1e6:.1f} MB", one.layers.describe())
    console.print(table)
    times = result.source.size_bytes / result.model.size_bytes
    lines = [f"{times:.2f} times smaller" if times >= 1 else f"{1 / times:.2f} times larger"]
    if result.samples:
        lines[0] += f"; calibrated on {result.samples} samples" + (
            f" ({result.skipped} files skipped)" if result.skipped else ""
        )
    for attempt in result.tried:
        verdict = "passes" if attempt.result.passed else "fails"
        lines.append(f"{len(attempt.kept)} layers in float: {verdict} ({attempt.result.reason})")
    if result.kept:
        lines.append(f"left in float: {', '.join(result.kept)}")
    if result.expectation:
        lines.append(f"expect: {result.expectation}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if report:
        _show_errors(result)


def _show_errors(result: Quantized) -> None:
    table = Table("layer", "operator", "SNR at the output", "SNR at the layer", box=None, pad_edge=False)
    for index in (2, 3):
        table.columns[index].justify = "right"
    for error in result.errors[:_SHOWN_LAYERS]:
        style = "yellow" if error.node in result.suggested else ""
        numbers = (f"{error.output_snr_db:.1f} dB", f"{error.local_snr_db:.1f} dB")
        table.add_row(escape(error.node), error.op, *numbers, style=style)
    console.print(table)
    if len(result.errors) > _SHOWN_LAYERS:
        console.print(f"and {len(result.errors) - _SHOWN_LAYERS} layers with less error; --json has all")
    advice = " ".join(f"--keep {name}" for name in result.suggested)
    told = f"leave in float: {advice}" if advice else "no layer stands out; none needs to be left in float"
    console.print(told, markup=False, soft_wrap=True)
