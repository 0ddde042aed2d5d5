"""The command line: one file per command, errors in one line, exit codes that scripts can trust."""

from __future__ import annotations

import sys

from redline.cli.program import Program
from redline.core.packages import extras_by_module

COMMANDS: tuple[str, ...] = (
    "doctor",
    "models",
    "tune",
    "export",
    "optimize",
    "quantize",
    "build",
    "run",
    "verify",
    "bench",
    "report",
    "compare",
    "serve",
    "loadtest",
    "export-triton",
)
_PROGRAM = Program(
    name="redline",
    title="Redline",
    about="From a trained PyTorch vision model to a verified, measured, recommended deployment.",
    package="redline.cli",
    commands=COMMANDS,
    extras=extras_by_module(),
    resumable=frozenset({"tune", "bench"}),
    too_little_memory="give smaller images, fewer samples or a smaller batch",
    disk_full="nothing half-written was kept, free some space",
)
build_app = _PROGRAM.build_app
main = _PROGRAM.main


def entry_point() -> None:
    """What the installed ``redline`` script calls."""
    sys.exit(main())
