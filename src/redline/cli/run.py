"""``redline run``: one model, one input, its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redline.cli.common import JsonFlag, console, print_json

if TYPE_CHECKING:
    from redline.commands.run import Guess, Run

_MOST_SHOWN = 10
_MOST_BOXES_SHOWN = 20


def run_command(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="An .onnx, an engine, a tune's folder, or a PyTorch model.")
    ],
    input_file: Annotated[
        Path | None, typer.Option("-i", "--input", metavar="IN", help="An .npz, an .npy, an image, a folder of images.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="Where the outputs go (.npz), or a detector's boxes (.json)."),
    ] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Of a detector: boxes score more.")] = 0.25,
    iou: Annotated[float, typer.Option("--iou", help="Of a detector: boxes of one class overlap less.")] = 0.7,
    threads: Annotated[int, typer.Option("--threads", min=0, help="0 lets the runtime choose.")] = 0,
    weights: Annotated[Path | None, typer.Option("--weights", help="A checkpoint, for a PyTorch model.")] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option("--fallback", metavar="BACKEND", help="Instead of an engine that cannot run: rebuild, …"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a model on an image or on arrays; show a classifier's most probable classes, or a detector's boxes.

    Example: `redline run out/best -i cat.jpg -o answers.npz`
    """
    from redline.commands.run import Thresholds, run

    result = run(
        artifact,
        input_file,
        out,
        threads=threads,
        weights=weights,
        fallback=tuple(fallback or ()),
        thresholds=Thresholds(confidence=confidence, iou=iou),
    )
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)


def _print(result: Run) -> None:
    lines = [f"{name}  {array.dtype}{list(array.shape)}" for name, array in result.outputs.items()]
    for name, guesses in list(zip(result.samples, result.guesses, strict=False))[:_MOST_SHOWN]:
        lines += [f"{name}:", *(f"  {100 * guess.probability:5.1f} %  {_class(guess)}" for guess in guesses)]
    if len(result.guesses) > _MOST_SHOWN:
        lines.append(f"... and {len(result.guesses) - _MOST_SHOWN} more samples")
    lines += _boxes(result)
    lines += [f"note: {note}" for note in result.notes]
    if result.out:
        lines.append(f"wrote {result.out}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _boxes(result: Run) -> list[str]:
    """A line for each box of the first images: score, class, corners in pixels."""
    lines: list[str] = []
    boxes = result.boxes()
    for name, found in list(zip(result.samples, boxes, strict=False))[:_MOST_SHOWN]:
        lines.append(f"{name}: {len(found)} {'box' if len(found) == 1 else 'boxes'}")
        lines += [f"  {one['score']:.3f}  {_named(one)}  {_corners(one['box'])}" for one in found[:_MOST_BOXES_SHOWN]]
        if len(found) > _MOST_BOXES_SHOWN:
            lines.append(f"  ... and {len(found) - _MOST_BOXES_SHOWN} more")
    if len(boxes) > _MOST_SHOWN:
        lines.append(f"... and {len(boxes) - _MOST_SHOWN} more images")
    return lines


def _named(box: Mapping[str, Any]) -> str:
    return f"class {box['class']}" if box["name"] is None else str(box["name"])


def _corners(box: Sequence[float]) -> str:
    x0, y0, x1, y1 = box
    return f"x {x0:.1f} to {x1:.1f}, y {y0:.1f} to {y1:.1f}"


def _class(guess: Guess) -> str:
    return f"class {guess.index}" if guess.name is None else f"{guess.name} ({guess.index})"
