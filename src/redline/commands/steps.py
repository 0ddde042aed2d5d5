"""Steps of a study: functions of paths and plain values, so that each can run in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from redline.core.artifact import Argument, OnnxModel
from redline.core.plain import Json, from_plain
from redline.core.samples import load_saved
from redline.core.session import Session

if TYPE_CHECKING:
    from redline.study.describe import Description


def describe_torch(ref: Mapping[str, Json], weights_file: str) -> Description:
    """Load a PyTorch model, save its weights once, and say what it is.

    A factory may draw its weights at random: from here on every process loads ``weights_file``. Where that is there
    already (a resumed run) it is loaded and not written.
    """
    from redline.networks.eager import load_weights, save_weights, signature_of
    from redline.networks.load import ModelRef, load_model
    from redline.study.describe import Description

    model = load_model(from_plain(ModelRef, ref, where="model"))
    path = Path(weights_file)
    if not model.from_file:
        if path.exists():
            load_weights(model, path)
        else:
            save_weights(model, path)
    return Description(
        signature=signature_of(model),
        parameters=model.parameters,
        preprocess=model.preprocess,
        asset=model.asset,
        class_names=model.class_names or (),
        from_file=model.from_file,
        notes=model.notes,
    )


def describe_onnx(path: str) -> Description:
    """Say what an ONNX file is, in the same terms."""
    from redline.formats.onnx_file import describe, load_proto
    from redline.study.describe import Description

    proto = load_proto(Path(path))
    model = describe(Path(path), proto)
    return Description(
        signature=model.signature,
        parameters=sum(math.prod(tensor.dims) for tensor in proto.graph.initializer),
        preprocess=model.usage.preprocess,
        asset=None,
        class_names=model.usage.class_names,
        from_file=True,
        notes=(),
    )


def export(ref: Mapping[str, Json], weights_file: str | None, out: str, opset: int | None) -> OnnxModel:
    """PyTorch to ONNX with a dynamic batch, compared with PyTorch's answers."""
    from redline.commands.export import export_model
    from redline.networks.eager import load_weights, signature_of
    from redline.networks.load import ModelRef, load_model
    from redline.transforms.export import ExportOptions

    model = load_model(from_plain(ModelRef, ref, where="model"))
    if weights_file is not None and not model.from_file:
        load_weights(model, Path(weights_file))
    fixed = signature_of(model).fixed_batch
    options = ExportOptions(batch="dynamic" if fixed is None else fixed, opset=opset)
    return export_model(model, Path(out), options).model


def optimize(model: str, out: str) -> OnnxModel:
    """The default graph passes, each checked."""
    from redline.commands.optimize import optimize as optimize_command

    return optimize_command(Path(model), Path(out)).model


def fp16(model: str, out: str) -> OnnxModel:
    """Weights and arithmetic in half precision, float32 inputs and outputs."""
    from redline.transforms.half import to_half

    return to_half(_read(model), Path(out))


def int8_dynamic(model: str, out: str) -> OnnxModel:
    """Dynamic INT8 in the form that ONNX Runtime runs fast."""
    from redline.transforms.quantize import quantize_dynamic

    return quantize_dynamic(_read(model), Path(out))


def int8_static(model: str, out: str, samples: str, method: str) -> OnnxModel:
    """Static Q/DQ INT8, calibrated on real samples."""
    from redline.transforms.quantize import StaticOptions, quantize_static

    options = StaticOptions(method=cast("Any", method))
    return quantize_static(_read(model), Path(out), load_saved(samples), options)


def int8_auto(
    model: str, out: str, calibration: str, verification: str, min_agreement: float, max_accuracy_drop: float
) -> OnnxModel:
    """Static INT8 with the fewest layers in floating point that the accuracy gate needs.

    The layers are chosen on ``verification``, which is neither calibrated on nor reported.
    """
    from redline.commands.quantize import agreement_gate
    from redline.transforms.quantize import StaticOptions
    from redline.transforms.quantize_auto import quantize_auto
    from redline.verification.compare import Gate

    selection = load_saved(verification)
    # One changed answer among few samples says nothing; the samples that are reported judge the result.
    one = 1 / len(selection)
    gate = Gate(min_agreement=min(min_agreement, 1 - one), max_accuracy_drop=max(max_accuracy_drop, one))
    source = _read(model)
    gated = agreement_gate(source, selection, gate)
    return quantize_auto(source, Path(out), load_saved(calibration), StaticOptions(), gated).model


def int8_nncf(model: str, out: str, samples: str) -> OnnxModel:
    """INT8 by NNCF, for OpenVINO."""
    from redline.transforms.nncf_int8 import quantize_nncf

    return quantize_nncf(_read(model), Path(out), load_saved(samples))


def compile_engine(model: str, backend: str, options: Mapping[str, Argument], directory: str) -> str:
    """Compile a model file; the engine's path."""
    from redline.backends import load_backend

    return str(load_backend(backend, options).compile(_read(model), Path(directory)).path)


def compile_tensorrt(
    model: str, backend: str, precision: str, profile: str, calibration: str | None, directory: str
) -> str:
    """Build a TensorRT engine in the typing that this generation prefers, of a converted file where it needs one.

    ``calibration`` is a file of samples; only INT8 needs one.
    """
    from redline.backends import load_backend
    from redline.building.recipes import prepare_file, recipes_for
    from redline.core.errors import UnsupportedError

    source, folder = _read(model), Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = recipes_for(load_backend(backend), (precision,), typing="auto", calibrator="auto")[0]
    if recipe.refused:
        raise UnsupportedError(recipe.refused)
    samples = load_saved(calibration) if calibration else None
    prepared = prepare_file(source, recipe, folder, samples)
    options = {**recipe.backend_options(), "profiles": profile, "calibration": calibration or ""}
    return str(load_backend(backend, options).compile(prepared, folder).path)


def compile_torch_tensorrt(
    ref: Mapping[str, Json],
    weights_file: str | None,
    signature: Mapping[str, Json],
    precision: str,
    batch: Sequence[int],
    directory: str,
) -> str:
    """Compile with Torch-TensorRT and save what came of it."""
    from redline.networks import torch_tensorrt

    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    engine = torch_tensorrt.compile_torch_tensorrt(
        ref=ref,
        out=folder / "model.torch-trt",
        precision=cast("Any", precision),
        batch=batch,
        weights_file=weights_file,
        signature=signature,
    )
    return str(engine.path)


def macs(model: str) -> int:
    """Multiply-adds of one sample."""
    from redline.transforms.macs import count_macs

    source = _read(model)
    batch = source.signature.fixed_batch or 1
    return count_macs(source, batch_size=batch).total // batch


def open_product(
    folder: str, size: int, precision: Literal["fp32", "int8"], backend: str, options: Mapping[str, Argument]
) -> Session:
    """Write, compile and open the matrix product that measures this machine's peak rate."""
    from redline.backends import load_backend
    from redline.transforms.gemm import write_gemm

    Path(folder).mkdir(parents=True)
    model = write_gemm(Path(folder) / "product.onnx", size=size, precision=precision)
    made = load_backend(backend, options)
    return made.load(made.compile(model, Path(folder)))


def _read(path: str) -> OnnxModel:
    from redline.formats.onnx_file import read_onnx

    return read_onnx(Path(path))
