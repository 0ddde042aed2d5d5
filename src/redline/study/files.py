"""The model files and engines of one model at one size: each made once, in a process of its own, or found whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import RLock

from redline.core.artifact import OnnxModel
from redline.core.errors import RedlineError, WorkerError
from redline.core.files import stem_of
from redline.core.plain import Json
from redline.core.samples import load_saved, save_samples
from redline.data.choose import Chosen, choose_samples
from redline.measurement.worker import Source, call_in_fresh_process
from redline.study.config import StudyConfig
from redline.study.describe import ModelAt
from redline.study.launch import STEPS, Files, Launch, Site, file_source, open_variant
from redline.study.records import ArtifactMade, Macs
from redline.variants import AUTO_FILE, FileStep, Variant, files_of

_BYTES = {"fp16": 2, "bf16": 2}
_MACS_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where a workshop puts what it makes, and how it tells.

    Attributes:
        root: The study's folder; recorded paths are within it.
        folder: Of this model and size.
        whole: The record of a file that is there with the bytes that were recorded, by its path within ``root``.
        keep: Called with the record of each file as soon as it is made.
    """

    root: Path
    folder: Path
    whole: Callable[[str], ArtifactMade | None]
    keep: Callable[[ArtifactMade], None]


@dataclass(slots=True)
class _Made:
    files: Files = field(default_factory=dict)
    records: dict[str, ArtifactMade] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Workshop:
    """Makes files and engines for one model at one size, and says how a worker opens a variant."""

    def __init__(self, model: ModelAt, config: StudyConfig, shelf: Shelf) -> None:
        self.model = model
        self._config, self._shelf = config, shelf
        self._made = _Made()
        if model.ref is None:
            self._made.files["exported"] = model.file or Path(model.name)
        self._launches: dict[tuple[str, str, int], Launch | str] = {}
        self._lock = RLock()

    def open(self, variant: Variant, batch: int) -> Launch:
        """How a worker opens it; what it needs is made the first time.

        Raises:
            WorkerError: it cannot be made; says which step failed and why.
        """
        name = variant.name.removesuffix("-control")
        key = (variant.device, name, batch if variant.fixed else 0)
        with self._lock:
            files = self._files_for(variant)
        if key not in self._launches:
            try:
                self._launches[key] = open_variant(variant, self.site(variant), files, batch)
            except RedlineError as error:
                self._launches[key] = str(error)
        found = self._launches[key]
        if isinstance(found, str):
            raise WorkerError(found)
        return found

    def prepare(self, variants: Sequence[Variant], *, at_once: int) -> None:
        """Make the model files of all variants; one that cannot be made says why when it is opened.

        Args:
            variants: What is to run.
            at_once: How many files of one parent are made at a time.
        """
        steps = files_of(tuple(variants), have_torch=self.model.ref is not None)
        parents = {step.parent for step in steps}

        def make(step: FileStep) -> None:
            with suppress(RedlineError):
                self._file(step)

        for step in steps:
            if step.name in parents:
                make(step)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(make, steps))

    def site(self, variant: Variant) -> Site:
        """The model, as what is made of it needs it."""
        return self.model.site(self._shelf.folder, self._config, variant.device)

    def file_of(self, variant: Variant) -> Path | None:
        """The file that a variant is made of, where there is one."""
        return self._made.files.get(variant.file) if variant.file else self.model.weights

    def record_of(self, variant: Variant) -> ArtifactMade | None:
        """What was recorded of that file, where this study made it."""
        return self._made.records.get(variant.file or "")

    def weights_bytes(self, variant: Variant) -> int | None:
        """Bytes of the model's own weights in what this variant is made of; None where they cannot be told."""
        if variant.file is None:
            return self.model.description.parameters * _BYTES.get(variant.requested, 4)
        file = self._made.files.get(variant.file)
        if file is None:
            return None
        from redline.formats.onnx_file import load_proto

        weights = load_proto(file).graph.initializer
        return sum(int(math.prod(tensor.dims)) * _bytes_of(tensor.data_type) for tensor in weights)

    def macs(self) -> Macs | None:
        """Multiply-adds of one sample; None where they cannot be counted."""
        try:
            with self._lock:
                files = self._files_for(_COUNTED)
            source = Source(factory=f"{STEPS}:macs", arguments={"model": str(files["optimized"])})
            counted = int(call_in_fresh_process(source, timeout_s=_MACS_S))
        except (RedlineError, KeyError):
            return None
        return Macs(model=self.model.name, size=self.model.size, macs_per_sample=counted)

    @cached_property
    def samples(self) -> Chosen:
        """What the model is calibrated on, and what it is verified on."""
        config = self._config
        return choose_samples(
            self.model.needs,
            Path(config.data) if config.data else None,
            Path(config.labels) if config.labels else None,
            counts=(config.samples, config.verification_samples),
            seed=config.seed,
        )

    @cached_property
    def has_samples(self) -> bool:
        """Whether there is anything to verify on: a folder for the loader real may have nothing for this model."""
        try:
            return len(self.samples.verification) > 0
        except RedlineError:
            return False

    def close(self) -> None:
        """Remove the copies of samples that other processes read."""
        for name in (".calibration.npz", ".calibration_half.npz", ".selection.npz"):
            (self._shelf.folder / name).unlink(missing_ok=True)

    def _files_for(self, variant: Variant) -> Files:
        """The files that a variant needs, parents first.

        Raises:
            WorkerError: one cannot be made; says which step failed and why.
        """
        for step in files_of((variant,), have_torch=self.model.ref is not None):
            self._file(step)
        if variant.requested == "int8":
            self._calibration()
        return self._made.files

    def _file(self, step: FileStep) -> None:
        if step.name in self._made.files:
            return
        if step.name in self._made.failures:
            raise WorkerError(f"{step.title}: {self._made.failures[step.name]}")
        if step.parent is not None and step.parent not in self._made.files:
            raise WorkerError(f"{step.title}: what it is made of could not be made")
        out = self._shelf.folder / "artifacts" / f"{stem_of(self.model.name)}{step.suffix}"
        path = out.relative_to(self._shelf.root).as_posix()
        record = self._shelf.whole(path)
        if record is None:
            try:
                record = self._made_now(step, out, path)
            except RedlineError as error:
                if step.name == "optimized":  # what was exported takes its place
                    self._made.files[step.name] = self._made.files["exported"]
                    return
                self._made.failures[step.name] = str(error)
                raise WorkerError(f"{step.title}: {error}") from error
            self._shelf.keep(record)
        self._made.files[step.name] = out
        self._made.records[step.name] = record

    def _made_now(self, step: FileStep, out: Path, path: str) -> ArtifactMade:
        if step.calibrated:
            self._calibration()
        out.parent.mkdir(parents=True, exist_ok=True)
        more = self._auto_arguments() if step == AUTO_FILE else {}
        source = file_source(step, self._made.files, out, self.model.site(self._shelf.folder, self._config, ""), more)
        made: OnnxModel = call_in_fresh_process(source, timeout_s=step.timeout_s)
        return ArtifactMade(
            model=self.model.name,
            size=self.model.size,
            name=out.name,
            path=path,
            sha256=made.sha256,
            size_bytes=made.size_bytes,
            layers=made.layers.counts,
            opset=made.opset,
            provenance=made.provenance,
        )

    def _auto_arguments(self) -> Mapping[str, Json]:
        """Layers are chosen on samples that neither calibrate nor are reported."""
        self._calibration()
        folder, config = self._shelf.folder, self._config
        half, rest = load_saved(str(folder / ".calibration.npz")).split(config.samples, seed=0)
        save_samples(half, folder / ".calibration_half.npz")
        save_samples(rest, folder / ".selection.npz")
        return {
            "calibration": str(folder / ".calibration_half.npz"),
            "verification": str(folder / ".selection.npz"),
            "min_agreement": config.min_agreement,
            "max_accuracy_drop": config.max_accuracy_drop,
        }

    def _calibration(self) -> None:
        out = self._shelf.folder / ".calibration.npz"
        with self._lock:
            if not out.is_file():
                out.parent.mkdir(parents=True, exist_ok=True)
                save_samples(self.samples.calibration, out)


def _bytes_of(data_type: int) -> int:
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)


_COUNTED = Variant(
    name="counted", title="", backend="onnxruntime", runtime="onnxruntime", requested="fp32", file="optimized"
)
