"""What Redline's timing adds to the time of a call: windows of a session that does nothing, in one process.

    python benchmarks/harness_overhead.py -o results/cpu/harness_overhead.json

Ends with 1 where a repeat's median is 10 microseconds or more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from time import get_clock_info

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.measurement.environment import fingerprint, noise_check
from redline.measurement.latency import clock_resolution_s, harness_overhead_s

LIMIT_S = 10e-6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    environment = to_plain(fingerprint(noise=noise_check()))
    overheads = [harness_overhead_s(calls=args.calls) for _ in range(args.repeats)]
    resolutions = [clock_resolution_s() for _ in range(args.repeats)]
    document = {
        "benchmark": "harness_overhead",
        "command": " ".join(["python", "benchmarks/harness_overhead.py", *sys.argv[1:]]),
        "what": "median seconds that time_calls measures for a call of a session that does nothing",
        "calls": args.calls,
        "overhead_s": overheads,
        "median_overhead_s": median(overheads),
        "largest_overhead_s": max(overheads),
        "limit_s": LIMIT_S,
        "clock": {
            "implementation": get_clock_info("perf_counter").implementation,
            "smallest_step_s": resolutions,
        },
        "redline": redline.__version__,
        "environment": environment,
    }
    for index, overhead in enumerate(overheads):
        print(f"repeat {index + 1}: {overhead * 1e9:.0f} ns a call")
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if max(overheads) < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
