"""``redline optimize``: graph passes by name, each contained and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress
from redline.core.errors import InputError

if TYPE_CHECKING:
    from redline.transforms.optimize import PassOutcome

_STYLES = {"changed": "green", "nothing to do": "dim", "failed": "red", "reverted": "yellow"}


def optimize_command(
    model: Annotated[Path | None, typer.Argument(metavar="IN.onnx", help="The model; it is left as it is.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file to write.")] = None,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", metavar="NAME", help="A pass; repeat it, they run in this order.")
    ] = None,
    list_passes: Annotated[bool, typer.Option("--list-passes", help="Show every pass with a line on it.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Real samples for the check: a folder of images or an .npz.")
    ] = None,
    atol: Annotated[float | None, typer.Option("--atol", min=0, help="Absolute tolerance of the check.")] = None,
    rtol: Annotated[
        float | None, typer.Option("--rtol", min=0, help="Tolerance as a share of an output's largest value.")
    ] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Optimize the graph of an ONNX file; a pass that crashes, hangs or changes the answers is dropped and named.

    Example: `redline optimize model.onnx -o fast.onnx --pass fuse_bn_into_conv --pass eliminate_deadend`
    """
    if list_passes:
        _show_passes(as_json=as_json)
        return
    if model is None or out is None:
        missing = "IN.onnx" if model is None else "-o OUT.onnx"
        raise InputError(f"got no {missing}; expected: redline optimize IN.onnx -o OUT.onnx [--pass NAME ...]")
    from redline.commands.optimize import optimize

    with progress(quiet=quiet) as bar:
        bar.add_task("passes", total=None)
        result = optimize(model, out, passes=passes or None, data=data, atol=atol, rtol=rtol)
    if as_json:
        print_json(
            {
                "out": result.model.path,
                "sha256": result.model.sha256,
                "size_bytes": result.model.size_bytes,
                "passes": result.outcomes,
            }
        )
        return
    console.print(_table(result.outcomes))
    console.print(f"wrote {out} ({decimal(result.model.size_bytes)})", markup=False, soft_wrap=True)


def _show_passes(*, as_json: bool) -> None:
    from redline.transforms.passes import DEFAULT_PASSES, available_passes

    known = available_passes()
    if as_json:
        print_json(
            [
                {"name": i.name, "tool": i.tool, "summary": i.summary, "default": i.name in DEFAULT_PASSES}
                for i in known.values()
            ]
        )
        return
    table = Table("pass", "tool", "what it does", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for info in known.values():
        table.add_row(escape(info.name), info.tool, escape(info.summary))
    console.print(table)
    console.print(f"without --pass: {', '.join(name for name in DEFAULT_PASSES if name in known)}", soft_wrap=True)


def _table(outcomes: tuple[PassOutcome, ...]) -> Table:
    table = Table("pass", "outcome", "nodes", "seconds", box=None, pad_edge=False)
    for index in (2, 3):
        table.columns[index].justify = "right"
    for outcome in outcomes:
        style = _STYLES[outcome.status]
        text = f"[{style}]{outcome.status}[/]" + (f": {escape(outcome.reason)}" if outcome.reason else "")
        nodes = f"{outcome.nodes_before} → {outcome.nodes_after}"
        table.add_row(escape(outcome.name), text, nodes, f"{outcome.seconds:.1f}")
    return table
