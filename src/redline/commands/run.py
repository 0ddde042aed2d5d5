"""Run a model once on what the user has, and keep its answers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.core.errors import InputError, RedlineError
from redline.core.files import whole_file
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.images import size_of
from redline.data.sources import load_samples
from redline.detection.decoding import CONFIDENCE, IOU, Decoder
from redline.detection.letterbox import Placement, identity, placement_of
from redline.detection.plain import PlainBox, to_plain
from redline.detection.results import Detections
from redline.opening.opening import Opened, open_any
from redline.verification.compare import outputs_of
from redline.verification.guesses import Guess, guesses_of
from redline.verification.judge import is_float

__all__ = ["Guess", "Run", "Thresholds", "run"]

_ARRAYS = (".npy", ".npz")
_LARGEST_BATCH = 32
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Which boxes of a detector count.

    Attributes:
        confidence: Those with a score above it.
        iou: Intersection over union above which the lesser of two boxes of one class goes.
    """

    confidence: float = CONFIDENCE
    iou: float = IOU


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The answers of one run.

    Attributes:
        outputs: Arrays by output name, first axis samples.
        guesses: For a classifier, the most probable classes of each sample.
        found: For a detector, the boxes of each sample, in pixels of the image; None for any other model.
        class_names: In the order of their indices; None where nobody said.
        out: The file that was written.
        notes: What the user should know.
    """

    model: str
    samples: tuple[str, ...]
    outputs: dict[str, Array]
    guesses: tuple[tuple[Guess, ...], ...]
    out: Path | None
    notes: tuple[str, ...]
    found: tuple[Detections, ...] | None = None
    class_names: tuple[str, ...] | None = None

    def boxes(self) -> list[list[PlainBox]]:
        """The boxes of each sample as JSON values; none of anything but a detector."""
        return [to_plain(one, self.class_names) for one in self.found or ()]

    def to_json(self) -> dict[str, Any]:
        """One JSON document, without the arrays themselves."""
        return {
            "model": self.model,
            "samples": list(self.samples),
            "outputs": [
                {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
                for name, array in self.outputs.items()
            ],
            "top": [
                [{"class": one.index, "name": one.name, "probability": one.probability} for one in sample]
                for sample in self.guesses
            ],
            **({} if self.found is None else {"boxes": self.boxes()}),
            "out": str(self.out) if self.out else None,
            "notes": list(self.notes),
        }


def run(
    artifact: str | Path,
    input: str | Path | None = None,  # noqa: A002 (the command line's own word)
    out: str | Path | None = None,
    *,
    threads: int = 0,
    weights: str | Path | None = None,
    fallback: Sequence[str] = (),
    thresholds: Thresholds | None = None,
) -> Run:
    """Run ``artifact`` on ``input`` and write its outputs.

    Args:
        artifact: An ONNX file, an engine, the folder of a tune, or a PyTorch model.
        input: ``.npz`` with an array for each of the model's inputs, ``.npy`` for a single one, an image or a folder
            of images; None for a model that takes nothing.
        out: The ``.npz`` to write, with an array for each output; of a detector also a ``.json``, with its boxes.
        threads: 0 lets the runtime choose.
        weights: A checkpoint, for a PyTorch model.
        fallback: What answers instead where an engine cannot be used, in this order: ``rebuild``,
            ``onnxruntime-cuda``, ``onnxruntime`` or another backend. The notes say so then.
        thresholds: Which boxes of a detector count.

    Raises:
        InputError: the artifact or the input is not usable, or the input does not fit the model.
    """
    target = Path(out) if out is not None else None
    if target is not None and target.suffix.lower() not in (".npz", ".json"):
        raise InputError(f"got {target} as output, expected a name that ends in .npz, or in .json for boxes")
    if target is not None and input is not None and target.resolve() == Path(input).resolve():
        raise InputError(f"got {target} as input and output, expected another output file")
    opened = open_any(artifact, threads=threads, weights=weights, fallback=fallback)
    try:
        _check_boxes(opened, target)
        samples = _samples(opened, input)
        outputs = _answers(opened, samples)
    finally:
        opened.session.close()
    image = input is not None and Path(input).suffix.lower() not in _ARRAYS
    skipped = tuple(f"skipped {one.name}: {one.reason}" for one in samples.skipped)
    found, doubts = _found(opened, outputs, samples, Path(input) if image and input is not None else None, thresholds)
    result = Run(
        model=opened.name,
        samples=samples.names,
        outputs=outputs,
        guesses=guesses_of(outputs, opened.class_names, top=_TOP),
        out=target,
        notes=(*opened.notes, *_assumption(opened, image=image), *skipped, *_not_finite(outputs), *doubts),
        found=found,
        class_names=opened.class_names,
    )
    if target is not None:
        _write(target, result)
    return result


def _write(target: Path, result: Run) -> None:
    if target.suffix.lower() == ".npz":
        write_npz(target, result.outputs)
        return
    if result.found is None:
        raise InputError(f"got {target} as output, but {result.model} gave no boxes ({'; '.join(result.notes)})")
    images = [{"image": name, "boxes": boxes} for name, boxes in zip(result.samples, result.boxes(), strict=True)]
    document = {"model": result.model, "images": images}
    with whole_file(target) as scratch:
        scratch.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_boxes(opened: Opened, target: Path | None) -> None:
    if target is not None and target.suffix.lower() == ".json" and opened.detection is None:
        raise InputError(f"got {target} as output, but {opened.name} is no detector that says so; expected .npz")


def _found(
    opened: Opened, outputs: dict[str, Array], samples: Samples, images: Path | None, thresholds: Thresholds | None
) -> tuple[tuple[Detections, ...] | None, tuple[str, ...]]:
    """The boxes of a detector, or why they cannot be told; neither of any other model."""
    if opened.detection is None:
        return None, ()
    asked = thresholds or Thresholds()
    decoder = Decoder(
        detection=opened.detection,
        class_count=len(opened.class_names) if opened.class_names else None,
        confidence=asked.confidence,
        iou=asked.iou,
    )
    (array,) = samples.inputs.values()
    last = opened.preprocess is not None and opened.preprocess.layout == "nhwc"
    input_hw = (array.shape[1], array.shape[2]) if last else (array.shape[2], array.shape[3])
    try:
        return tuple(decoder(outputs, _placements(samples, images, input_hw), input_hw).split()), ()
    except InputError as error:
        return None, (f"no boxes: {error}",)


def _placements(samples: Samples, images: Path | None, input_hw: tuple[int, int]) -> list[Placement]:
    """Where each image lies in the input; boxes of arrays stay in pixels of the input."""
    if images is None:
        return [identity(input_hw)] * len(samples)
    folder = images if images.is_dir() else images.parent
    return [placement_of(size_of(folder / name), input_hw) for name in samples.names]


def write_npz(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays under any names; NumPy's own ``savez`` fails on one that is called ``file``."""
    with whole_file(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _samples(opened: Opened, source: str | Path | None) -> Samples:
    signature = opened.session.signature
    if not signature.inputs:
        return Samples(inputs={}, labels=None, names=("answer",), source="no input")
    if source is None:
        wanted = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in signature.inputs)
        raise InputError(f"got no input, {opened.name} takes {wanted}; give it with -i")
    return load_samples(Path(source), signature, opened.preprocess, classes=opened.class_names)


def _answers(opened: Opened, samples: Samples) -> dict[str, Array]:
    try:
        return outputs_of(opened.session, samples, min(len(samples), _LARGEST_BATCH))
    except RedlineError:
        raise
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{opened.name} does not run on {samples.source}: {told}") from error


def _assumption(opened: Opened, *, image: bool) -> tuple[str, ...]:
    return (opened.assumption,) if image and opened.assumption else ()


def _not_finite(outputs: dict[str, Array]) -> tuple[str, ...]:
    notes = []
    for name, array in outputs.items():
        values = array.astype(np.float64) if is_float(array) and array.dtype.kind != "c" else np.zeros(0)
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            notes.append(f"output {name!r} has {bad} of {values.size} values that are NaN or infinite")
    return tuple(notes)
