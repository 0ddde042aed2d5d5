"""A folder of models becomes TensorRT engines; one that cannot is a row that says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from redline.core.errors import DeviceError, InputError, MissingDependencyError
from redline.core.plain import JsonObject, to_plain
from scale.models.conversion import Conversion, ConvertOptions, convert_one
from scale.models.spec import ONNX_SUFFIX, TORCH_SUFFIXES

_SOURCES = (*TORCH_SUFFIXES, ONNX_SUFFIX)
#: What is being done, of which model, models done, models in all.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertResult:
    """What came of each model.

    Attributes:
        platform: What the engines depend on: TensorRT's version, the GPU, its driver; or the target.
    """

    platform: dict[str, str]
    options: ConvertOptions
    conversions: tuple[Conversion, ...]

    @property
    def passed(self) -> bool:
        """Whether every model has its engine."""
        return all(conversion.result != "failed" for conversion in self.conversions)

    def to_json(self) -> JsonObject:
        """The whole result."""
        return {
            "kind": "convert",
            "platform": self.platform,
            "options": self.options.settings(),
            "passed": self.passed,
            "models": to_plain(self.conversions),
        }


def convert(
    models_dir: str | Path = "models",
    *,
    models: Sequence[str | Path] = (),
    options: ConvertOptions | None = None,
    progress: Progress | None = None,
) -> ConvertResult:
    """Make the engine of every ``.pt`` and ``.onnx`` file of a folder, beside it.

    Where a model has both files, the ``.pt`` file counts.

    Args:
        models_dir: The folder.
        models: Single files instead.
        options: Precision, batch, size, target.
        progress: Called with what is being done, models done, models in all.

    Raises:
        InputError: there is no such folder or file, or no model in it.
        MissingDependencyError: TensorRT is not installed; nothing was written.
        DeviceError: there is no GPU to build on; nothing was written.
    """
    options = options or ConvertOptions()
    paths = _named(models) if models else _found(Path(models_dir))
    platform = _require_tensorrt(options)
    conversions = []
    for index, path in enumerate(paths):

        def tell(what: str, path: Path = path, index: int = index) -> None:
            if progress is not None:
                progress(f"{path.name}: {what}", index, len(paths))

        tell("read")
        conversions.append(_attempt(path, options, tell))
    return ConvertResult(platform=platform, options=options, conversions=tuple(conversions))


def _attempt(path: Path, options: ConvertOptions, tell: Callable[[str], None]) -> Conversion:
    """One model; whatever goes wrong with it is its own row."""
    started = perf_counter()
    try:
        done = convert_one(path, options, tell)
    except Exception as error:  # noqa: BLE001 (an edge: one bad model does not stop the others)
        told = " ".join(str(error).split()) or type(error).__name__
        done = Conversion(model=path, result="failed", reason=told)
    return replace(done, seconds=round(perf_counter() - started, 3))


def _named(models: Sequence[str | Path]) -> list[Path]:
    paths = list(dict.fromkeys(Path(model) for model in models))
    for path in paths:
        if path.suffix.lower() not in _SOURCES:
            raise InputError(f"got model {path}, expected one of {', '.join(_SOURCES)}")
        if not path.is_file():
            raise InputError(f"{path} is not a file; expected a model")
    return paths


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder of the models with --models-dir")
    by_stem: dict[str, Path] = {}
    for suffix in reversed(_SOURCES):
        by_stem |= {path.stem: path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")}
    if not by_stem:
        raise InputError(f"{folder} has no model; expected files with {', '.join(_SOURCES)}")
    return [by_stem[stem] for stem in sorted(by_stem)]


def _require_tensorrt(options: ConvertOptions) -> dict[str, str]:
    """What engines will depend on.

    Raises:
        MissingDependencyError: TensorRT is not installed.
        DeviceError: no GPU is here, and none was named as the target.
    """
    from redline.backends import load_backend, why_not

    try:
        here = load_backend(options.backend, {"target": options.target}).platform()
    except ModuleNotFoundError as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise MissingDependencyError(error.name or "cuda-bindings", extra=options.backend) from error
    if options.target:
        return {**here, "target": options.target}
    reason = why_not(options.backend)
    if reason is not None:
        raise DeviceError(
            f"TensorRT builds on the GPU that it builds for: {reason}; --target names one for TensorRT-RTX"
        )
    return here
