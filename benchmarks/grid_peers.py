"""What benchmark tools report for the same model on the same machine, beside `redline bench`.

Each tool runs in an environment of its own, one after another and three times over; what is kept is its own report.
A tool that fails or is not installed is a row with its reason. What --work has already is not measured again.

    scripts/setup-peers optimum_benchmark polygraphy ultralytics
    python benchmarks/grid_peers.py --work out/grid_peers --redline out/grid_peers.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from peers.grid_table import tables, write_table
from peers.grid_tools import PACKAGES, SIZE_PX, TOOLS, Job, Tool

import redline
from redline.core.files import sha256_of, write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint, noise_check

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE = HERE / "peers.md"
RESULT = ROOT / "results/cpu/grid_peers.json"
# The same cells in a run of redline bench: the variant by the runtime's name here.
OURS = {"PyTorch eager": "torch-eager-fp32", "ONNX Runtime": "onnxruntime-fp32"}
BATCHES = (1, 8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in PACKAGES:
        default = Path(sys.executable) if name == "torch" else ROOT / ".peers" / name / "bin" / "python"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=Path, default=default, help="its interpreter; default: %(default)s"
        )
    parser.add_argument("--redline", type=Path, help="what redline bench wrote of resnet18 at 224, batch 1 and 8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="for tools that take a duration")
    parser.add_argument("--only", nargs="*", default=[], help="tools whose names begin so")
    parser.add_argument("--work", type=Path, required=True, help="keeps what was made and measured")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table of --out")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if not args.table:
        document = measure_all(args)
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    document = json.loads(args.out.read_text(encoding="utf-8"))
    if args.out.resolve() == RESULT:
        write_table(PAGE, document)
    else:
        print(tables(document))
    return 0


def measure_all(args: argparse.Namespace) -> dict[str, Any]:
    work = args.work.resolve()
    # Not resolved: the interpreter of a virtual environment is a link, and knows its environment by its path.
    interpreters = {name: getattr(args, name).absolute() for name in PACKAGES}
    environment = kept(work / "environment.json", lambda: to_plain(fingerprint(noise=noise_check())))
    model = kept(work / "model.json", lambda: prepare(work))
    optimum = interpreters["optimum_benchmark"]
    hub = kept(work / "hub.json", lambda: hub_folder(work, optimum)) if optimum.exists() else {}
    tools = [tool for tool in TOOLS if not args.only or tool.name.startswith(tuple(args.only))]
    runs: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for repeat in range(args.repeats):
        for index, tool in enumerate(tools):
            for batch in tool.batches:
                folder = work / "runs" / f"{TOOLS.index(tool):02}-b{batch}-{repeat}"
                job = Job(
                    work=work, folder=folder, python=interpreters[tool.environment], batch=batch, seconds=args.seconds
                )
                if job.python.exists():
                    result = kept(folder / "run.json", lambda tool=tool, job=job: run(tool, job))
                else:
                    result = {"failed": f"not installed: scripts/setup-peers {tool.environment}"}
                runs.setdefault((index, batch), []).append(result)
                told = result.get("failed") or result["said"]
                print(f"{repeat + 1}/{args.repeats} {tool.name}, {tool.how}, {tool.runtime}, batch {batch}: {told}")
                sys.stdout.flush()
    rows = [row_of(tools[index], batch, found) for (index, batch), found in runs.items()]
    document = {
        "benchmark": "grid_peers",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/grid_peers.py", *sys.argv[1:]]),
        "repeats": args.repeats,
        "seconds": args.seconds,
        "redline": redline.__version__,
        "environment": environment,
        "model": {**model, **hub},
        "versions": {name: versions(python, PACKAGES[name]) for name, python in interpreters.items()},
        "rows": [*rows, *redline_rows(args.redline)],
    }
    folders = {str(path.parent.absolute()): "out" for path in (args.redline, args.out) if path and path != RESULT}
    return json.loads(without_paths(json.dumps(document), work, interpreters, folders))


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What was made before, or make it now and keep it whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(make(), indent=1) + "\n")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def prepare(work: Path) -> dict[str, Any]:
    """The model in every form that a tool takes, and photographs for the one that wants a data set."""
    from safetensors.torch import save_file

    from redline.networks.zoo import build

    network = build("resnet18")
    onnx = work / "resnet18.onnx"
    redline.export("resnet18", onnx)
    redline.export("resnet18", work / "resnet18-b8.onnx", batch=8)
    save_file(network.state_dict(), work / "weights.safetensors")
    photos = ROOT / "src/redline/data/assets/photos"
    for photo in photos.glob("test_*.jpg"):
        for split in ("train", "val"):
            target = work / "images" / split / photo.stem.split("_")[1] / photo.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, target)
    return {
        "name": "resnet18",
        "sha256": sha256_of(onnx),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "size": [SIZE_PX, SIZE_PX],
    }


def hub_folder(work: Path, optimum: Path) -> dict[str, Any]:
    """The same model for the tool that takes only such folders, and how far its answers are from the file's."""
    script = ["-W", "ignore", str(HERE / "peers" / "hub_model.py"), "--onnx", str(work / "resnet18.onnx")]
    words = [str(optimum), *script, "--weights", str(work / "weights.safetensors"), "--out", str(work / "hub")]
    code, text = execute(words, work)
    return {"hub_folder": text.strip().splitlines()[-1] if code == 0 else reason(code, text)}


