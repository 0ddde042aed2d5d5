"""The TensorRT lab: export a small CNN, build FP32, FP16 and INT8 engines of it, and see what each gains and costs.

    python examples/tensorrt_lab.py [FOLDER]

One script for every TensorRT: 8.6 and 10 with builder flags and a calibrator, 11 and TensorRT-RTX with a graph that has
the types in it. The model is `digits`, a small trained network for handwritten digits that ships with Redline together
with labelled images that it was not trained on, so that accuracy is a real number.

On a machine without a GPU, TensorRT-RTX builds the engines for one that you may have (SM 8.9, such as an RTX 4060);
they are inspected and not run, and the lab says so. With a GPU and TensorRT all of it runs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import redline
from redline.backends import open_engine
from redline.commands.build import BuildOptions, BuildResult
from redline.core.errors import RedlineError
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_asset
from redline.formats.onnx_file import read_onnx
from redline.networks.load import load_model
from redline.opening.sessions import open_onnx

RUNS = 300
BATCH = 64


def main(folder: Path) -> None:
    calibration, test = digits()
    model = part_1_export(folder, test)
    result = part_2_build(folder, model, calibration)
    times = part_3_time(result, test)
    part_4_int8(model, result, test)
    part_5_pytorch(test, times)


def digits() -> tuple[Samples, Samples]:
    loaded = load_model("digits")
    assert loaded.preprocess is not None
    assert loaded.asset is not None
    return load_asset(loaded.asset, loaded.preprocess, input_name="image")


# --- Part 1: export a small CNN and check it ------------------------------------------------------------------------


def part_1_export(folder: Path, test: Samples) -> Path:
    say("1. Export")
    # Opset 17 is the newest that TensorRT 8.6 reads; later generations read it too.
    exported = redline.export("digits", folder / "digits.onnx", opset=17)
    name = exported.model.signature.inputs[0].name
    print(
        f"   {exported.model.path.name}: input {name} {exported.model.signature.inputs[0].shape}, "
        f"largest difference from PyTorch {exported.max_abs_difference:.1e}"
    )
    assert exported.max_abs_difference < 1e-3
    answers = in_onnx_runtime(exported.model.path, test)
    accuracy = float((answers.argmax(1) == test.labels).mean())
    print(f"   accuracy on {len(test)} images that it was not trained on: {accuracy:.1%}")
    assert accuracy > 0.95
    return exported.model.path


# --- Part 2: engines in three precisions, and what is really in them ------------------------------------------------


def part_2_build(folder: Path, model: Path, calibration: Samples) -> BuildResult:
    say("2. Build FP32, FP16 and INT8 engines")
    name = read_onnx(model).signature.inputs[0].name
    np.savez(folder / "calibration.npz", **{name: calibration.inputs["image"]})
    result = redline.build(
        model,
        folder / "plans",
        precisions=("fp32", "fp16", "int8"),
        data=folder / "calibration.npz",
        options=BuildOptions(profiles=(f"1,{BATCH},{BATCH}",), target="" if has_tensorrt() else "sm89", measure=False),
    )
    print(f"   with {', '.join(f'{key} {value}' for key, value in result.platform.items())}")
    for variant in result.variants:
        assert variant.engine is not None, variant.failed
        how = f"{variant.recipe.typing} typing" + (
            f", {variant.recipe.calibrator}" if variant.recipe.calibrator else ""
        )
        print(f"   {variant.engine.path.name:18}{variant.size_bytes:>9,} bytes  {how:24} layers: {variant.got}")
    return result


# --- Part 3: a few hundred timed runs of each -----------------------------------------------------------------------


def part_3_time(result: BuildResult, test: Samples) -> dict[str, float]:
    say(f"3. Time {RUNS} runs of each at batch {BATCH}")
    times: dict[str, float] = {}
    for variant in result.variants:
        assert variant.engine is not None
        try:
            session: Any = open_engine(str(variant.engine.path))
        except RedlineError as error:
            print(f"   not run: {error}")
            return {}
        feed = {session.signature.inputs[0].name: test.batch(0, BATCH)["image"]}
        session.warm(feed)
        samples = []
        for _ in range(RUNS):
            start = perf_counter()
            session(feed)
            samples.append(perf_counter() - start)
        device = median(session.device_times(feed, RUNS))
        times[variant.recipe.name] = device
        whole = median(samples)
        print(
            f"   {variant.recipe.name}: {whole * 1e3:.3f} ms from array to array, {device * 1e3:.4f} ms of it on the "
            f"GPU, {BATCH / whole:,.0f} images/s one call after the other"
        )
        session.close()
    fastest = min(times, key=times.__getitem__)
    print(f"   on the GPU {fastest} is the fastest, {times['fp32'] / times[fastest]:.2f} times fp32")
    return times


# --- Part 4: what INT8 costs ----------------------------------------------------------------------------------------


def part_4_int8(model: Path, result: BuildResult, test: Samples) -> None:
    say("4. INT8 against FP32: the same answers?")
    right = in_onnx_runtime(model, test)
    for variant in result.variants:
        assert variant.engine is not None
        prepared = variant.engine.path.parent / f"digits_{variant.recipe.name}.onnx"
        try:
            session = open_engine(str(variant.engine.path))
        except RedlineError:
            if not prepared.is_file():
                continue
            # The engine cannot run here; the graph that it was built from can, in ONNX Runtime.
            given, where = in_onnx_runtime(prepared, test), "its graph in ONNX Runtime"
        else:
            given, where = all_answers(session, test), "the engine"
            session.close()
        same = float((given.argmax(1) == right.argmax(1)).mean())
        accuracy = float((given.argmax(1) == test.labels).mean())
        error = float(np.linalg.norm(given - right) / np.linalg.norm(right))
        print(f"   {variant.recipe.name} ({where}): same class {same:.1%}, accuracy {accuracy:.1%}, error {error:.1e}")
        assert same >= 0.99
        assert error <= {"fp32": 1e-4, "fp16": 5e-3}.get(variant.recipe.precision, 0.2)


# --- Part 5: PyTorch as it is, and the real gain --------------------------------------------------------------------


def part_5_pytorch(test: Samples, times: dict[str, float]) -> None:
    say("5. PyTorch on the GPU")
    if not times:
        print("   not run: without a GPU there is nothing to compare with")
        return
    from redline.networks.eager import open_model

    for dtype in ("fp32", "tf32", "fp16"):
        try:
            session: Any = open_model(load_model("digits"), dtype=dtype, device="cuda")  # type: ignore[arg-type]
        except RedlineError as error:
            print(f"   {dtype}: not run: {error}")
            continue
        feed = {session.signature.inputs[0].name: test.batch(0, BATCH)["image"]}
        for _ in range(10):
            session(feed)
        device = median(session.device_times(feed, RUNS))
        gains = ", ".join(f"{name} {device / seconds:.2f} times" for name, seconds in times.items())
        print(f"   eager {dtype}: {device * 1e3:.4f} ms on the GPU; TensorRT is faster: {gains}")
        session.close()


# --- helpers --------------------------------------------------------------------------------------------------------


def has_tensorrt() -> bool:
    try:
        from redline.backends import load_backend
        from redline.backends.nvidia import device_count

        load_backend("tensorrt")
        return device_count() > 0
    except RedlineError:
        return False


def in_onnx_runtime(path: Path, test: Samples) -> Array:
    session = open_onnx(read_onnx(path))
    answers = all_answers(session, test)
    session.close()
    return answers


def all_answers(session: Any, test: Samples) -> Array:
    name = session.signature.inputs[0].name
    parts = []
    for start in range(0, len(test), BATCH):
        images = test.inputs["image"][start : start + BATCH]
        parts.append(next(iter(session({name: images}).values())))
    return np.concatenate(parts)


def say(title: str) -> None:
    print(f"\n{title}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="tensorrt-lab-") as scratch:
            main(Path(scratch))
    print("\nAll checks passed.")
