"""Open a model by its TensorRT engine where that works, else by what lies beside it, with a warning that says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from redline.core.artifact import Argument
from redline.core.errors import EngineMismatchError, InputError, RedlineError
from redline.core.host import available_cores
from scale.models.engines import history_of, open_engine_file
from scale.models.files import MissingModelError, ModelFiles, find_files, why_stale
from scale.models.loaded import OpenFile, OpenModel, loaded
from scale.models.places import Place, place_of
from scale.models.spec import ENGINE_SUFFIXES, ModelSpec

#: Whether an engine is used where there is one, expected to be there, or never looked for.
EngineUse = Literal["if-there", "expected", "never"]
OnnxRuntime = Literal["auto", "onnxruntime", "onnxruntime-cuda", "openvino"]
#: What an ONNX file is computed in on a CPU. BF16 has FP32's range and 8 bits of its 24: other boxes, in less time.
CpuPrecision = Literal["fp32", "bf16"]
#: Runtimes that compute an ONNX file on the CPU.
ON_CPU = ("onnxruntime", "openvino")


class FallbackWarning(UserWarning):
    """Something else answers than what was asked for."""


#: The file, what runs it, and what opens the two.
_Candidate = tuple[Path, str, Callable[["_Request", Path, str], "OpenModel"]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Request:
    """What was asked for, what is there, and what did not work so far."""

    spec: ModelSpec
    files: ModelFiles
    place: Place
    threads: int
    cpu_calls: int
    cpu_precision: CpuPrecision
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    def try_to_open(self, candidate: _Candidate) -> OpenModel | None:
        """The model, or None: then the reason is kept."""
        path, runtime, open_it = candidate
        try:
            return open_it(self, path, runtime)
        except (RedlineError, ImportError, OSError) as error:
            told = str(error)
            self.failures.append((told if path.name in told else f"{path.name}: {told}", error))
            return None

    def failure(self, otherwise: Exception) -> Exception:
        """What to raise: the only failure itself, several as one."""
        if len(self.failures) == 1:
            return self.failures[0][1]
        if self.failures:
            return EngineMismatchError("; ".join(reason for reason, _ in self.failures))
        return otherwise


def open_model(
    spec: ModelSpec,
    *,
    device: str = "auto",
    threads: int = 0,
    cpu_calls: int = 1,
    fallback: bool = True,
    engine: EngineUse = "if-there",
    onnx_runtime: OnnxRuntime = "auto",
    cpu_precision: CpuPrecision = "fp32",
) -> OpenModel:
    """Open a model; a :class:`FallbackWarning` says where something else answers than what was asked for.

    Args:
        spec: The model.
        device: ``auto`` takes a GPU where there is one; ``cpu``, ``cuda`` or ``cuda:1``.
        threads: Of runtimes on the CPU; 0 takes all cores.
        cpu_calls: How many threads may call an ONNX file's session at one time on the CPU, where ``threads`` is 0: each
            call has its share of the cores.
        fallback: Whether something else may answer where no engine works. Without it that is an error.
        engine: ``expected`` also warns where there is no engine; ``never`` does not look for one.
        onnx_runtime: What runs ONNX files.
        cpu_precision: What ONNX files are computed in on the CPU; ``bf16`` is OpenVINO's, where the processor has it.

    Raises:
        InputError: no file of the model is there, or it is not the model that the spec describes.
        EngineMismatchError: nothing that may answer can be used; has every reason.
        MissingDependencyError: a package is missing that the only file needs.
        DeviceError: the GPU that was asked for is not there.
    """
    request = _Request(
        spec=spec,
        files=find_files(spec.path),
        place=place_of(device),
        threads=threads,
        cpu_calls=cpu_calls,
        cpu_precision=cpu_precision,
    )
    _check_choices(request, engine, onnx_runtime, fallback=fallback)
    if engine != "never" and not request.place.cpu_wanted:
        for path in request.files.engines:
            opened = request.try_to_open((path, "tensorrt", _open_engine))
            if opened is not None:
                return opened
    if not fallback:
        raise request.failure(_no_engine(request.files))
    missing, engine_failed = _missing(request, engine), bool(request.failures)
    for candidate in _others(request, onnx_runtime):
        opened = request.try_to_open(candidate)
        if opened is not None:
            reasons = [*missing, *(reason for reason, _ in request.failures), *_not_on_gpu(request, opened)]
            as_asked = not missing and not engine_failed and opened.runtime == "torch"
            return _told(opened, [*reasons, *_not_in_bf16(request, opened)], warn=not as_asked)
    raise request.failure(_nothing(request.files))


def _open_engine(request: _Request, path: Path, _runtime: str) -> OpenModel:
    stale = why_stale(path, history_of(path), request.files.sources)
    if stale:
        raise EngineMismatchError(f"{stale}; {_how_to_convert(request.files)}")
    return loaded(request.spec, path, open_engine_file(path, device=request.place.index))


def _others(request: _Request, onnx_runtime: OnnxRuntime) -> list[_Candidate]:
    """What answers instead of an engine, best first: on a GPU what runs there, else ONNX before PyTorch."""
    files = request.files
    found: list[_Candidate] = []
    if files.onnx is not None:
        runtimes = request.place.onnx_runtimes() if onnx_runtime == "auto" else [onnx_runtime]
        if request.cpu_precision == "bf16":
            runtimes = ["openvino" if runtime == "onnxruntime" else runtime for runtime in runtimes]
        found = [(files.onnx, runtime, _open_onnx) for runtime in runtimes]
    if files.torch is not None:
        found.append((files.torch, "torch", _open_torch))
    if request.place.on_gpu and onnx_runtime == "auto":
        found.sort(key=lambda candidate: candidate[1] in ON_CPU)
    return found


def _open_onnx(request: _Request, path: Path, runtime: str) -> OpenModel:
    from redline.formats.onnx_file import read_onnx
    from redline.opening.sessions import open_onnx

    model, torch = read_onnx(path), request.files.torch
    stale = why_stale(path, model.provenance, [torch] if torch and request.files.named != path else [])
    if stale:
        raise EngineMismatchError(f"{stale}; export it again")
    session = open_onnx(model, backend=runtime, options=_options(request, runtime))
    # OpenVINO may compute in another precision than the file's: what it compiled tells.
    layers = session.layers if runtime == "openvino" else model.layers
    opened = OpenFile(session=session, usage=model.usage, runtime=runtime, precision=layers.describe())
    return loaded(request.spec, path, opened)


def _options(request: _Request, runtime: str) -> dict[str, Argument]:
    """Options of an ONNX file's backend."""
    if runtime == "onnxruntime-cuda":
        return {"device": request.place.index}
    calls = 1 if request.threads else request.cpu_calls
    if runtime == "onnxruntime":
        return {"threads": request.threads or (available_cores() // calls if calls > 1 else 0)}
    # OpenVINO's default is BF16 where the processor has it: other boxes, and no word of it.
    precision = "bf16" if request.cpu_precision == "bf16" else "f32"
    return {"threads": request.threads, "streams": calls, "precision": precision}


def _open_torch(request: _Request, path: Path, _runtime: str) -> OpenModel:
    from scale.models.ultralytics import open_torch

    spec, place = request.spec, request.place
    opened = open_torch(path, device=place.torch_name, threads=request.threads, input_px=spec.input_px)
    return loaded(spec, path, opened)


def _missing(request: _Request, engine: EngineUse) -> list[str]:
    """What was asked for and is not there."""
    files = request.files
    if engine == "expected" and not files.engines and not request.place.cpu_wanted:
        return [f"there is no {_engine_words(files)}"]
    return [] if files.named.is_file() else [f"{files.named.name} is not there"]


def _not_on_gpu(request: _Request, opened: OpenModel) -> list[str]:
    """A GPU was asked for, and what answers has no way to it."""
    if not request.place.gpu_wanted or opened.runtime not in ON_CPU:
        return []
    from redline.backends import why_not

    why = why_not("onnxruntime-cuda")
    return [f"on the CPU, since {why}" if why else f"{opened.runtime} runs on the CPU"]


def _not_in_bf16(request: _Request, opened: OpenModel) -> list[str]:
    """BF16 was asked for on a CPU, and is not what is computed."""
    if request.cpu_precision == "fp32" or opened.origin.on_gpu or not opened.precision.startswith("fp32"):
        return []  # an INT8 file stays what it is
    if opened.runtime != "openvino":
        return [] if request.place.on_gpu else [f"in {opened.precision}, since bf16 needs an .onnx file"]
    return [f"in {opened.precision}, since this processor has no bf16"]


def _told(opened: OpenModel, reasons: list[str], *, warn: bool) -> OpenModel:
    if not reasons:
        return opened
    asked, answers = opened.spec.path.name, opened.origin.path.name
    by = opened.runtime if answers == asked else f"{opened.runtime} ({answers})"
    note = f"{asked} is run by {by}: {'; '.join(reasons)}"
    if warn:
        warnings.warn(note, FallbackWarning, stacklevel=3)
    return replace(opened, notes=(note, *opened.notes))


def _engine_words(files: ModelFiles) -> str:
    names = " or ".join(files.named.with_suffix(suffix).name for suffix in ENGINE_SUFFIXES)
    return f"{names} ({_how_to_convert(files)})"


def _how_to_convert(files: ModelFiles) -> str:
    return f"type: scale convert --model {files.torch or files.onnx or files.named}"


def _no_engine(files: ModelFiles) -> Exception:
    return MissingModelError(
        f"{files.named}: there is no {_engine_words(files)}, and nothing else may answer; "
        "--fallback would allow it, in Python fallback_to_pt=True"
    )


def _nothing(files: ModelFiles) -> Exception:
    if files.named.is_file():  # an engine that is not to be used
        return MissingModelError(f"{files.named} is an engine; beside it is no .onnx or .pt file that runs without one")
    return MissingModelError(f"{files.named} is not there, nor is an .onnx, .pt or .engine file of that name")


def _check_choices(request: _Request, engine: str, onnx_runtime: str, *, fallback: bool) -> None:
    for what, value, choices in (
        ("engine", engine, get_args(EngineUse)),
        ("onnx_runtime", onnx_runtime, get_args(OnnxRuntime)),
        ("cpu_precision", request.cpu_precision, get_args(CpuPrecision)),
    ):
        if value not in choices:
            raise InputError(f"{what} is {value!r}, expected one of {', '.join(choices)}")
    if not fallback and (engine == "never" or request.place.cpu_wanted):
        why = "no engine is to be used" if engine == "never" else "device cpu runs no engine"
        raise InputError(f"{why}, and nothing else may answer; allow a fallback, or take another device")
