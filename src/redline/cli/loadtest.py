"""``redline loadtest``: load over HTTP, and a verdict that scripts can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from redline.cli.common import JsonFlag, QuietFlag, console, parse_sizes, print_json, progress

if TYPE_CHECKING:
    from redline.loadtesting.summary import Summary


def loadtest_command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL_OR_URL...", help="Models to serve and load, or URLs of V2 servers; name=… too."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the results go.")],
    tool: Annotated[
        Literal["open", "locust", "ab"], typer.Option(help="Our own generator, or locust, or ab (users only).")
    ] = "open",
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests of each model under each load, in place of --seconds.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="R,R,…", help="Arrivals per second, whatever the server does; as 50,100.")
    ] = None,
    users: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Users, of which each waits for its answer; as 1,4,16.")
    ] = None,
    arrivals: Annotated[Literal["constant", "poisson"], typer.Option(help="How arrivals are spread.")] = "constant",
    seconds: Annotated[float, typer.Option(metavar="S", help="How long a window measures.")] = 3.0,
    rounds: Annotated[int, typer.Option(help="Windows of each model under each load; at least 3 for an interval.")] = 5,
    body: Annotated[
        Literal["jpeg", "binary", "json"], typer.Option(help="What is sent: image files, or V2 tensors.")
    ] = "binary",
    data: Annotated[Path | None, typer.Option(help="Folder of images, .npz or .npy.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="CSV", help="Columns file,label: for accuracy.")] = None,
    slo_ms: Annotated[float | None, typer.Option(metavar="X", help="Longest time of a good answer.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR", help="Exit code 1 if it holds, as 'p99_ms > 50' or 'rps_ratio < 1.2'; repeatable."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of the servers; 0 lets them choose.")] = 0,
    seed: Annotated[int, typer.Option(help="Of arrivals and orders.")] = 0,
    quiet: QuietFlag = False,
    as_json: JsonFlag = False,
) -> int:
    """Load models over HTTP: throughput, latency and its knee, and what quantization gained and cost.

    Models are served on ports of their own, their turns interleaved; without --rate and --users the knee is looked for.

    Example: `redline loadtest fp32.onnx int8.onnx --slo-ms 100 -o out/load`
    """
    from redline.commands.loadtest import loadtest
    from redline.loadtesting.gates import failed_gates, parse_gate

    gates = [parse_gate(text) for text in fail_if or ()]
    with progress(quiet=quiet or as_json) as bar:
        task = bar.add_task("loadtest", total=None)

        def listener(text: str, done_s: float, total_s: float) -> None:
            bar.update(task, description=escape(text), completed=int(done_s), total=int(total_s) or None)

        summary = loadtest(
            models,
            out,
            tool=tool,
            requests=requests,
            rates=_rates(rate) if rate else (),
            users=parse_sizes(users, "users") if users else (),
            arrivals=arrivals,
            seconds=seconds,
            rounds=rounds,
            body="image/jpeg" if body == "jpeg" else body,
            data=data,
            labels=labels,
            slo_ms=slo_ms,
            threads=threads,
            seed=seed,
            listener=listener,
        )
    failed = failed_gates(summary, gates)
    page = _write_page(summary, out)
    if as_json:
        print_json({**summary.to_json(), "out": str(out), "failed": failed})
    else:
        _print(summary, out, page, failed)
    return 1 if failed else 0


def _rates(text: str) -> tuple[float, ...]:
    """Rates from ``50,100.5``.

    >>> _rates("50,100.5")
    (50.0, 100.5)
    """
    from redline.core.errors import InputError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"got --rate {text!r}, expected requests per second, as 50 or 50,100") from error


def _write_page(summary: Summary, out: Path) -> Path | None:
    from redline.core.errors import MissingDependencyError
    from redline.reporting.loadtest_html import write_loadtest_html

    page = out / "loadtest.html"
    try:
        write_loadtest_html(summary, page)
    except MissingDependencyError:
        return None
    return page


def _print(summary: Summary, out: Path, page: Path | None, failed: list[str]) -> None:
    from redline.reporting.loadtest_terminal import loadtest_table

    console.print(loadtest_table(summary))
    for warning in summary.warnings:
        console.print(f"[yellow]Warning:[/] {escape(warning)}", soft_wrap=True)
    console.print()
    for sentence in summary.conclusion:
        console.print(sentence, markup=False, soft_wrap=True)
    for text in failed:
        console.print(f"[red]Failed:[/] {escape(text)}", soft_wrap=True)
    told = f"\nResults: {out / 'loadtest.json'}"
    told += f". Report: {page}" if page else ". For a page, type: pip install 'redline[report]'"
    console.print(told, markup=False, soft_wrap=True)
