"""What the cells of a grid need, each made once: models described at a size, model files, engines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from redline.commands.steps import describe_onnx, describe_torch, prepare_samples
from redline.commands.ways import STEPS, Files, Place, file_source, open_variant, stem_of
from redline.core.artifact import Engine, Layers
from redline.core.errors import WorkerError
from redline.core.files import sha256_of
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples, save_samples
from redline.core.tensor import Signature
from redline.grid.cells import Size
from redline.grid.config import GridConfig
from redline.measurement.worker import Source, call_in_fresh_process, thread_environment
from redline.variants import FileStep, Variant, files_of

_DESCRIBE_S = 600.0
_VERIFIED_ON = 32
_BYTES = {"fp16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAt:
    """A model at one image size.

    Attributes:
        ref: How PyTorch loads it; None for an ONNX file.
        weights: The weights that every process loads; None where the model's own file has them.
        description: What :func:`redline.commands.steps.describe_torch` says.
        file: The ONNX file where it does not lie where its name says.
    """

    name: str
    size: Size
    ref: Mapping[str, Any] | None
    weights: Path | None
    description: Mapping[str, Any]
    file: Path | None = None

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        return Signature.from_json(self.description["signature"])

    @property
    def preprocess(self) -> Preprocess | None:
        """How an image becomes its input, where that is known."""
        told = self.description["preprocess"]
        return Preprocess.from_json(told) if told else None

    def identity(self) -> dict[str, Any]:
        """What the results say of the model; the same at every size."""
        source = self.weights or (Path(self.name) if self.ref is None or self.description["from_file"] else None)
        return {
            "name": self.name,
            "sha256": sha256_of(source) if source is not None and source.is_file() else None,
            "parameters": self.description["parameters"],
            "inputs": self.description["signature"]["inputs"],
            "preprocess": self.description["preprocess"],
            "notes": list(self.description["notes"]),
        }


#: By name and image size.
Models = Mapping[str, Mapping[Size, ModelAt]]


def describe_at(name: str, size: Size | None, folder: Path, threads: int) -> ModelAt:
    """Load a model at an image size (None: its own) in a process of its own, and save its weights once.

    Raises:
        WorkerError: it cannot be loaded at that size; says why.
        MissingDependencyError: it needs a package that is not installed.
    """
    ref: dict[str, Any] | None = None
    weights: Path | None = None
    if name.lower().endswith(".onnx"):
        step = Source(factory=f"{STEPS}:{describe_onnx.__name__}", arguments={"path": name})
    else:
        ref = {"name": name, "weights": None, "size_px": size}
        weights = folder / f"{stem_of(name)}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, Any] = {"ref": ref, "weights_file": str(weights)}
        environment = thread_environment(threads)
        step = Source(factory=f"{STEPS}:{describe_torch.__name__}", arguments=arguments, environment=environment)
    try:
        description = call_in_fresh_process(step, timeout_s=_DESCRIBE_S)
    except WorkerError as error:
        if error.missing is not None:
            raise error.missing from error
        raise
    has_weights = weights is not None and not description["from_file"]
    found = size_of(Signature.from_json(description["signature"]))
    if size is not None and size != found:
        raise WorkerError(f"it takes images of {found[0]}x{found[1]} only, got {size[0]}x{size[1]}")
    return ModelAt(name=name, size=found, ref=ref, weights=weights if has_weights else None, description=description)


def size_of(signature: Signature) -> Size:
    """Height and width of the first input; zeros where it is no image of a fixed size."""
    shape = signature.inputs[0].shape
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
        return (0, 0)
    return int(shape[2]), int(shape[3])


def _bytes_of(data_type: int) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


class Workshop:
    """Makes model files and engines for one model at one size, each once, and says how a worker opens a variant."""

    def __init__(self, model: ModelAt, config: GridConfig, folder: Path, threads: int) -> None:
        self.model = model
        self._config, self._threads = config, threads
        height, width = model.size
        self._folder = folder / stem_of(model.name) / f"{height}x{width}"
        self._files: Files = {"exported": model.file or Path(model.name)} if model.ref is None else {}
        self._failures: dict[str, str] = {}
        self._opened: dict[tuple[str, str], tuple[Source, Layers | None]] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def open(self, variant: Variant) -> tuple[Source, Layers | None]:
        """How a worker opens it, and the layers of its engine; what it needs is made the first time.

        Raises:
            WorkerError: it cannot be made; says which step failed and why.
        """
        key = (variant.device, variant.name)
        if key in self._refused:
            raise WorkerError(self._refused[key])
        if key not in self._opened:
            try:
                self._opened[key] = open_variant(variant, self._place(variant), self._files_for(variant))
            except WorkerError as error:
                self._refused[key] = str(error)
                raise
        return self._opened[key]

    def prepare(self, variants: Iterable[Variant]) -> None:
        """Make the model files of all variants; one that cannot be made says why when it is opened."""
        for variant in variants:
            with suppress(WorkerError):
                self._files_for(variant)

    def file_of(self, variant: Variant) -> Path | None:
        """The model file that a variant runs, where it is made."""
        return self._files.get(variant.file) if variant.file else self.model.weights

    def weights_bytes(self, variant: Variant) -> int | None:
        """Bytes of the model's own weights in what this variant is made of; None where they cannot be told."""
        if variant.file is None:
            each = _BYTES.get(variant.requested, 4)
            return int(self.model.description["parameters"]) * each
        file = self._files.get(variant.file)
        if file is None:
            return None
        from redline.formats.onnx_file import load_proto

        weights = load_proto(file).graph.initializer
        return sum(int(math.prod(tensor.dims)) * _bytes_of(tensor.data_type) for tensor in weights)

    def engine_of(self, variant: Variant) -> dict[str, Any]:
        """What its engine was made for, which nodes run elsewhere than on its device in words, and notes on it."""
        source, _ = self._opened[variant.device, variant.name]
        path = source.arguments.get("path")
        if not isinstance(path, str):
            return {"platform": {}, "elsewhere": None, "note": variant.note}
        engine = Engine.described(Path(path))
        told = engine.provenance[-1].arguments.get("elsewhere") if engine.provenance else None
        notes = [variant.note, *str(engine.options.get("notes") or "").splitlines()]
        return {
            "platform": dict(engine.platform),
            "elsewhere": str(told) if told else None,
            "note": "; ".join(note for note in notes if note) or None,
        }

    def macs(self) -> int | None:
        """Multiply-adds of one sample; None where they cannot be counted."""
        try:
            files = self._files_for(_COUNTED)
            source = Source(factory=f"{STEPS}:macs", arguments={"model": str(files["optimized"])})
            return int(call_in_fresh_process(source, timeout_s=120))
        except WorkerError:
            return None

    def _place(self, variant: Variant) -> Place:
        return Place(
            name=self.model.name,
            ref=self.model.ref,
            weights=self.model.weights,
            signature=self.model.description["signature"],
            engines=self._folder / "engines" / variant.device,
            calibration=self._folder / "calibration.npz",
            batches=self._config.batches,
            threads=self._threads,
            interpreters=dict(self._config.interpreters),
        )

    def _files_for(self, variant: Variant) -> Files:
        for step in files_of((variant,), have_torch=self.model.ref is not None):
            if step.name not in self._files:
                self._make(step, variant)
        if variant.requested == "int8":
            self._calibration()
        return self._files

    def _make(self, step: FileStep, variant: Variant) -> None:
        if step.name in self._failures:
            raise WorkerError(f"{step.title}: {self._failures[step.name]}")
        if step.calibrated:
            self._calibration()
        out = self._folder / "artifacts" / f"{stem_of(self.model.name)}{step.suffix}"
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A file is renamed to its name when it is whole: one that is there was made by this run before.
            if not out.is_file():
                source = file_source(step, self._files, out, self._place(variant))
                call_in_fresh_process(source, timeout_s=step.timeout_s)
        except WorkerError as error:
            if step.name == "optimized":
                self._files[step.name] = self._files["exported"]
                return
            self._failures[step.name] = str(error)
            raise WorkerError(f"{step.title}: {error}") from error
        self._files[step.name] = out

    def _calibration(self) -> None:
        out = self._folder / "calibration.npz"
        if not out.is_file():
            out.parent.mkdir(parents=True, exist_ok=True)
            save_samples(self._samples[0], out)

    @property
    def verification(self) -> tuple[Samples, bool]:
        """Samples that nothing is calibrated on, and whether they are real ones and no random numbers."""
        return self._samples[1], self._samples[2] is None

    @cached_property
    def _samples(self) -> tuple[Samples, Samples, str | None]:
        counts = (self._config.samples, _VERIFIED_ON)
        return prepare_samples(self.model.description, self._config.data, None, counts, self._config.seed)


_COUNTED = Variant(
    name="counted", title="", backend="onnxruntime", runtime="onnxruntime", requested="fp32", file="optimized"
)
