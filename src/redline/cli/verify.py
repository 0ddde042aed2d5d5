"""``redline verify``: candidates against a reference; exit code 1 when one fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, QuietFlag, console, print_json, progress

if TYPE_CHECKING:
    from redline.commands.verify import Verdict, Verification
    from redline.verification.agreement import Agreement

_GATE_FAILED = 1


def verify_command(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="What is right: a model, file or engine.")],
    candidates: Annotated[list[str], typer.Argument(metavar="CANDIDATE...", help="What is judged: the same kinds.")],
    data: Annotated[Path | None, typer.Option("--data", help="Real samples: a folder of images or an .npz.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE.csv", help="Columns file and label.")] = None,
    atol: Annotated[float | None, typer.Option("--atol", help="Absolute tolerance (default: by precision).")] = None,
    rtol: Annotated[float | None, typer.Option("--rtol", help="Relative tolerance (default: by precision).")] = None,
    min_agreement: Annotated[float, typer.Option("--min-agreement", help="Least share of equal top-1.")] = 0.99,
    max_accuracy_drop: Annotated[
        float, typer.Option("--max-accuracy-drop", help="Most that accuracy may fall.")
    ] = 0.01,
    samples: Annotated[int, typer.Option("--samples", help="The most samples to take.")] = 200,
    weights: Annotated[Path | None, typer.Option("--weights", help="A checkpoint for the PyTorch models.")] = None,
    as_json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compare candidates with a reference on real samples; exit code 1 when one does not pass.

    Example: `redline verify resnet18 resnet18.onnx resnet18_int8.onnx --data photos/`
    """
    from redline.commands.verify import verify

    with progress(quiet=quiet) as bar:
        bar.add_task(f"verify {len(candidates)} candidate(s)", total=None)
        result = verify(
            reference,
            candidates,
            data=data,
            labels=labels,
            atol=atol,
            rtol=rtol,
            min_agreement=min_agreement,
            max_accuracy_drop=max_accuracy_drop,
            samples=samples,
            weights=weights,
        )
    if as_json:
        print_json(result.to_json())
    else:
        _print(result)
    if not result.passed:
        raise typer.Exit(_GATE_FAILED)


def _print(result: Verification) -> None:
    count = len(result.samples)
    console.print(
        f"Reference {result.reference}, {count} sample{'s' if count > 1 else ''} from {result.samples.source}",
        markup=False,
        soft_wrap=True,
    )
    for skipped in result.samples.skipped:
        console.print(f"skipped {skipped.name}: {skipped.reason}", markup=False, soft_wrap=True)
    table = Table(
        "candidate", "layers", "batch", "max error", "SNR dB", "top-1", "accuracy", "", box=None, pad_edge=False
    )
    for column in table.columns[2:7]:
        column.justify = "right"
    for verdict in result.verdicts:
        _add(table, verdict)
    console.print(table)
    for verdict in result.verdicts:
        if verdict.reason:
            console.print(f"[red]failed[/] {escape(verdict.candidate)}: {escape(verdict.reason)}", soft_wrap=True)
        for note in verdict.notes:
            console.print(f"note: {verdict.candidate}: {note}", markup=False, soft_wrap=True)
    evidence = next((a.evidence for v in result.verdicts for _, a in v.agreements if v.passed and a.evidence), None)
    if evidence:
        console.print(f"What these samples show: {evidence}.", markup=False, soft_wrap=True)
    for warning in result.warnings:
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True)


def _add(table: Table, verdict: Verdict) -> None:
    if not verdict.agreements:
        table.add_row(escape(verdict.candidate), verdict.layers or "", "", "", "", "", "", "[red]failed[/]")
    for batch, agreement in verdict.agreements:
        table.add_row(
            escape(verdict.candidate),
            verdict.layers or "",
            str(batch),
            *_numbers(agreement),
            "[green]passed[/]" if agreement.passed else "[red]failed[/]",
        )


def _numbers(agreement: Agreement) -> tuple[str, str, str, str]:
    snr = min((output.errors.signal_snr_db for output in agreement.outputs if output.errors), default=None)
    top1 = agreement.top1
    accuracy = agreement.accuracy_change
    return (
        "" if agreement.max_abs is None else f"{agreement.max_abs:.2g}",
        "" if snr is None else ("equal" if snr == float("inf") else f"{snr:.1f}"),
        f"{top1.correct}/{top1.total}" if top1 else "",
        f"{100 * accuracy.candidate.value:.1f} % ({100 * accuracy.reference.value:.1f} %)" if accuracy else "",
    )
