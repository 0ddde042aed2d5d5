"""Samples from wherever the user has them: a folder of images, one image, NumPy files, or data shipped with Redline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from redline.core.errors import DataError
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples, Skipped
from redline.core.tensor import Array, Signature, TensorSpec
from redline.data import arrays, images
from redline.data.labels import LABELS_FILE, Labelling, classes_of, labels_of_folders, read_labels, read_table

MEMORY_LIMIT_BYTES = 4 << 30

_ASSETS = Path(__file__).parent / "assets"


def load_samples(
    source: Path,
    signature: Signature,
    preprocess: Preprocess | None,
    *,
    labels: Path | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> Samples:
    """Samples that fit a model, from a folder of images, one image, a ``.npz`` or a ``.npy``.

    A folder is searched to its depths in the order of names, without hidden files. What is no usable image is
    skipped, and named with the reason. Of more than ``limit`` images, evenly spaced ones are taken.

    Labels come from ``labels``, or from ``labels.csv`` in the folder (columns file, label), or from subfolders: those
    named as in ``classes``, or by integers, or as many as the model has classes (then in the order of their names).

    Args:
        source: The folder or file.
        signature: What the model takes and gives.
        preprocess: How images become inputs; None infers it from the signature.
        labels: A CSV file with the columns file (relative to the folder) and label (an index, or a class's name).
        classes: The names of the classes, in the order of their indices.
        limit: The most samples to take.

    Raises:
        DataError: nothing usable, or labels or arrays that do not fit; says what was got and what was expected.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit} samples, expected at least 1")
    if not source.exists():
        raise DataError(f"{source} is not there; expected a folder of images, an image, .npz or .npy")
    if source.suffix.lower() in arrays.SUFFIXES and source.is_file():
        if labels is not None:
            raise DataError(f"got labels in {labels}, expected them as the array 'labels' within {source}")
        samples = arrays.load_arrays(source, signature, preprocess, limit=limit)
        _check_range(samples, signature)
        return samples
    target = _target(signature, preprocess, source)
    folder = source if source.is_dir() else source.parent
    files = _files(source)
    labelling = _labelling(source, files, signature, labels, classes)
    samples = _read(folder, files, target, labelling, limit)
    _check_range(samples, signature)
    return samples


def load_asset(asset: str, preprocess: Preprocess, *, input_name: str = "input") -> tuple[Samples, Samples]:
    """The (calibration, verification) samples shipped as ``asset`` (``digits.npz``, ``photos``), labelled.

    Nothing in the verification part was trained or calibrated on.

    Raises:
        DataError: there is no such asset.
    """
    path = _ASSETS / asset
    if path.suffix == ".npz" and path.is_file():
        found = arrays.read_arrays(path)
        parts = [_shipped_array(found, split, asset, preprocess, input_name) for split in ("calibration", "test")]
    elif path.is_dir():
        parts = [_shipped_folder(path, split, preprocess, input_name) for split in ("calibration", "test")]
    else:
        known = ", ".join(sorted(one.name for one in _ASSETS.iterdir() if not one.name.startswith((".", "_"))))
        raise DataError(f"there is no data called {asset!r}, expected one of: {known}")
    return parts[0], parts[1]


def _shipped_array(found: dict[str, Array], split: str, asset: str, preprocess: Preprocess, input_name: str) -> Samples:
    pixels, labels = found[f"{split}_images"], found[f"{split}_labels"]
    return Samples(
        inputs={input_name: np.stack([images.prepare(Image.fromarray(one), preprocess) for one in pixels])},
        labels=labels.astype(np.int64),
        names=tuple(f"{split} {index}" for index in range(len(pixels))),
        source=f"{asset.removesuffix('.npz')} ({split} part, shipped with Redline)",
    )


def _shipped_folder(path: Path, split: str, preprocess: Preprocess, input_name: str) -> Samples:
    rows = read_table(path / LABELS_FILE)
    names = sorted({row["label"] for row in rows})
    chosen = [row for row in rows if row["split"] == split]
    return Samples(
        inputs={input_name: np.stack([images.read_image(path / row["file"], preprocess) for row in chosen])},
        labels=np.array([names.index(row["label"]) for row in chosen]),
        names=tuple(row["file"] for row in chosen),
        source=f"{path.name} ({split} part, shipped with Redline)",
    )


@dataclass(frozen=True, slots=True)
class _Target:
    """The input that images are for."""

    spec: TensorSpec
    preprocess: Preprocess


