"""``scale view``."""

from __future__ import annotations

import json as json_
import logging
import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from redline.cli.common import JsonFlag, console
from redline.core.plain import to_plain

if TYPE_CHECKING:
    from scale.viewer.serve import Viewing


def view_command(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT_DIR", help="What scale detect wrote: of one slide, or of several.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free one.")] = 8400,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Show it in a browser; by itself where there is a screen.")
    ] = None,
    slide: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", exists=True, help="Where the slide is now, or the folder it is in; repeatable."),
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Look at detections on their slide in a browser: pan, zoom, filter, count. Nothing leaves this machine.

    Example: `scale view out/ --slide slides/`
    """
    from scale.viewer.serve import ViewOptions, view

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    wants = open_browser if open_browser is not None else not json and _has_screen()

    def on_ready(viewing: Viewing) -> None:
        if json:
            sys.stdout.write(json_.dumps(to_plain(viewing)) + "\n")
            sys.stdout.flush()
        else:
            _print(viewing)
        if wants:
            webbrowser.open(viewing.url)

    if not view(result, ViewOptions(host=host, port=port, slides=tuple(slide or ())), on_ready=on_ready):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # what still runs would hold up an orderly end
    return 0


def _has_screen() -> bool:
    """Whether a browser with a window can be expected; one in the terminal would only be in the way."""
    if sys.platform in ("darwin", "win32"):
        return True
    return sys.stdout.isatty() and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _print(viewing: Viewing) -> None:
    number = len(viewing.slides)
    for note in viewing.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    told = viewing.slides[0] if number == 1 else f"{number} slides"
    console.print(f"Showing {told} at {viewing.url} (Ctrl-C ends it)", markup=False, soft_wrap=True)
