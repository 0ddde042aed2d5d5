"""A model at an image size: loaded once in a process of its own, its weights saved for every other process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from redline.core.errors import InputError, WorkerError
from redline.core.files import sha256_of, stem_of
from redline.core.packages import missing
from redline.core.plain import to_plain
from redline.core.preprocess import Preprocess
from redline.core.tensor import Signature
from redline.data.choose import Needs
from redline.measurement.worker import Source, call_in_fresh_process, thread_environment
from redline.study.config import StudyConfig
from redline.study.launch import STEPS, Site
from redline.study.records import Model, ModelFile, Size

_DESCRIBE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What loading a model told of it.

    Attributes:
        asset: The name of data that ships with Redline and fits it.
        from_file: The module came out of a file whole, so its weights need no file of their own.
    """

    signature: Signature
    parameters: int
    preprocess: Preprocess | None
    asset: str | None
    class_names: tuple[str, ...]
    from_file: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAt:
    """A model at one image size.

    Attributes:
        ref: How PyTorch loads it; None for an ONNX file.
        weights: The weights that every process loads; None where the model's own file has them.
        file: The ONNX file, or another that the model is; it need not lie where its name says.
    """

    name: str
    size: Size
    ref: ModelFile | None
    weights: Path | None
    description: Description
    file: Path | None = None

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        return self.description.signature

    @property
    def needs(self) -> Needs:
        """Of its samples."""
        told = self.description
        return Needs(
            signature=told.signature, preprocess=told.preprocess, asset=told.asset, class_names=told.class_names
        )

    def record(self, folder: Path) -> Model:
        """What the results say of the model; the same at every size."""
        source = self.weights or (Path(self.name) if self.ref is None or self.description.from_file else None)
        inside = self.weights is not None and self.weights.is_relative_to(folder)
        return Model(
            name=self.name,
            ref=self.ref,
            weights_file=self.weights.relative_to(folder).as_posix() if inside and self.weights else None,
            sha256=sha256_of(source) if source is not None and source.is_file() else None,
            parameters=self.description.parameters,
            signature=self.description.signature,
            preprocess=self.description.preprocess,
            class_names=self.description.class_names,
            notes=self.description.notes,
        )

    def site(self, folder: Path, config: StudyConfig, device: str) -> Site:
        """The model, as what is made of it needs it; ``folder`` gets what is made."""
        return Site(
            name=self.name,
            ref=self.ref,
            weights=self.weights,
            signature=self.signature,
            engines=folder / "engines" if config.devices == ("cpu",) else folder / "engines" / device,
            calibration=folder / ".calibration.npz",
            batches=config.batches,
            threads=config.threads,
            method=config.method,
            interpreters=dict(config.interpreters),
        )


def describe_at(name: str, size: Size | None, weights: Path, config: StudyConfig) -> ModelAt:
    """Load a model at an image size (None: its own), and save its weights to ``weights`` once.

    Raises:
        WorkerError: it cannot be loaded at that size; says why.
        MissingDependencyError: it needs a package that is not installed.
    """
    ref: ModelFile | None = None
    if is_onnx(name):
        step = Source(factory=f"{STEPS}:describe_onnx", arguments={"path": name})
    else:
        if find_spec("torch") is None:
            raise missing("torch")
        ref = ModelFile(name=name, weights=config.weights, size_px=size)
        weights.parent.mkdir(parents=True, exist_ok=True)
        step = Source(
            factory=f"{STEPS}:describe_torch",
            arguments={"ref": to_plain(ref), "weights_file": str(weights)},
            environment=thread_environment(max(config.threads, 1)),
        )
    try:
        told: Description = call_in_fresh_process(step, timeout_s=_DESCRIBE_S)
    except WorkerError as error:
        if error.missing is not None:
            raise error.missing from error
        raise
    found = size_of(told.signature)
    if size is not None and size != found:
        raise WorkerError(f"it takes images of {found[0]}x{found[1]} only, got {size[0]}x{size[1]}")
    has_weights = ref is not None and not told.from_file
    return ModelAt(name=name, size=found, ref=ref, weights=weights if has_weights else None, description=told)


def is_onnx(name: str) -> bool:
    """Whether a model's name is that of an ONNX file."""
    return name.lower().endswith(".onnx")


def size_of(signature: Signature) -> Size:
    """Height and width of the first input; zeros where it is no image of a fixed size."""
    shape = signature.inputs[0].shape if signature.inputs else ()
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
        return (0, 0)
    return int(shape[2]), int(shape[3])


def check_batches(model: ModelAt, batches: tuple[int, ...]) -> None:
    """Refuse batch sizes that a model's file does not take.

    Raises:
        InputError: it is fixed at another; says what to type.
    """
    fixed = model.signature.fixed_batch
    if fixed is not None and batches != (fixed,):
        given = ",".join(map(str, batches))
        raise InputError(f"{model.name} takes batches of {fixed} only, got --batch {given}; type --batch {fixed}")


def weights_file(folder: Path, name: str) -> Path:
    """Where a model's weights lie."""
    return folder / f"{stem_of(name)}.safetensors"
