"""How `redline serve` should run a model on a CPU: runs at once, threads of one run, batches; in interleaved windows.

ResNet-18, binary bodies; 1 client that waits for its answer, and 8. Ratios are of windows of one round to the default
(one session, one thread a run, as many runs at once as cores).

    apt install wrk
    python benchmarks/serve_ways.py -o results/cpu/serve_ways.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

import serve as bench

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint, noise_check

DEFAULT = "runs at once, 1 thread each"
WAYS = {
    DEFAULT: [],
    "1 run, all cores": ["--threads", "0", "--instances", "1"],
    "runs at once, batches of up to 8": ["--max-batch", "8"],
    "1 run, all cores, batches of up to 8": ["--threads", "0", "--instances", "1", "--max-batch", "8"],
}
CLIENTS = (1, 8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    document = {
        "benchmark": "serve_ways",
        "command": "python benchmarks/serve_ways.py",
        "redline": redline.__version__,
        "environment": to_plain(fingerprint(noise=noise_check())),
        "seconds": args.seconds,
    }
    cores = os.sched_getaffinity(0)
    windows: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = bench.make_model("resnet18", folder)
        body = bench.make_bodies("resnet18")["binary"]
        servers = [make_server(name, options, model) for name, options in WAYS.items()]
        try:
            for server in servers:
                server.start(cores, folder / f"{server.port}.log")
                if server.failed:
                    raise RuntimeError(f"{server.name} {server.failed}")
            for clients in CLIENTS:
                bench.CONNECTIONS = clients
                found = windows[str(clients)] = {server.name: [] for server in servers}
                for server in servers:  # warm up
                    bench.window(server, body, 1.0, cores, folder)
                order = random.Random(clients)
                for _ in range(args.rounds):
                    for server in order.sample(servers, len(servers)):
                        found[server.name].append(bench.window(server, body, args.seconds, cores, folder))
                for name, told in bench.summarize(found, DEFAULT).items():
                    print(
                        f"{clients} clients  {name:38} {told['rps']:6.1f}/s x{told['rps_ratio']:.2f}  "
                        f"p50 {told['p50_ms']:.1f} ms x{told['p50_ratio']:.2f}  p99 {told['p99_ms']:.1f} ms"
                    )
        finally:
            for server in servers:
                server.stop()
    summary = {clients: bench.summarize(found, DEFAULT) for clients, found in windows.items()}
    if args.out:
        write_whole(args.out, json.dumps({**document, "windows": windows, "summary": summary}, indent=1) + "\n")
    return 0


def make_server(name: str, options: list[str], model: Path) -> bench.Server:
    port = bench.free_port()
    command = [sys.executable, "-m", "redline", "serve", f"m={model}", "--quiet", "--port", str(port), *options]
    return bench.Server(name, command, port, "/v2/health/ready", {"binary": "/v2/models/m/infer"})


if __name__ == "__main__":
    sys.exit(main())
