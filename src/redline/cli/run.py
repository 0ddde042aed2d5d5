"""``redline run``: one model, one input, its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.common import JsonFlag, console, print_json

if TYPE_CHECKING:
    from redline.commands.run import Guess, Run

_MOST_SHOWN = 10


def run_command(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="An .onnx, an engine, a tune's folder, or a PyTorch model.")
    ],
    input_file: Annotated[
        Path | None, typer.Option("-i", "--input", metavar="IN", help="An .npz, an .npy, an image, a folder of images.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT.npz", help="Where the outputs go.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="0 lets the runtime choose.")] = 0,
    weights: Annotated[Path | None, typer.Option("--weights", help="A checkpoint, for a PyTorch model.")] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option("--fallback", metavar="BACKEND", help="Instead of an engine that cannot run: rebuild, …"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a model on an image or on arrays; for a classifier, show the five most probable classes.

    Example: `redline run out/best -i cat.jpg -o answers.npz`
    """
    from redline.commands.run import run

    result = run(artifact, input_file, out, threads=threads, weights=weights, fallback=tuple(fallback or ()))
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
    lines += [f"note: {note}" for note in result.notes]
    if result.out:
        lines.append(f"wrote {result.out}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _class(guess: Guess) -> str:
    return f"class {guess.index}" if guess.name is None else f"{guess.name} ({guess.index})"
