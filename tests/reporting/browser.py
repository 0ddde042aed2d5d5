"""A browser without a window, to see what a page really does."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def chromium(folder: Path, target: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what they wrote to the console."""
    assert CHROMIUM is not None
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=8000 --dump-dom"
    own = [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [CHROMIUM, *flags.split(), *own, "--window-size=1280,3000", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def on_a_phone(page: str, folder: Path, *, script: str, width_px: int) -> tuple[list[int], list[str]]:
    """Numbers that a page tells of itself in a narrow frame, and the console.

    Args:
        page: The text of the page.
        folder: Where files may be left.
        script: JavaScript that acts on the page and then posts the numbers to its parent, separated by blanks.
        width_px: Of the frame.
    """
    # A page of another file cannot be looked into, so the copy tells its width; a policy would forbid it that.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (folder / "page.html").write_text(f"{text}<script>{script}</script>")
    (folder / "phone.html").write_text(
        '<p id="told"></p><script>onmessage = e => { document.getElementById("told").textContent = e.data }</script>'
        f'<iframe src="page.html" style="width:{width_px}px;height:3000px;border:0"></iframe>'
    )
    document, console = chromium(folder, folder / "phone.html")
    told = re.search(r'id="told">([\d ]+)<', document)
    assert told is not None
    return [int(number) for number in told.group(1).split()], console
