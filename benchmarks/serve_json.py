"""What it costs to decode a request in JSON: the floats of one image of 3x224x224 into a float32 array.

Redline's whole parser of the Open Inference Protocol, with all that it checks, against the json module and against
orjson, each with NumPy and with no checks; in turns, on the same bodies, CPU time of the thread.

    python benchmarks/serve_json.py -o results/cpu/serve_json.json

Ends with 1 where a median of Redline's is more than 8 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import numpy as np
import orjson

import redline
from redline.core.files import write_whole
from redline.core.plain import to_plain
from redline.core.tensor import Array, Signature, TensorSpec
from redline.measurement.environment import fingerprint, noise_check
from redline.serving.limits import Limits
from redline.serving.protocol import parse_infer

LIMIT_S = 8e-3
SHAPE = (1, 3, 224, 224)
SIGNATURE = Signature(
    (TensorSpec("image", ("batch", *SHAPE[1:]), "float32"),), (TensorSpec("scores", ("batch", 1000), "float32"),)
)
LIMITS = Limits()


def redline_parser(body: bytes) -> Array:
    return parse_infer(body, None, SIGNATURE, LIMITS).inputs["image"]


def json_and_numpy(body: bytes) -> Array:
    (given,) = json.loads(body)["inputs"]
    return np.array(given["data"], np.float32).reshape(given["shape"])


def orjson_and_numpy(body: bytes) -> Array:
    (given,) = orjson.loads(body)["inputs"]
    return np.array(given["data"], np.float32).reshape(given["shape"])


DECODERS: dict[str, Callable[[bytes], Array]] = {
    "redline": redline_parser,
    "orjson and NumPy": orjson_and_numpy,
    "json and NumPy": json_and_numpy,
}


def bodies(image: Array) -> dict[str, bytes]:
    """The same image as clients write it: flat, nested, and flat from Python's own floats, as tritonclient does."""
    return {
        "flat": _body(image.ravel()),
        "nested": _body(image),
        "flat, in digits of float64": _body(image.ravel().tolist()),
    }


def _body(data: Any) -> bytes:
    described = {"name": "image", "shape": SHAPE, "datatype": "FP32", "data": data}
    return orjson.dumps({"inputs": [described]}, option=orjson.OPT_SERIALIZE_NUMPY)


def measure(body: bytes, wanted: Array, repeats: int) -> dict[str, list[float]]:
    """The CPU seconds of each decoder, in turns that start with another one each time."""
    names = list(DECODERS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        np.testing.assert_array_equal(DECODERS[name](body), wanted, strict=True)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun = thread_time()
            DECODERS[name](body)
            seconds[name].append(thread_time() - begun)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    environment = to_plain(fingerprint(noise=noise_check()))
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    results: dict[str, Any] = {}
    for name, body in bodies(image).items():
        seconds = measure(body, image, args.repeats)
        medians = {decoder: median(taken) for decoder, taken in seconds.items()}
        results[name] = {"bytes": len(body), "median_cpu_s": medians, "cpu_s": seconds}
        told = ", ".join(f"{decoder} {1000 * taken:.2f} ms" for decoder, taken in medians.items())
        print(f"{name} ({len(body) / 1e6:.2f} MB): {told}")
    largest = max(result["median_cpu_s"]["redline"] for result in results.values())
    document = {
        "benchmark": "serve_json",
        "command": " ".join(["python", "benchmarks/serve_json.py", *sys.argv[1:]]),
        "what": "CPU seconds from the bytes of a request of the Open Inference Protocol to a float32 array",
        "floats": image.size,
        "repeats": args.repeats,
        "results": results,
        "largest_median_cpu_s": largest,
        "limit_s": LIMIT_S,
        "redline": redline.__version__,
        "environment": environment,
    }
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if largest <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
