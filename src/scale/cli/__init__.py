"""The command line ``scale``: one file per command, errors in one line, exit codes that scripts can trust."""

from __future__ import annotations

import logging
import sys

from redline.cli.program import Program
from redline.core.packages import extras_by_module

COMMANDS: tuple[str, ...] = ("detect", "info", "view", "convert")
_PROGRAM = Program(
    name="scale",
    title="scale",
    about="YOLO detection on whole-slide images: to GeoJSON, Parquet and the browser.",
    package="scale.cli",
    commands=COMMANDS,
    extras=extras_by_module("scale"),
    resumable=frozenset({"detect"}),
    too_little_memory="take a smaller batch, fewer models or fewer --readers",
    disk_full="free some space and go on with --resume",
)
build_app = _PROGRAM.build_app


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if "--debug" not in (sys.argv[1:] if arguments is None else arguments):
        logging.getLogger("scale").addHandler(logging.NullHandler())
    return _PROGRAM.main(arguments)


def entry_point() -> None:
    """What the installed ``scale`` script calls."""
    sys.exit(main())
