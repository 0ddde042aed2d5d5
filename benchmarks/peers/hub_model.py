"""Redline's ResNet-18 as a Hub-style folder, all that optimum-benchmark takes: same architecture, same weights.

Runs in optimum-benchmark's environment; the folder is written only if it answers as the ONNX file does.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification

# torchvision's names, which Redline's have, by Transformers' names.
NAMES = (
    (r"^resnet\.embedder\.embedder\.convolution", "conv1"),
    (r"^resnet\.embedder\.embedder\.normalization", "bn1"),
    (r"^classifier\.1", "fc"),
    (r"\.shortcut\.convolution", ".downsample.0"),
    (r"\.shortcut\.normalization", ".downsample.1"),
    (r"\.layer\.0\.convolution", ".conv1"),
    (r"\.layer\.0\.normalization", ".bn1"),
    (r"\.layer\.1\.convolution", ".conv2"),
    (r"\.layer\.1\.normalization", ".bn2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors with torchvision's names")
    parser.add_argument("--onnx", type=Path, required=True, help="what it has to answer like")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = load_file(args.weights)
    config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=len(weights["fc.bias"]),
    )
    model = ResNetForImageClassification(config).eval()
    model.load_state_dict({name: weights[ours(name)] for name in model.state_dict()})
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(args.onnx), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.inference_mode():
        got = model(torch.from_numpy(x)).logits.numpy()
    difference = float(np.abs(got - expected).max() / np.abs(expected).max())
    if difference > 1e-4:
        raise SystemExit(f"another model: its answers differ by {difference:.1e} of the largest, expected under 1e-4")
    model.save_pretrained(args.out)
    print(f"largest difference from the ONNX file: {difference:.1e} of the largest answer")


def ours(name: str) -> str:
    name = re.sub(r"^resnet\.encoder\.stages\.(\d)\.layers", lambda found: f"layer{int(found[1]) + 1}", name)
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


if __name__ == "__main__":
    main()
