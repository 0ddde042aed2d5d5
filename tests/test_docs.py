"""The documentation is held to what it says: its commands run, its links and paths lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.studies import write_tune

from redline.cli import COMMANDS, build_app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
# A reader tunes for minutes; whether the command works is seen in seconds.
_SHORTER = " --rounds 3 --repeats 1 --confirm 0 --window 0.01 --variant torch-eager-fp32 --variant onnxruntime-fp32"


@dataclass(frozen=True)
class Block:
    mark: str
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["mark"] or "", m["language"], m["code"]) for m in _BLOCK.finditer(page.read_text())]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs(block: Block) -> bool:
    """Whether a block is to be run: marked ``run``, or ``run where MODULE`` and that module is installed."""
    mark, _, module = block.mark.partition(" where ")
    return mark == "run" and (not module or find_spec(module) is not None)


RUNNABLE = [page for page in PAGES if any(runs(block) for block in blocks(page))]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What the reader has: a model of their own, labelled images, a results file."""
    factory = next(b for b in blocks(ROOT / "docs/guides/tune.md") if b.mark == "file: your.py")
    (tmp_path / "your.py").write_text(factory.code)
    (tmp_path / "images").mkdir()
    photos = ROOT / "src/redline/data/assets/photos"
    rows = ["file,label"]
    for photo in sorted([*photos.glob("test_*_00.jpg"), *photos.glob("test_*_01.jpg")]):
        _, label, index = photo.stem.split("_")
        file = f"{label}.jpg" if index == "00" else f"{label}_{index}.jpg"
        shutil.copy(photo, tmp_path / "images" / file)
        rows.append(f"{file},{label}")
    (tmp_path / "images" / "labels.csv").write_text("\n".join([*rows, ""]))
    write_tune(tmp_path / "results.jsonl")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_commands_run_as_written(page: Path, workspace: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for block in blocks(page):
        if not runs(block):
            continue
        if block.language == "bash":
            code = re.sub(r"^(redline tune [^#\n]*?)( +#.*)?$", rf"\1{_SHORTER}", block.code, flags=re.M)
            command = ["bash", "-euo", "pipefail", "-c", code]
        else:
            command = [sys.executable, "-c", block.code]
        done = subprocess.run(
            command, cwd=workspace, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_command_has_a_tested_example() -> None:
    tested = "".join(block.code for page in PAGES for block in blocks(page) if block.mark.startswith("run"))
    shown = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"redline {command}" in shown
        assert f"redline {command}" in tested or command == "doctor", f"no tested example of redline {command}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_commands_and_options_exist(page: Path) -> None:
    app: Any = typer.main.get_command(build_app())
    code = [block.code for block in blocks(page) if block.language == "bash"]
    code += re.findall(r"`(redline [^`]+)`", page.read_text())
    for line in "\n".join(code).splitlines():
        found = re.search(r"\bredline ([a-z]\S*)(.*)", line.split(" #")[0])
        if not found:
            continue
        assert found[1] in app.commands, f"no such command: {line}"
        known = {option for parameter in app.commands[found[1]].params for option in parameter.opts}
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", found[2]):
            assert option in known or option in ("--help", "--debug"), f"redline {found[1]} has no {option}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in headings(linked), f"{target}: no such heading"


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_named_files_and_targets_exist(page: Path) -> None:
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for path in re.findall(r"`((?:src|tests|scripts|docs|examples|benchmarks)/[\w./-]+)", text):
        assert path == "src/redline/backends/yours.py" or (ROOT / path).exists(), f"{path} is not there"
    for target in re.findall(r"^make (\w+)|`make (\w+)", text, flags=re.M):
        word = "".join(target)
        assert re.search(rf"^{word}:", makefile, flags=re.M), f"there is no make {word}"
    for module in re.findall(r"`(?:python -m )?(redline\.[\w.]+)", text):
        assert_importable(module)


def assert_importable(dotted: str) -> None:
    import redline

    parts = dotted.split(".")[1:]
    if parts[0] in redline.__all__:
        return
    here = ROOT / "src" / "redline"
    for part in parts:
        if not part[0].islower() or (here / f"{part}.py").exists():
            return
        assert (here / part).is_dir(), f"{dotted} is not there"
        here /= part


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda path: path.name)
def test_decision_records_are_short_and_whole(record: Path) -> None:
    lines = record.read_text().splitlines()
    assert len(lines) <= 40
    assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Consequences"]
    assert lines[0].startswith(f"# {int(record.name[:4])}. ")


def test_the_readme_shows_the_committed_result() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "readme-result", "--check"], check=False)
    assert done.returncode == 0, "run scripts/readme-result"
