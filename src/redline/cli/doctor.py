"""``redline doctor``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from redline.cli.common import JsonFlag, console, print_json

if TYPE_CHECKING:
    from redline.diagnosis.diagnose import Diagnosed, Diagnosis

_MARKS = {
    "ok": "[green]yes[/]",
    "missing": "[dim]no[/]",
    "broken": "[red]broken[/]",
    "unusable": "[yellow]no[/]",
}
_GROUPS = {"runtime": "Runtimes", "gpu": "NVIDIA GPU", "tool": "Tools", "models": "Model sources (optional)"}


def doctor_command(as_json: JsonFlag = False) -> None:
    """What can run on this machine, and what to type where something cannot.

    Example: `redline doctor`
    """
    from redline.commands.doctor import doctor

    diagnosis = doctor()
    if as_json:
        print_json(diagnosis)
    else:
        _print(diagnosis)


def _print(diagnosis: Diagnosis) -> None:
    for line in machine_lines(diagnosis):
        console.print(line, soft_wrap=True)
    for group, title in _GROUPS.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False
        )
        for finding in _readable(diagnosis.findings):
            if finding.group == group:
                table.add_row(_MARKS[finding.status], finding.title, finding.version or "", _words(finding))
        console.print()
        console.print(table)


def machine_lines(diagnosis: Diagnosis) -> list[str]:
    """The machine in a few lines of rich markup."""
    environment = diagnosis.environment
    limit = "" if environment.container_cpu_limit is None else f" (container: {environment.container_cpu_limit:g})"
    memory = f"{environment.memory_bytes / 2**30:.1f} GiB"
    if environment.container_memory_bytes is not None:
        memory += f" (container: {environment.container_memory_bytes / 2**30:.1f} GiB)"
    cores = f"{diagnosis.cores_usable} of {environment.cores_logical} cores usable{limit}"
    lines = [
        f"[bold]{escape(environment.cpu)}[/], {cores}, {memory}{', virtual machine' if environment.hypervisor else ''}",
        f"{escape(environment.os)}, {escape(environment.kernel or '')}, Python {environment.python}",
    ]
    if environment.governor and environment.governor != "performance":
        lines.append(f"[yellow]CPU governor is {environment.governor}[/]: timings drift; set it to performance")
    for ability in diagnosis.abilities:
        mark = "[green]yes[/]" if ability.available else "[yellow]no [/]"
        lines.append(f"{ability.name} {mark} {escape(ability.text)}")
    return lines


def _readable(findings: tuple[Diagnosed, ...]) -> list[Diagnosed]:
    """One row for all that a GPU would bring, where there is none."""
    from redline.diagnosis.diagnose import NEEDS_GPU

    waiting = [finding for finding in findings if finding.detail == NEEDS_GPU]
    kept = [finding for finding in findings if finding.detail != NEEDS_GPU]
    if waiting:
        titles = ", ".join(finding.title for finding in waiting)
        last = max((index for index, finding in enumerate(kept) if finding.group == "gpu"), default=-1)
        kept.insert(last + 1, replace(waiting[0], title="more", detail=f"with a GPU: {titles}"))
    return kept


def _words(finding: Diagnosed) -> str:
    parts = [part for part in (finding.device, finding.detail) if part]
    fix = [f"[bold]{escape(finding.fix)}[/]"] if finding.fix else []
    return ": ".join([escape("; ".join(parts)), *fix]) if parts else "".join(fix)