def _target(signature: Signature, preprocess: Preprocess | None, source: Path) -> _Target:
    preprocess = preprocess or images.infer_preprocess(signature)
    shapes = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in signature.inputs) or "no input"
    if preprocess is None or len(signature.inputs) != 1 or signature.inputs[0].numpy_dtype.kind != "f":
        raise DataError(f"the model takes {shapes}, which {source} cannot give it; expected a .npz of arrays by name")
    size = (preprocess.height_px, preprocess.width_px)
    gives = (preprocess.channels, *size) if preprocess.layout == "nchw" else (*size, preprocess.channels)
    spec = signature.inputs[0]
    fits = len(spec.shape) == 4 and all(
        isinstance(expected, str) or got == expected for got, expected in zip(gives, spec.shape[1:], strict=True)
    )
    if not fits:
        raise DataError(f"the model takes {shapes}, but its images are prepared to {list(gives)} each")
    return _Target(spec, preprocess)


def _files(source: Path) -> list[str]:
    """Paths relative to the folder, in the order of names; hidden files and folders are no data."""
    if source.is_file():
        return [source.name]
    found = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
    names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    names = sorted(name for name in names if name != LABELS_FILE)
    if not names:
        raise DataError(f"{source} is an empty folder, expected images ({', '.join(sorted(images.SUFFIXES))})")
    return names


def _labelling(
    source: Path, files: list[str], signature: Signature, labels: Path | None, classes: Sequence[str] | None
) -> Labelling:
    count = classes_of(signature)
    table = labels
    if table is None and source.is_dir() and (source / LABELS_FILE).is_file():
        table = source / LABELS_FILE
    if table is not None:
        folder = source if source.is_dir() else source.parent
        return read_labels(table, folder, classes=classes, class_count=count)
    return labels_of_folders(files, classes=classes, class_count=count)


def _read(folder: Path, files: list[str], target: _Target, labelling: Labelling, limit: int | None) -> Samples:
    candidates, skipped = _candidates(files, labelling)
    count = len(candidates) if limit is None else min(limit, len(candidates))
    one_bytes = target.preprocess.channels * target.preprocess.height_px * target.preprocess.width_px * 4
    if count * one_bytes > MEMORY_LIMIT_BYTES:
        raise DataError(
            f"{count} images of {one_bytes:,} bytes each would take more than {MEMORY_LIMIT_BYTES >> 30} GiB; "
            f"set a limit of at most {MEMORY_LIMIT_BYTES // one_bytes} samples"
        )
    used: dict[str, Array] = {}
    first = arrays.evenly_spaced(len(candidates), limit)
    for position in [*first, *sorted(set(range(len(candidates))) - set(first.tolist()))]:
        if len(used) == count:
            break
        name = candidates[position]
        try:
            prepared = images.read_image(folder / name, target.preprocess)
            used[name] = prepared.astype(target.spec.numpy_dtype, copy=False)
        except DataError as error:
            skipped.append(Skipped(name, str(error)))
    skipped.sort(key=lambda one: one.name)
    if not used:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in skipped[:3])
        raise DataError(f"{folder} has no usable image among {len(files)} files ({reasons})")
    names = tuple(sorted(used))
    return Samples(
        inputs={target.spec.name: np.stack([used.pop(name) for name in names])},
        labels=None if labelling.by_file is None else np.array([labelling.by_file[name] for name in names]),
        names=names,
        source=f"{folder}{labelling.note}",
        skipped=tuple(skipped),
    )


def _candidates(files: list[str], labelling: Labelling) -> tuple[list[str], list[Skipped]]:
    candidates, skipped = [], []
    for name in files:
        if Path(name).suffix.lower() not in images.SUFFIXES:
            skipped.append(Skipped(name, "not an image by its name"))
        elif labelling.by_file is not None and name not in labelling.by_file:
            skipped.append(Skipped(name, "has no label"))
        else:
            candidates.append(name)
    return candidates, skipped


def _check_range(samples: Samples, signature: Signature) -> None:
    if samples.labels is None:
        return
    count = classes_of(signature)
    wrong = (samples.labels < 0) | (samples.labels >= (count or np.iinfo(np.int64).max))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{samples.source}: {samples.names[first]} has label {samples.labels[first]}, "
            f"expected 0 to {(count or 0) - 1 if count else 'the number of classes'}"
        )
