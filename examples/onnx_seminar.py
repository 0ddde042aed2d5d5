"""The ONNX seminar: export a PyTorch model, quantize it, optimize its graph, and check every step.

    python examples/onnx_seminar.py [FOLDER]

Runs in well under a minute on two cores and needs no network. Each part says what it does, does it, and asserts that
it worked, so that this file is also a test. The model is `digits`, a small network for handwritten digits that ships
with Redline together with 599 labelled images that it was not trained on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import redline
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_asset
from redline.formats.onnx_file import read_onnx
from redline.networks.load import load_model, wrap_module
from redline.opening.sessions import open_onnx

PASSES = ("eliminate_deadend", "fuse_add_bias_into_conv", "fuse_bn_into_conv")


def main(folder: Path) -> None:
    images = test_images()
    exported = part_1_export(folder, images)
    part_2_quantize(folder, exported, images)
    part_3_optimize(folder)


# --- Part 1: export -------------------------------------------------------------------------------------------------


def part_1_export(folder: Path, images: Samples) -> Path:
    """Export with a dynamic batch axis and compare the answers with PyTorch's."""
    print("\n1. Export to ONNX with a dynamic batch axis\n")
    path = folder / "digits.onnx"

    # `export` runs the module in eval mode, names inputs and outputs, leaves the batch open, checks the file with
    # onnx.checker, and compares it with PyTorch in ONNX Runtime at two batch sizes before it keeps the file.
    result = redline.export("digits", path)
    spec = result.model.signature.inputs[0]
    print(f"   {path.name}: opset {result.model.opset}, {kilobytes(path)}")
    print(f"   input {spec.name!r} has shape {spec.shape}: the batch is a name, so any size goes")
    assert spec.shape == ("batch", 1, 8, 8)

    # The same comparison by hand, at batch sizes that the exporter never saw.
    module = load_model("digits").module
    session = open_onnx(result.model)
    for batch in (1, 2, 7, 64):
        inputs = images.batch(0, batch)["input"]
        with torch.inference_mode():
            expected = module(torch.from_numpy(inputs)).numpy()
        got = session({spec.name: inputs})["output"]
        difference = float(np.abs(got - expected).max())
        print(f"   batch {batch:2}: largest difference to PyTorch {difference:.1e}")
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
    session.close()
    return path


# --- Part 2: quantization -------------------------------------------------------------------------------------------


def part_2_quantize(folder: Path, model: Path, images: Samples) -> None:
    """Dynamic quantization: weights in 8 bits; what becomes of the size and of the predictions."""
    print("\n2. Dynamic quantization\n")
    path = folder / "digits_int8.onnx"
    result = redline.quantize(model, path, mode="dynamic")
    print(f"   layers now: {result.model.layers.describe()}")
    print(
        f"   size: {kilobytes(model)} -> {kilobytes(path)}, {model.stat().st_size / path.stat().st_size:.1f}x smaller"
    )
    assert path.stat().st_size < 0.5 * model.stat().st_size

    before, after = logits_of(model, images), logits_of(path, images)
    same = float((before.argmax(1) == after.argmax(1)).mean())
    print(f"   largest difference of a logit: {np.abs(before - after).max():.3f} (their spread is {before.std():.1f})")
    print(f"   same prediction: {same:.1%} of {len(images)} images")
    print(f"   accuracy: {accuracy(before, images):.1%} -> {accuracy(after, images):.1%}")
    assert same > 0.98
    assert accuracy(after, images) > accuracy(before, images) - 0.01


# --- Part 3: graph passes -------------------------------------------------------------------------------------------


class Textbook(nn.Module):
    """A network with something to do for each of the three passes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bias1 = nn.Parameter(torch.randn(1, 16, 1, 1))  # a bias that is added outside of the convolution
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 10)
        self.helper_head = nn.Linear(16, 4)  # guides the training, and nobody asks for it afterwards
        for tensor in (self.norm2.weight, self.norm2.bias, self.norm2.running_mean, self.norm2.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 1.5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images in; digits and the helper's guess out."""
        x = torch.relu(self.conv1(image) + self.bias1)
        x = torch.relu(self.norm2(self.conv2(x))).mean((2, 3))
        return self.head(x), self.helper_head(x)


def part_3_optimize(folder: Path) -> None:
    """Three optimizer passes, one after the other; the answers stay."""
    print("\n3. Three graph passes\n")

    # Today's exporters fuse batch normalization themselves, and then the passes have nothing to do:
    modern = redline.export("digits", folder / "modern.onnx")
    done = redline.optimize(modern.model.path, folder / "modern_optimized.onnx", passes=PASSES)
    print("   on a normal export: " + ", ".join(f"{one.name}: {one.status}" for one in done.outcomes))
    assert all(one.status == "nothing to do" for one in done.outcomes)

    # So we ask for the graph as the module wrote it (fold=False), and take the helper's output off.
    torch.manual_seed(0)
    raw = folder / "textbook.onnx"
    redline.export(wrap_module(Textbook(), torch.rand(1, 3, 32, 32), name="textbook"), raw, fold=False)
    drop_output(raw, "output1")
    images = np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32)
    model, expected = raw, run(raw, images)

    for name in PASSES:
        result = redline.optimize(model, folder / f"textbook_{name}.onnx", passes=[name])
        outcome = result.outcomes[0]
        difference = float(np.abs(run(result.model.path, images) - expected).max())
        print(
            f"   {name:24} {outcome.status}: {outcome.nodes_before} -> {outcome.nodes_after} nodes, "
            f"outputs differ by at most {difference:.1e}"
        )
        assert outcome.status == "changed", outcome
        assert outcome.nodes_after < outcome.nodes_before
        assert difference < 1e-4
        model = result.model.path
    left = [node.op_type for node in onnx.load(model).graph.node]
    print(f"   what is left: {', '.join(left)}")
    assert "BatchNormalization" not in left
    assert "Add" not in left


# --- Helpers --------------------------------------------------------------------------------------------------------


def test_images() -> Samples:
    preprocess = load_model("digits").preprocess
    assert preprocess is not None
    _, verification = load_asset("digits.npz", preprocess)
    return verification


def run(path: Path, images: Array) -> Array:
    # ONNX Runtime would fuse the same nodes by itself when it loads the file: off, so that the file itself is run.
    session = open_onnx(read_onnx(path), options={"graph_optimization": "disabled"})
    try:
        return next(iter(session({session.signature.inputs[0].name: images}).values()))
    finally:
        session.close()


def logits_of(path: Path, images: Samples) -> Array:
    return run(path, images.inputs["input"])


def accuracy(logits: Array, images: Samples) -> float:
    return float((logits.argmax(1) == images.labels).mean())


def drop_output(path: Path, name: str) -> None:
    model = onnx.load(path)
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, path)


def kilobytes(path: Path) -> str:
    return f"{path.stat().st_size / 1000:.0f} kB"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="onnx-seminar-") as scratch:
            main(Path(scratch))
    print("\nAll checks passed.")
