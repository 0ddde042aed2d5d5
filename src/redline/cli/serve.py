"""``redline serve``."""

from __future__ import annotations

import json as json_
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from redline.cli.common import JsonFlag, console, error_console
from redline.core.plain import to_plain

if TYPE_CHECKING:
    from redline.commands.serve import Ready

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}


def serve_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="An .onnx, an engine, a tune's folder, a repository; or NAME=PATH."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8000,
    repository: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder <name>/<version>/model.onnx; repeatable.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(metavar="N", help="Rows put together into one run; on a GPU this is on by itself.")
    ] = None,
    max_delay_ms: Annotated[float, typer.Option(metavar="X", help="How long a request waits to be joined.")] = 0.0,
    threads: Annotated[int | None, typer.Option(help="Threads of one run on a CPU, else 1; 0 for all cores.")] = None,
    instances: Annotated[int | None, typer.Option(help="Runs at once, else as many as there are cores for.")] = None,
    runner: Annotated[str, typer.Option(help="granian, waitress, or auto.")] = "auto",
    shadow: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="A reference to compare a model with; repeatable.")
    ] = None,
    shadow_rate: Annotated[float, typer.Option(metavar="R", help="Share of requests it answers too, 0 to 1.")] = 0.05,
    token_file: Annotated[Path | None, typer.Option(help="Holds the token that clients need.")] = None,
    admin_token_file: Annotated[Path | None, typer.Option(help="Holds the token that loading a model needs.")] = None,
    limit_body: Annotated[str, typer.Option(help="The largest body of a request.")] = "32MiB",
    deadline: Annotated[float, typer.Option(metavar="S", help="The longest that a request waits and runs.")] = 30.0,
    queue: Annotated[int, typer.Option(help="How many requests may wait for one model.")] = 256,
    poll: Annotated[float, typer.Option(metavar="S", help="Look at a repository again this often; 0 never.")] = 0.0,
    keep: Annotated[int, typer.Option(metavar="N", help="How many versions of a model answer: the newest.")] = 1,
    allow_signature_change: Annotated[
        bool, typer.Option("--allow-signature-change", help="A new version may take or give something else.")
    ] = False,
    drain_delay: Annotated[float, typer.Option(metavar="S", help="Answer on for so long after SIGTERM.")] = 0.0,
    reject_nonfinite: Annotated[bool, typer.Option("--reject-nonfinite", help="Refuse NaN and infinity.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")] = False,
    json: JsonFlag = False,
) -> int:
    """Serve models over HTTP: the Open Inference Protocol, /predict, /metrics and a page.

    Example: `redline serve q=int8.onnx --shadow q=fp32.onnx --shadow-rate 0.05`
    """
    from redline.commands.serve import ServeOptions, serve
    from redline.serving.limits import Limits

    options = ServeOptions(
        host=host,
        port=port,
        runner=runner,  # type: ignore[arg-type]
        max_batch=max_batch,
        max_delay_s=max_delay_ms / 1000,
        threads=threads,
        instances=instances,
        shadows=dict(_shadow(one) for one in shadow or ()),
        shadow_rate=shadow_rate,
        token_file=token_file,
        admin_token_file=admin_token_file,
        limits=Limits(
            body_bytes=_bytes(limit_body), deadline_s=deadline, queue=queue, reject_nonfinite=reject_nonfinite
        ),
        keep=keep,
        allow_signature_change=allow_signature_change,
        poll_s=poll,
        drain_delay_s=drain_delay,
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)

    def on_ready(ready: Ready) -> None:
        for warning in ready.warnings:
            error_console.print(f"[bold red]WARNING:[/] {escape(warning)}", soft_wrap=True)
        if json:
            sys.stdout.write(json_.dumps(to_plain(ready)) + "\n")
            sys.stdout.flush()
        elif not quiet:
            _print(ready)

    if not serve([*(models or ()), *(repository or ())], options, on_ready=on_ready):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # what still runs would hold up an orderly end
    return 0


def _shadow(text: str) -> tuple[str, str]:
    """NAME=FILE; the name may be left out where one model is served."""
    name, sign, path = text.partition("=")
    return (name, path) if sign else ("", text)


def _bytes(text: str) -> int:
    """A number of bytes from ``32MiB``, ``500k`` or ``1000``.

    >>> _bytes("32MiB"), _bytes("1.5 kB"), _bytes("7")
    (33554432, 1500, 7)
    """
    from redline.core.errors import InputError

    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmg]i?)?b?", text.strip().lower())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise InputError(f"got limit-body {text!r}, expected a number of bytes such as 32MiB or 500k")
    return size


def _print(ready: Ready) -> None:
    for model in ready.models:
        told = f"{model.name} version {model.version}: {model.precision} on {model.backend}"
        batch = f", batches of up to {model.max_batch}" if model.max_batch > 1 else ""
        shadow = ", with a shadow" if model.shadow else ""
        console.print(f"{told}, {model.runs} at once{batch}{shadow}", markup=False, soft_wrap=True)
    for note in ready.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(f"Serving at [bold]{ready.url}[/] (a page for trying it out; Ctrl-C ends it)", soft_wrap=True)
