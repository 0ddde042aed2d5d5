"""Ultralytics' `ProfileModels` and `benchmark`, called as documented, in its own environment and offline.

    python benchmarks/peers/timed_ultralytics.py profile model.onnx --size 224
    python benchmarks/peers/timed_ultralytics.py benchmark --format onnx --data images/ --size 224

Nothing of Ultralytics (AGPL-3.0) is copied: it is installed apart, and its output is read. torchvision's wheel is built
for CUDA and does not load beside a CPU build of torch unless two operators that are not called here are declared.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import onnxruntime
import torch

os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true")
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
SHIPPED = "cfg/models/11/yolo11-cls-resnet18.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("profile", "benchmark"))
    parser.add_argument("model", nargs="?")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=60.0, help="min_time of ProfileModels; its default is 60")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--data", type=Path, help="folders of images by class, in train/ and val/")
    parser.add_argument("--threads", type=int, help="hold ONNX Runtime and torch to so many; left out: as they come")
    args = parser.parse_args()
    seen = watch_sessions(args.threads)
    from ultralytics.utils.benchmarks import ProfileModels, benchmark

    if args.what == "profile":
        ProfileModels([args.model], imgsz=args.size, trt=False, device="cpu", min_time=args.seconds).run()
    else:
        classes = len(list((args.data / "val").iterdir()))
        model = classifier(classes)
        benchmark(model=model, data=str(args.data.resolve()), imgsz=args.size, device="cpu", format=args.format)
    sessions = [f"ONNX Runtime {threads or 'as many as cores'}" for threads in sorted(seen)]
    print("threads:", "; ".join([*sessions, f"torch {torch.get_num_threads()}"]), flush=True)


def watch_sessions(threads: int | None) -> set[int]:
    """Note with how many threads sessions are made (0: ONNX Runtime chooses), or say with how many."""
    seen: set[int] = set()
    original = onnxruntime.InferenceSession.__init__

    def made(session: Any, path: Any, sess_options: Any = None, *args: Any, **kwargs: Any) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        seen.add(options.intra_op_num_threads)
        original(session, path, options, *args, **kwargs)

    onnxruntime.InferenceSession.__init__ = made
    if threads is not None:
        torch.set_num_threads(threads)
        # Ultralytics sets torch's threads itself, whenever it selects the CPU.
        torch.set_num_threads = lambda _: None
    return seen


def classifier(classes: int) -> str:
    """Its classifier with a ResNet-18 inside, weights at random; its own head is larger than ResNet's."""
    import ultralytics
    from ultralytics import YOLO

    shipped = (Path(ultralytics.__file__).parent / SHIPPED).read_text(encoding="utf-8")
    Path("yolo11-cls-resnet18.yaml").write_text(shipped.replace("DEFAULT", "None").replace("1000", str(classes), 1))
    torch.manual_seed(0)
    YOLO("yolo11-cls-resnet18.yaml", task="classify").save("yolo11-cls-resnet18.pt")
    return "yolo11-cls-resnet18.pt"


if __name__ == "__main__":
    main()