def run(tool: Tool, job: Job) -> dict[str, Any]:
    """One run of one tool; whatever goes wrong is the reason in its place."""
    job.folder.mkdir(parents=True, exist_ok=True)
    command = tool.command(job)
    before = os.getloadavg()[0]
    start = time.perf_counter()
    code, text = execute(command.words, job.folder, variables=command.variables, limit_s=tool.limit_s)
    words = [f"{name}={value}" for name, value in command.variables.items()]
    facts = {
        "command": shlex.join([*words, *command.words]),
        "wall_s": round(time.perf_counter() - start, 1),
        "load_average_before": round(before, 2),
    }
    (job.folder / "out.txt").write_text(text, encoding="utf-8")
    if code != 0:
        return {**facts, "failed": reason(code, text)}
    try:
        return {**facts, **asdict(tool.read(text, job))}
    except Exception as error:
        return {**facts, "failed": f"{type(error).__name__}: {error}"}


def execute(
    words: Any, folder: Path, *, variables: Mapping[str, str] | None = None, limit_s: float = 600.0
) -> tuple[int | None, str]:
    """Exit code (None: it ran past the limit) and output; its whole process group is ended with it."""
    process = subprocess.Popen(
        list(words), cwd=folder, env={**os.environ, **(variables or {})}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    with process:
        try:
            text, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None, ""
        else:
            return process.returncode, text
        finally:
            # What it started must not outlive it, nor disturb whoever comes next.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def reason(code: int | None, text: str) -> str:
    """The last exception that it printed, or its last line."""
    if code is None:
        return "did not end in time"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.split(":")[0].endswith(("Error", "Exception"))]
    # Some put what was raised on the line after the error's name.
    told = " ".join(lines[errors[-1] : errors[-1] + 2]) if errors else (lines or ["no output"])[-1]
    return f"exit {code}: {told[:300]}"


def row_of(tool: Tool, batch: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {"tool": tool.name, "how": tool.how, "runtime": tool.runtime, "batch": batch, "model": tool.model}
    return {**facts, "runs": runs}


def redline_rows(path: Path | None) -> list[dict[str, Any]]:
    """The same cells out of a run of ``redline bench``; a cell that it does not have is a row that says so."""
    if path is None:
        return []
    from redline.study.journal import read_study

    study = read_study(path)
    memory = resident(path)
    rows = []
    for runtime, variant in OURS.items():
        for batch in BATCHES:
            here = ("resnet18", variant, "cpu", "dummy", batch, SIZE_PX, SIZE_PX)
            cells = {(r.model, r.variant, r.device, r.loader, r.batch, r.height, r.width): r for r in study.rows}
            cell = cells.get(here)
            runs = [{"failed": f"{path.name} has no such cell"}] if cell is None else cell_runs(cell, study, memory)
            facts = {"tool": "redline bench", "how": "", "runtime": runtime, "batch": batch, "model": "the same file"}
            rows.append({**facts, "runs": runs})
    return rows


def cell_runs(cell: Any, study: Any, memory: Mapping[str, int]) -> list[dict[str, Any]]:
    """One entry for each repeat: the medians of its own calls; the rest is the cell's."""
    if cell.outcome != "measured":
        return [{"failed": f"{cell.outcome}: {cell.reason}"}]
    threads, command = study.run.settings.threads, study.run.command
    common = {
        "command": command,
        "said": f"median {cell.time_s:.6f} s over {cell.calls} calls",
        "statistic": "median",
        "p90_s": cell.p90_s,
        "p99_s": cell.p99_s,
        "memory_bytes": cell.host_bytes,
        "memory": "largest private memory (USS) of its process, polled every 20 ms",
        "rss_peak_bytes": memory.get(cell.cell),
        "load_s": cell.load_s,
        "first_call_s": cell.first_call_s,
        "threads": None if threads is None else f"{threads}, by its option",
    }
    calls = [[second for window in process.rounds_s for second in window] for process in cell.processes]
    return [{**common, "time_s": median(one), "mean_s": sum(one) / len(one), "calls": len(one)} for one in calls if one]


def resident(path: Path) -> dict[str, int]:
    """The largest resident memory of a cell's processes, which is what others report."""
    from redline.study.journal import read_records
    from redline.study.records import ProcessEnded

    found: dict[str, int] = {}
    for record in read_records(path):
        if isinstance(record, ProcessEnded) and record.memory:
            found[record.cell] = max(found.get(record.cell, 0), record.memory.rss_peak_bytes)
    return found


def versions(python: Path, packages: tuple[str, ...]) -> str:
    """`name version` of each, asked of that interpreter."""
    if not python.exists():
        return "not installed"
    script = "import sys; from importlib.metadata import version\nfor name in sys.argv[1:]: print(name, version(name))"
    code, text = execute([str(python), "-c", script, *packages], ROOT)
    return ", ".join(text.split("\n")).strip(", ") if code == 0 else reason(code, text)


def without_paths(text: str, work: Path, interpreters: Mapping[str, Path], others: Mapping[str, str]) -> str:
    """Nothing of where things lay on this machine: environments as setup-peers names them, the rest relative."""
    for name, python in interpreters.items():
        folder = ".venv" if name == "torch" else f".peers/{name}"
        text = text.replace(str(python.parent.parent), folder)
    text = text.replace(str(work), "out/grid_peers").replace(f"{ROOT}/", "")
    for folder, plain in others.items():
        text = text.replace(folder, plain)
    return text.replace(str(Path.home()), "~")


if __name__ == "__main__":
    sys.exit(main())
