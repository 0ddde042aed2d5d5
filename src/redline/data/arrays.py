"""Samples out of NumPy files: any number of inputs of any dtype, or pixels that still need preparing."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from redline.core.errors import DataError, SignatureError
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples
from redline.core.tensor import Array, Signature, TensorSpec
from redline.data.images import prepare

SUFFIXES = frozenset({".npz", ".npy"})

_LABEL_NAMES = ("labels", "y")
_ONLY_NAMES = ("x", "images")


def load_arrays(path: Path, signature: Signature, preprocess: Preprocess | None, *, limit: int | None) -> Samples:
    """Samples out of a ``.npz`` (or, for a model of one input, a ``.npy``).

    Arrays are found by the inputs' names; the array of a single input may also be called ``x`` or ``images``, or be
    the only one. Arrays called ``labels`` or ``y`` that no input claims are class indices. Of more than ``limit``
    samples, evenly spaced ones are taken. Where ``preprocess`` is given, uint8 arrays of shape (samples, height,
    width) or (samples, height, width, 3) for a floating-point input are images and are prepared like image files.

    Raises:
        DataError: not a NumPy file, a missing array, or a dtype or shape that does not fit.
    """
    found = read_arrays(path)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit} samples, expected at least 1")
    inputs = {spec.name: _pick(found, spec, signature, path) for spec in signature.inputs}
    labels = next((found[name] for name in _LABEL_NAMES if name in found and name not in inputs), None)
    lengths = {len(array) if array.ndim else 0 for array in inputs.values()}
    if len(lengths) != 1 or 0 in lengths:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
        raise DataError(f"{path}: got {shapes or 'no inputs'}, expected the same number of samples first, at least 1")
    count = lengths.pop()
    index = evenly_spaced(count, limit)
    if labels is not None and labels.shape != (count,):
        raise DataError(f"{path}: labels have shape {labels.shape}, expected ({count},)")
    samples = Samples(
        inputs={spec.name: _convert(inputs[spec.name][index], spec, preprocess, path) for spec in signature.inputs},
        labels=None if labels is None else labels[index],
        names=tuple(str(number) for number in index),
        source=str(path),
    )
    _check_shapes(samples, signature, path)
    return samples


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a ``.npz`` by name; that of a ``.npy`` is called ``x``.

    Raises:
        DataError: the file is missing, is no NumPy file, or holds Python objects.
    """
    try:
        # NumPy leaves a file that it opened itself open where it finds it broken.
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"x": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there") from error
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable NumPy file without Python objects ({error})") from error


def evenly_spaced(count: int, limit: int | None) -> Array:
    """``limit`` positions spread over ``count``, or all: a sorted source would else give its first class only."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.arange(limit) * count // limit


def _pick(found: dict[str, Array], spec: TensorSpec, signature: Signature, path: Path) -> Array:
    if spec.name in found:
        return found[spec.name]
    if len(signature.inputs) == 1:
        for name in _ONLY_NAMES:
            if name in found:
                return found[name]
        others = [name for name in found if name not in _LABEL_NAMES]
        if len(others) == 1:
            return found[others[0]]
    expected = ", ".join(repr(one.name) for one in signature.inputs)
    raise DataError(f"{path} has arrays {sorted(found)}, expected one for each input of the model: {expected}")


def _convert(array: Array, spec: TensorSpec, preprocess: Preprocess | None, path: Path) -> Array:
    if array.dtype == spec.numpy_dtype:
        return array
    floating = spec.numpy_dtype.kind == "f"
    if preprocess is not None and floating and array.dtype == np.uint8 and array.ndim in (3, 4):
        try:
            prepared = [prepare(Image.fromarray(image.squeeze()), preprocess) for image in array]
        except TypeError as error:
            raise DataError(f"{path}: array of shape {array.shape} is not one of gray or RGB images") from error
        return np.stack(prepared).astype(spec.numpy_dtype)
    if np.can_cast(array.dtype, spec.numpy_dtype, "same_kind"):
        cast = array.astype(spec.numpy_dtype)
        if floating or np.array_equal(cast, array):
            return cast
    raise DataError(f"{path}: input {spec.name!r} is {array.dtype}, expected {spec.dtype}")


def _check_shapes(samples: Samples, signature: Signature, path: Path) -> None:
    free = tuple(TensorSpec(spec.name, ("samples", *spec.shape[1:]), spec.dtype) for spec in signature.inputs)
    try:
        Signature(free, ()).check(samples.inputs)
    except SignatureError as error:
        raise DataError(f"{path}: {error}") from error
