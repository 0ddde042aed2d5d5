"""Run a model once on what the user has, and keep its answers."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from redline.commands.opening import Opened, open_any
from redline.core.errors import InputError, RedlineError
from redline.core.files import whole_file
from redline.core.samples import Samples
from redline.core.tensor import Array
from redline.data.sources import load_samples
from redline.verification.compare import outputs_of
from redline.verification.guesses import Guess, guesses_of
from redline.verification.judge import is_float

__all__ = ["Guess", "Run", "run"]

_ARRAYS = (".npy", ".npz")
_LARGEST_BATCH = 32
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """The answers of one run.

    Attributes:
        outputs: Arrays by output name, first axis samples.
        guesses: For a classifier, the most probable classes of each sample.
        out: The file that was written.
        notes: What the user should know.
    """

    model: str
    samples: tuple[str, ...]
    outputs: dict[str, Array]
    guesses: tuple[tuple[Guess, ...], ...]
    out: Path | None
    notes: tuple[str, ...]

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
) -> Run:
    """Run ``artifact`` on ``input`` and write its outputs.

    Args:
        artifact: An ONNX file, an engine, the folder of a tune, or a PyTorch model.
        input: ``.npz`` with an array for each of the model's inputs, ``.npy`` for a single one, an image or a folder
            of images; None for a model that takes nothing.
        out: The ``.npz`` to write, with an array for each output.
        threads: 0 lets the runtime choose.
        weights: A checkpoint, for a PyTorch model.
        fallback: What answers instead where an engine cannot be used, in this order: ``rebuild``,
            ``onnxruntime-cuda``, ``onnxruntime`` or another backend. The notes say so then.

    Raises:
        InputError: the artifact or the input is not usable, or the input does not fit the model.
    """
    target = Path(out) if out is not None else None
    if target is not None and target.suffix.lower() != ".npz":
        raise InputError(f"got {target} as output, expected a name that ends in .npz")
    if target is not None and input is not None and target.resolve() == Path(input).resolve():
        raise InputError(f"got {target} as input and output, expected another output file")
    opened = open_any(artifact, threads=threads, weights=weights, fallback=fallback)
    try:
        samples = _samples(opened, input)
        outputs = _answers(opened, samples)
    finally:
        opened.session.close()
    if target is not None:
        write_npz(target, outputs)
    image = input is not None and Path(input).suffix.lower() not in _ARRAYS
    skipped = tuple(f"skipped {one.name}: {one.reason}" for one in samples.skipped)
    return Run(
        model=opened.name,
        samples=samples.names,
        outputs=outputs,
        guesses=guesses_of(outputs, opened.class_names, top=_TOP),
        out=target,
        notes=(*opened.notes, *_assumption(opened, image=image), *skipped, *_not_finite(outputs)),
    )


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
