"""`redline serve` against other servers of the same model on the same cores, in interleaved windows.

Every server is up all the time; in each round each has its window, in drawn order. wrk makes the load (8 connections).
Of a small network (MLP 64-128-10) the server has one core and wrk the other; ResNet-18 has both, shared with wrk.
Ratios are of windows of one round to the window of plain Flask and waitress in the same round; medians are quoted.

    apt install wrk; scripts/setup-peers litserve bentoml ray_serve
    python benchmarks/serve.py -o results/cpu/serve.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import psutil

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint, noise_check

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CONNECTIONS = 8
BASE = "plain Flask + waitress"
LUA = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  local bad = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('\\nRESULT {{"requests":%d,"us":%d,"bad":%d,"p50_us":%d,"p99_us":%d}}\\n', summary.requests,
    summary.duration, bad, latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Body:
    """What is sent, and under which path each server takes it; a server without a path has no such endpoint."""

    kind: str
    content: bytes
    headers: dict[str, str]


@dataclass
class Server:
    """One process tree that answers."""

    name: str
    command: list[str]
    port: int
    ready: str
    paths: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    shapes: dict[str, Body] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    failed: str | None = None

    def start(self, cores: set[int], log: Path) -> None:
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                self.command,
                stdout=file,
                stderr=file,
                env={**os.environ, **self.environment},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            url = f"http://127.0.0.1:{self.port}{self.ready}"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
                return
            time.sleep(0.2)
        lines = log.read_text(errors="replace").strip().splitlines()
        self.failed = f"did not start: {lines[-1] if lines else 'no output'}"[:300]
        self.stop()

    def stop(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def cpu_s(self) -> float:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        total = 0.0
        for one in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
        return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a window; twice that for ResNet-18")
    parser.add_argument("--only", nargs="*", default=[], help="servers whose names begin so, beside the baseline")
    parser.add_argument("--models", nargs="*", default=["mlp", "resnet18"])
    for name in ("litserve", "bentoml", "ray_serve"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, default=ROOT / ".peers" / name / "bin" / "python")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed; type: apt install wrk")
    document: dict[str, Any] = {
        "benchmark": "serve",
        "command": f"python benchmarks/serve.py --rounds {args.rounds} --seconds {args.seconds:g}",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
        "connections": CONNECTIONS,
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            document["models"][name] = one_model(name, args, Path(folder) / name)
            if args.out:
                write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0


def one_model(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    model = make_model(name, folder)
    bodies = make_bodies(name)
    both = os.sched_getaffinity(0)
    cores = {min(both)} if name == "mlp" else both
    load_cores = {max(both)} if name == "mlp" else both
    workers = len(cores)
    seconds = args.seconds if name == "mlp" else 2 * args.seconds
    servers = [
        s
        for s in make_servers(model, args, workers)
        if s.name == BASE or not args.only or any(map(s.name.startswith, args.only))
    ]
    windows: dict[str, dict[str, list[dict[str, float]]]] = {}
    try:
        for server in servers:
            server.start(cores, folder / f"{server.port}.log")
            print(name, server.name, server.failed or "ready", flush=True)
        for kind, body in bodies.items():
            there = [server for server in servers if kind in server.paths and not server.failed]
            with (
                bare(model, workers, cores)
                if kind == "binary" and name == "resnet18"
                else contextlib.nullcontext() as no_server
            ):
                for server in there:  # warm up
                    window(server, body, 1.0, load_cores, folder)
                order = random.Random(kind)
                for _ in range(args.rounds):
                    turns: list[Server | None] = [*there, *([None] if no_server else [])]
                    order.shuffle(turns)
                    for server in turns:
                        who = server.name if server else "bare ONNX Runtime"
                        found = window(server, body, seconds, load_cores, folder) if server else no_server(seconds)
                        windows.setdefault(kind, {}).setdefault(who, []).append(found)
            for who, told in summarize(windows[kind]).items():
                speed = f"{told['rps']:8.0f}/s x{told['rps_ratio']:.2f}"
                cost = f"{told['cpu_ms']:.3f} ms CPU x{told['cpu_ratio']:.2f}"
                print(f"{name} {kind:6} {who:26} {speed}  {cost}  p99 {told['p99_ms']:.1f} ms  {told['bad']:.0f} bad")
    finally:
        for server in servers:
            server.stop()
    return {
        "workers": workers,
        "cores_of_servers": sorted(cores),
        "cores_of_load": sorted(load_cores),
        "seconds": seconds,
        "servers": {server.name: {"failed": server.failed} for server in servers},
        "bodies": {kind: len(body.content) for kind, body in bodies.items()},
        "windows": windows,
        "summary": {kind: summarize(found) for kind, found in windows.items()},
    }


def summarize(windows: dict[str, list[dict[str, float]]], base: str = BASE) -> dict[str, dict[str, float]]:
    """Medians of each way's windows, and of their ratios to the base's window of the same round."""
    return {
        name: {
            **{figure: median(w[figure] for w in found) for figure in ("rps", "cpu_ms", "p50_ms", "p99_ms")},
            **{
                f"{figure.partition('_')[0]}_ratio": median(
                    w[figure] / b[figure] for w, b in zip(found, windows[base], strict=True)
                )
                for figure in ("rps", "cpu_ms", "p50_ms")
            },
            "bad": sum(w["bad"] for w in found),
        }
        for name, found in windows.items()
    }


def window(server: Server, body: Body, seconds: float, cores: set[int], folder: Path) -> dict[str, float]:
    shape = server.shapes.get(body.kind, body)
    file = folder / f"{server.port}-{body.kind}.body"
    file.write_bytes(shape.content)
    script = folder / f"{server.port}-{body.kind}.lua"
    headers = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in shape.headers.items())
    script.write_text(LUA.format(body=file, headers=headers))
    url = f"http://127.0.0.1:{server.port}{server.paths[body.kind]}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script), url]
    before = server.cpu_s()
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    used = server.cpu_s() - before
    line = next((line for line in told.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise RuntimeError(f"wrk failed on {url}: {told.stdout} {told.stderr}")
    found = json.loads(line.removeprefix("RESULT "))
    good = max(found["requests"] - found["bad"], 1)
    return {
        "rps": good / (found["us"] / 1e6),
        "cpu_ms": 1e3 * used / good,
        "p50_ms": found["p50_us"] / 1e3,
        "p99_ms": found["p99_us"] / 1e3,
        "bad": found["bad"],
    }


@contextlib.contextmanager
def bare(model: Path, threads: int, cores: set[int]) -> Iterator[Any]:
    command = [sys.executable, str(HERE / "peers" / "serve_bare.py"), str(model), "1,3,224,224", str(threads)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()

        def run(seconds: float) -> dict[str, float]:
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
            calls, took, cpu = map(float, process.stdout.readline().split())
            return {"rps": calls / took, "cpu_ms": 1e3 * cpu / calls, "p50_ms": 0.0, "p99_ms": 0.0, "bad": 0}

        yield run
        process.stdin.close()


def make_model(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    if name == "resnet18":
        redline.export("resnet18", path)
        return path
    import torch  # what only answers needs none

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).eval()
    torch.onnx.export(
        net,
        (torch.zeros(2, 64),),
        str(path),
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    return path


def make_bodies(name: str) -> dict[str, Body]:
    shape = (1, 64) if name == "mlp" else (1, 3, 224, 224)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    tensor = {"name": "x", "shape": list(shape), "datatype": "FP32"}
    as_json = orjson.dumps({"inputs": [{**tensor, "data": array}]}, option=orjson.OPT_SERIALIZE_NUMPY)
    wanted = {
        "inputs": [{**tensor, "parameters": {"binary_data_size": array.nbytes}}],
        "parameters": {"binary_data_output": True},
    }
    head = orjson.dumps(wanted)
    length = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    bodies = {
        "json": Body("json", as_json, {"Content-Type": "application/json"}),
        "binary": Body("binary", head + array.tobytes(), length),
    }
    if name == "resnet18":
        photos = Path(redline.__file__).parent / "data" / "assets" / "photos"
        photo = sorted(photos.glob("*.jpg"))[0]
        bodies["jpeg"] = Body("jpeg", photo.read_bytes(), {"Content-Type": "image/jpeg"})
    return bodies


def make_servers(model: Path, args: argparse.Namespace, workers: int) -> list[Server]:
    infer = {"json": "/v2/models/m/infer", "binary": "/v2/models/m/infer", "jpeg": "/predict/m"}
    own = {"json": "/json", "binary": "/binary", "jpeg": "/jpeg"}
    ours = [sys.executable, "-m", "redline", "serve", f"m={model}", "--quiet", "--instances", str(workers)]
    found = []
    for runner in ("granian", "waitress"):
        port = free_port()
        found.append(
            Server(
                f"redline, {runner}", [*ours, "--runner", runner, "--port", str(port)], port, "/v2/health/ready", infer
            )
        )
    port = free_port()
    threads = str(4 * workers)
    found.insert(
        0,
        Server(
            BASE,
            [sys.executable, str(HERE / "peers/serve_plain.py"), str(model), str(port), threads],
            port,
            "/ready",
            own,
        ),
    )
    port = free_port()
    lit = [str(args.litserve), str(HERE / "peers/serve_litserve.py"), str(model), str(port), str(workers)]
    found.append(
        Server("LitServe", lit, port, "/health", {"json": "/predict", "binary": "/predict", "jpeg": "/predict"})
    )
    port = free_port()
    bento = [
        str(args.bentoml),
        "-m",
        "bentoml",
        "serve",
        "serve_bentoml:Model",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    environment = {
        "MODEL": str(model),
        "PYTHONPATH": str(HERE / "peers"),
        "WORKERS": str(workers),
        "BENTOML_DO_NOT_TRACK": "1",
    }
    found.append(Server("BentoML", bento, port, "/readyz", {"json": "/json", "jpeg": "/jpeg"}, environment))
    port = free_port()
    ray = [str(args.ray_serve), str(HERE / "peers/serve_ray.py"), str(model), str(port), str(workers)]
    found.append(Server("Ray Serve", ray, port, "/ready", own, {"RAY_USAGE_STATS_ENABLED": "0"}))
    for server in found:
        server.shapes = shapes_of(server.name, make_bodies(model.stem))
    return found


def shapes_of(server: str, bodies: dict[str, Body]) -> dict[str, Body]:
    """The same content in the form that a server's documentation has."""
    if server == "BentoML":
        array = orjson.loads(bodies["json"].content)["inputs"][0]["data"]
        found = {"json": Body("json", orjson.dumps({"x": array}), {"Content-Type": "application/json"})}
        if "jpeg" in bodies:
            found["jpeg"] = multipart("jpeg", "image", "a.jpg", "image/jpeg", bodies["jpeg"].content)
        return found
    if server == "LitServe":
        length = int(bodies["binary"].headers["Inference-Header-Content-Length"])
        raw = bodies["binary"].content[length:]
        found = {"binary": multipart("binary", "tensor", "x.bin", "application/octet-stream", raw)}
        if "jpeg" in bodies:
            found["jpeg"] = multipart("jpeg", "image", "a.jpg", "image/jpeg", bodies["jpeg"].content)
        return found
    return {}


def multipart(kind: str, name: str, file: str, mime: str, content: bytes) -> Body:
    mark = "redline-boundary-5f2c"
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: {mime}\r\n\r\n'
    )
    return Body(
        kind,
        head.encode() + content + f"\r\n--{mark}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={mark}"},
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
