"""Torch-TensorRT of any generation as a session: compiled now, or saved before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from redline.core.artifact import Argument, Engine, OnnxModel, Step
from redline.core.errors import (
    ArtifactError,
    EngineMismatchError,
    InputError,
    MissingDependencyError,
    UnsupportedError,
)
from redline.core.files import sha256_of
from redline.core.plain import Json, from_plain
from redline.core.tensor import Signature
from redline.formats.torch_values import at_batch
from redline.networks.cuda import CudaOptions, CudaSession, gpu_errors, gpu_platform, require_gpu
from redline.networks.eager import first_run, load_with_weights, signature_of
from redline.networks.modes import device_of
from redline.networks.sources import first_line
from redline.networks.torch_tensorrt_compile import Compiled, Request, compile_request, quiet, save_compiled
from redline.networks.torch_tensorrt_plan import FrontEnd, TrtPrecision, plan_compile

BACKEND = "torch-tensorrt"
_MUST_MATCH = ("torch_tensorrt", "tensorrt", "torch", "cuda", "gpu", "compute_capability")


def create(options: Mapping[str, Argument]) -> TorchTensorRt:
    """The backend (the table calls this); an engine's options say how it was compiled, not how to load it."""
    return TorchTensorRt(dict(options))


class TorchTensorRt:
    """Loads what :func:`compile_torch_tensorrt` saved; it compiles PyTorch models and no files."""

    name = BACKEND

    def __init__(self, options: Mapping[str, Argument]) -> None:
        self.options = options

    def platform(self) -> dict[str, str]:
        """Versions, and the GPU."""
        device = torch.device("cuda")
        return _platform(_library(device), device)

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Refuse: there is no way from a file back to a PyTorch module."""
        raise UnsupportedError(
            f"Torch-TensorRT compiles PyTorch models, got {model.path.name} for {directory.name}; type: "
            "redline build MODEL --backend torch-tensorrt"
        )

    def load(self, engine: Engine) -> CudaSession:
        """Open a saved program.

        Raises:
            EngineMismatchError: it was made for another machine, or by other versions.
        """
        return open_saved(engine.path)


def open_torch_tensorrt(
    ref: Mapping[str, Json],
    precision: TrtPrecision = "fp32",
    batch: Sequence[int] = (1, 1, 1),
    weights_file: str | None = None,
    ir: FrontEnd | Literal["auto"] = "auto",
    saved: str | None = None,
    signature: Mapping[str, Json] | None = None,
    device: str = "cuda",
    calibration: str | None = None,
    cuda_graph: bool = False,
) -> CudaSession:
    """Compile a model and open it, from JSON values only, so that a fresh process can.

    Args:
        ref: A :class:`redline.networks.load.ModelRef` as JSON.
        precision: ``fp32`` forbids TF32, ``tf32`` allows it; ``fp16`` and ``int8`` say what TensorRT may compute in.
            What it does compute in is in ``layers``; where that cannot be read, ``notes`` says so.
        batch: The smallest size of the batch, the one to be fast at, and the largest.
        weights_file: As for :func:`redline.networks.eager.open_torch`.
        ir: The front end; ``auto`` takes the one that serves this version of Torch-TensorRT best.
        saved: A file of :func:`compile_torch_tensorrt` to open instead of compiling.
        signature: As JSON; with it nothing needs to be run to find the outputs.
        device: ``cuda`` or ``cuda:1``.
        calibration: For ``int8``: an ``.npz`` file with an array of samples for each input.
        cuda_graph: Record the work of each input shape once, and replay it.

    Raises:
        MissingDependencyError: torch_tensorrt or TensorRT is not installed.
        DeviceError: there is no GPU.
        UnsupportedError: this version of Torch-TensorRT cannot do that.
        BuildError: it cannot take this model.
        EngineMismatchError: ``saved`` was made for another machine, by other versions, or in another precision.
    """
    if saved is not None:
        return open_saved(saved, device=device, cuda_graph=cuda_graph, precision=precision)
    library, request = _request(ref, precision, batch, weights_file, ir, signature, device, calibration)
    with gpu_errors(), torch.cuda.device(request.device):
        compiled = compile_request(library, request)
        return _session(request, compiled, cuda_graph=cuda_graph)


def compile_torch_tensorrt(
    ref: Mapping[str, Json],
    out: str | Path,
    precision: TrtPrecision = "fp32",
    batch: Sequence[int] = (1, 1, 1),
    weights_file: str | None = None,
    ir: FrontEnd | Literal["auto"] = "auto",
    signature: Mapping[str, Json] | None = None,
    device: str = "cuda",
    calibration: str | None = None,
) -> Engine:
    """Compile a model, run it once, and save it at ``out`` with its description beside it.

    The front end says what the file is: TorchScript (``.ts``) or an exported program (``.ep``). The other arguments
    are those of :func:`open_torch_tensorrt`.

    Raises:
        UnsupportedError: this version of Torch-TensorRT cannot save what its front end makes.
    """
    library, request = _request(ref, precision, batch, weights_file, ir, signature, device, calibration)
    if not request.plan.saves:
        raise UnsupportedError(f"Torch-TensorRT {library.__version__} cannot save what dynamo made; take ir='ts'")
    with gpu_errors(), torch.cuda.device(request.device):
        compiled = compile_request(library, request)
        session = _session(request, compiled, cuda_graph=False)
        try:
            save_compiled(library, request, compiled, Path(out))
        finally:
            session.close()
    here = _platform(library, request.device)
    low, opt, high = request.batch
    options = {
        "precision": precision,
        "ir": request.plan.front_end,
        "half": request.plan.half,
        "batch_min": low,
        "batch_opt": opt,
        "batch_max": high,
        "notes": "\n".join(compiled.notes),
    }
    step = Step(step=BACKEND, arguments={"model": request.model.ref.name}, parent_sha256=None, versions=here)
    engine = Engine(
        path=Path(out),
        sha256=sha256_of(Path(out)),
        backend=BACKEND,
        signature=session.signature,
        layers=compiled.layers,
        platform=here,
        options=options,
        provenance=(step,),
    )
    engine.save()
    return engine


def open_saved(
    path: str | Path, *, device: str = "cuda", cuda_graph: bool = False, precision: TrtPrecision | None = None
) -> CudaSession:
    """Open what :func:`compile_torch_tensorrt` saved.

    Raises:
        ArtifactError: there is no description beside it, or it is of something else.
        EngineMismatchError: it was made for another machine, by other versions, or in another precision; or its
            bytes are not those that were saved.
    """
    engine = Engine.read(Path(path))
    if engine.backend != BACKEND:
        raise ArtifactError(f"{path} was made by {engine.backend}, expected {BACKEND}")
    options = engine.options
    if precision is not None and options["precision"] != precision:
        raise EngineMismatchError(f"{path} was compiled for {options['precision']}, got {precision}; compile it again")
    target = _gpu(device)
    library = _library(target)
    refuse_foreign(engine, _platform(library, target))
    with gpu_errors(), torch.cuda.device(target), quiet(f"{path} cannot be loaded"):
        module = torch.jit.load(str(engine.path)) if options["ir"] == "ts" else library.load(str(engine.path))  # type: ignore[no-untyped-call]
        run = module.module() if isinstance(module, torch.export.ExportedProgram) else module
    cuda = CudaOptions(
        device=target,
        dtype=torch.float16 if options["half"] else None,
        tf32=options["precision"] == "tf32",
        cuda_graph=cuda_graph,
    )
    low, high = int(cast("int", options["batch_min"])), int(cast("int", options["batch_max"]))
    session = CudaSession(_within(run, engine.signature, low, high), engine.signature, engine.layers, cuda)
    session.notes = tuple(str(options["notes"]).splitlines())
    return session


def refuse_foreign(engine: Engine, here: Mapping[str, str]) -> None:
    """Refuse an engine of another machine or of other versions.

    Raises:
        EngineMismatchError: says everything that differs.
    """
    differing = [
        f"{name} {engine.platform.get(name)} (here {here.get(name)})"
        for name in _MUST_MATCH
        if engine.platform.get(name) != here.get(name)
    ]
    if differing:
        raise EngineMismatchError(f"{engine.path} was compiled with {', '.join(differing)}; compile it again")


def _request(
    ref: Mapping[str, Json],
    precision: TrtPrecision,
    batch: Sequence[int],
    weights_file: str | None,
    ir: FrontEnd | Literal["auto"],
    signature: Mapping[str, Json] | None,
    device: str,
    calibration: str | None,
) -> tuple[Any, Request]:
    target = _gpu(device)
    sizes = _batch(batch)
    library = _library(target)
    model = load_with_weights(ref, weights_file)
    scripted = isinstance(model.module, torch.jit.ScriptModule)
    version = tuple(int(part) for part in str(library.__version__).split(".")[:2])
    plan = plan_compile(cast("tuple[int, int]", version), precision, ir, scripted=scripted)
    if plan.calibrates and calibration is None:
        raise InputError("int8 needs samples to calibrate on; give calibration, an .npz file with an array per input")
    known = from_plain(Signature, signature, where="signature") if signature is not None else signature_of(model)
    moves = any(spec.shape and isinstance(spec.shape[0], str) for spec in known.inputs)
    if not moves and known.fixed_batch is not None and set(sizes) != {known.fixed_batch}:
        raise InputError(f"the model takes a batch of {known.fixed_batch} only, got {sizes}")
    request = Request(
        model=model,
        signature=known if sizes[0] < sizes[2] else _fixed(known, sizes[0]),
        precision=precision,
        batch=sizes,
        plan=plan,
        device=target,
        calibration=Path(calibration) if calibration is not None else None,
    )
    return library, request


def _session(request: Request, compiled: Compiled, *, cuda_graph: bool) -> CudaSession:
    cuda = CudaOptions(
        device=request.device, dtype=request.dtype, tf32=request.precision == "tf32", cuda_graph=cuda_graph
    )
    low, opt, high = request.batch
    run = _within(compiled.module, request.signature, low, high)
    session = CudaSession(run, request.signature, compiled.layers, cuda)
    session.notes = compiled.notes
    first_run(session, at_batch(request.model.example_inputs, opt), request.model.ref.name)
    return session


def _within(run: Any, signature: Signature, low: int, high: int) -> Callable[..., Any]:
    places = [i for i, spec in enumerate(signature.inputs) if spec.shape and isinstance(spec.shape[0], str)]
    if not places:
        return cast("Callable[..., Any]", run)

    def checked(*tensors: Tensor) -> Any:
        for place in places:
            size = tensors[place].shape[0]
            if not low <= size <= high:
                raise InputError(f"got a batch of {size}, this engine was compiled for {low} to {high}")
        return run(*tensors)

    return checked


def _batch(batch: Sequence[int]) -> tuple[int, int, int]:
    sizes = tuple(batch)
    if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
        raise InputError(f"batch is {list(sizes)}, expected the smallest, the usual and the largest size, in order")
    return (sizes[0], sizes[1], sizes[2])


def _fixed(signature: Signature, batch: int) -> Signature:
    def fix(shape: tuple[int | str, ...]) -> tuple[int | str, ...]:
        return tuple(batch if size == "batch" else size for size in shape)

    return Signature(
        inputs=tuple(replace(spec, shape=fix(spec.shape)) for spec in signature.inputs),
        outputs=tuple(replace(spec, shape=fix(spec.shape)) for spec in signature.outputs),
    )


def _gpu(name: str) -> torch.device:
    device = device_of(name)
    if device.type != "cuda":
        raise InputError(f"got device {name!r}, expected cuda or cuda:1; Torch-TensorRT needs a GPU")
    return device


def _library(device: torch.device) -> Any:
    if importlib.util.find_spec("torch_tensorrt") is None:
        raise MissingDependencyError("torch_tensorrt", extra=BACKEND)
    require_gpu(device)  # without one, some versions die of it while they are imported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("torch_tensorrt")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "torch_tensorrt", extra=BACKEND) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise UnsupportedError(f"torch_tensorrt is installed and does not load: {first_line(error)}") from error


def _platform(library: Any, device: torch.device) -> dict[str, str]:
    tensorrt = sys.modules.get("tensorrt")
    return {
        **gpu_platform(device),
        "torch_tensorrt": str(library.__version__),
        "tensorrt": str(getattr(tensorrt, "__version__", "unknown")),
    }
