"""Build with Torch-TensorRT, which starts from a PyTorch model and not from a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from redline.backends import load_backend
from redline.building.recipes import Recipe
from redline.building.records import BuildOptions, BuildRequest, BuildResult, BuiltEngine
from redline.building.trial import run_all
from redline.core.errors import BuildError, InputError
from redline.core.files import stem_of
from redline.core.plain import to_plain
from redline.core.samples import Samples
from redline.core.tensor import Signature
from redline.data.sources import load_asset, load_samples
from redline.data.synthetic import synthetic_samples

if TYPE_CHECKING:
    from redline.networks.load import TorchModel

_DEFAULT_BATCH = (1, 8, 32)


def build_torch(model: str, out: Path, request: BuildRequest) -> BuildResult:
    """Compile ``model`` once for each precision and save what came of it; see :func:`redline.commands.build.build`.

    Raises:
        MissingDependencyError: Torch-TensorRT is not installed.
        DeviceError: there is no GPU.
    """
    from redline.networks.eager import open_model, save_weights, signature_of
    from redline.networks.load import ModelRef, load_model

    platform = load_backend("torch-tensorrt").platform()
    batch = _batch(request.options)
    loaded = load_model(ModelRef(model, None))
    signature = signature_of(loaded)
    calibration, samples = _samples(loaded, signature, request)
    out.mkdir(parents=True, exist_ok=True)
    variants = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".", suffix=".partial") as scratch:
        weights = save_weights(loaded, Path(scratch) / "weights.safetensors")
        np.savez(Path(scratch) / "calibration.npz", **cast("Any", calibration.inputs))
        arguments = {
            "ref": to_plain(loaded.ref),
            "batch": batch,
            "weights_file": str(weights),
            "signature": to_plain(signature),
        }
        for index, precision in enumerate(request.precisions):
            request.tell(f"compile {precision}", index, len(request.precisions))
            path = out / f"{stem_of(model)}_{precision}.torch-trt"
            variants.append(_compile(arguments, precision, path, Path(scratch)))
    return BuildResult(
        model={"name": model},
        backend="torch-tensorrt",
        platform=platform,
        variants=tuple(run_all(lambda: open_model(loaded), variants, samples, request)),
        samples=f"{len(samples)} of {samples.source}",
    )


def _samples(loaded: TorchModel, signature: Signature, request: BuildRequest) -> tuple[Samples, Samples]:
    """Samples to calibrate on and to verify on; what ships with the model where none were given."""
    if request.data is not None:
        found = load_samples(
            request.data,
            signature,
            loaded.preprocess,
            labels=request.labels,
            classes=loaded.class_names,
            limit=2 * request.options.samples,
        )
        return found.split(min(request.options.samples, len(found) // 2), seed=0) if len(found) > 1 else (found, found)
    if loaded.asset is not None and loaded.preprocess is not None:
        return load_asset(loaded.asset, loaded.preprocess, input_name=signature.inputs[0].name)
    random = synthetic_samples(signature, 32, seed=0)
    return random, random


def _compile(arguments: dict[str, Any], precision: str, path: Path, scratch: Path) -> BuiltEngine:
    from redline.networks.torch_tensorrt import compile_torch_tensorrt

    recipe = Recipe(name=precision, precision=precision, typing="torch")
    started = perf_counter()
    calibration = str(scratch / "calibration.npz") if precision == "int8" else None
    try:
        engine = compile_torch_tensorrt(
            out=path, precision=cast("Any", precision), calibration=calibration, **arguments
        )
    except (BuildError, InputError) as error:
        return BuiltEngine(recipe=recipe, failed=str(error))
    notes = tuple(note for note in str(engine.options.get("notes") or "").splitlines() if note)
    return BuiltEngine(recipe=recipe, engine=engine, build_s=perf_counter() - started, notes=notes)


def _batch(options: BuildOptions) -> tuple[int, int, int]:
    from redline.backends.tensorrt.profiles import parse_profiles

    profiles = parse_profiles(";".join(options.profiles))
    if len(profiles) > 1 or any(profile.batch is None for profile in profiles):
        raise InputError("Torch-TensorRT takes one profile of batch sizes, such as --profile 1,32,64")
    return profiles[0].batch or _DEFAULT_BATCH if profiles else _DEFAULT_BATCH
