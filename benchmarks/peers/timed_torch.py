"""`torch.utils.benchmark` by its documented recipe: a `Timer`, `blocked_autorange`, the `Measurement` printed.

python benchmarks/peers/timed_torch.py resnet18 --batch 1      PyTorch eager, a built-in model of Redline
python benchmarks/peers/timed_torch.py model.onnx --batch 1    the same timer around a bare ONNX Runtime session
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import benchmark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a built-in name, or an ONNX file")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    x = torch.randn(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(0))
    call = onnx_call(args.model) if args.model.endswith(".onnx") else eager_call(args.model)
    # num_threads is left at the timer's default, which is 1.
    timer = benchmark.Timer(stmt="call(x)", globals={"call": call, "x": x}, label=f"batch {args.batch}")
    print(timer.blocked_autorange(min_run_time=args.seconds), flush=True)


def eager_call(name: str) -> Callable[[torch.Tensor], Any]:
    from redline.networks.zoo import build

    model = build(name)

    def call(x: torch.Tensor) -> Any:
        with torch.inference_mode():
            return model(x)

    return call


def onnx_call(path: str) -> Callable[[torch.Tensor], Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.numpy()})


if __name__ == "__main__":
    main()
