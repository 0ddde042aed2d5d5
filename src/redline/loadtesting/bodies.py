"""What is sent: image files as they are, or a model's inputs in V2 binary or V2 JSON."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import redline.data
from redline.core.errors import DataError, InputError
from redline.core.preprocess import Preprocess
from redline.core.samples import Samples
from redline.core.tensor import Array, Signature
from redline.data.images import infer_preprocess
from redline.data.labels import LABELS_FILE, read_table
from redline.data.sources import load_asset, load_samples
from redline.data.synthetic import synthetic_samples
from redline.loadtesting.job import Parcel
from redline.loadtesting.results import Body, BodyKind
from redline.loadtesting.targets import Server
from redline.loadtesting.v2_client import binary_body, json_body

#: Images that a client sends when no folder is given.
SHIPPED = Path(redline.data.__file__).parent / "assets" / "photos"
IMAGE_TYPES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
MOST_SAMPLES = 256
_MOST_BODIES = 32
_MOST_BYTES = 32 << 20
_SYNTHETIC = 32
_DIGITS = tuple("0123456789")


def find_samples(
    signature: Signature,
    preprocess: Preprocess | None,
    *,
    data: Path | None,
    labels: Path | None = None,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Samples:
    """Inputs for a model: the user's, else what is shipped with Redline and fits, else random numbers.

    Labels of shipped data are left out where the model's classes are others.

    Raises:
        DataError: the user's data do not fit the model.
    """
    if data is not None:
        return load_samples(data, signature, preprocess, labels=labels, classes=classes, limit=MOST_SAMPLES)
    if labels is not None:
        raise InputError(f"got labels in {labels} without data; give the folder of images by --data")
    try:
        preprocess = preprocess or infer_preprocess(signature)
    except DataError:
        preprocess = None  # a size that nobody said: random numbers have their own
    if preprocess is not None and signature.fixed_batch in (None, 1):
        return _shipped(signature, preprocess, tuple(classes or ()))
    return synthetic_samples(signature, _SYNTHETIC, seed=seed)


def _shipped(signature: Signature, preprocess: Preprocess, classes: tuple[str, ...]) -> Samples:
    digits = preprocess.color == "gray" and classes == _DIGITS
    samples = load_asset("digits.npz" if digits else "photos", preprocess, input_name=signature.inputs[0].name)[1]
    samples = samples.take(np.arange(min(len(samples), MOST_SAMPLES)))
    fits = digits or classes == tuple(sorted({row["label"] for row in read_table(SHIPPED / LABELS_FILE)}))
    dtype = signature.inputs[0].numpy_dtype
    inputs = {name: array.astype(dtype, copy=False) for name, array in samples.inputs.items()}
    return replace(samples, inputs=inputs, labels=samples.labels if fits else None)


def renamed(inputs: Mapping[str, Array], signature: Signature) -> dict[str, Array]:
    """Inputs of another model for this one: by name, else in their order, as this one's types.

    Raises:
        InputError: another number of inputs.
    """
    specs = signature.inputs
    if len(inputs) != len(specs):
        expected = ", ".join(spec.name for spec in specs)
        raise InputError(f"the models take other inputs: {', '.join(inputs)} and {expected}; load them one at a time")
    same = {spec.name for spec in specs} == set(inputs)
    names = [spec.name for spec in specs] if same else list(inputs)
    return {
        spec.name: inputs[name].astype(spec.numpy_dtype, copy=False) for spec, name in zip(specs, names, strict=True)
    }


def make_parcel(kind: BodyKind, server: Server, samples: Samples, *, images: Path | None = None) -> Parcel:
    """The requests that a server is sent in turn.

    Args:
        kind: ``image/jpeg`` sends image files to ``/predict``, which only ``redline serve`` has.
        server: Whom.
        samples: Inputs, for V2 bodies.
        images: The folder of image files; None for those shipped with Redline.

    Raises:
        InputError: there is no image file that a server takes, or JSON cannot hold these inputs.
    """
    if kind == "image/jpeg":
        path = f"/predict/{urllib.parse.quote(server.target.model, safe='')}"
        suffix, bodies = _image_files(images or SHIPPED)
        headers = {"Content-Type": IMAGE_TYPES[suffix]}
    else:
        path = f"{server.path}/infer"
        rows = server.signature.fixed_batch or 1
        starts = range(0, min(len(samples), _MOST_BODIES * rows), rows)
        batches = [renamed(samples.batch(start, rows), server.signature) for start in starts]
        if kind == "json":
            bodies = [json_body(batch) for batch in batches]
            headers = {"Content-Type": "application/json"}
        else:
            binary = [binary_body(batch) for batch in batches]
            # One header length serves all: the shapes are the same in every request.
            length = binary[0][1]
            headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
            bodies = [body for body, own in binary if own == length]
    address = server.address
    return Parcel(host=address.host, port=address.port, path=path, headers=headers, bodies=_bounded(bodies))


def describe(kind: BodyKind, parcel: Parcel) -> Body:
    """What a report says of it."""
    count = len(parcel.bodies)
    return Body(kind=kind, bytes=round(sum(map(len, parcel.bodies)) / count), inputs=count)


def _image_files(folder: Path) -> tuple[str, list[bytes]]:
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    images = [path for path in files if path.suffix.lower() in IMAGE_TYPES]
    if not images:
        raise InputError(f"{folder} has no {', '.join(IMAGE_TYPES)} file to send; send --body binary")
    # All of one type, that of the most files: a request's headers are the same throughout.
    types = [IMAGE_TYPES[path.suffix.lower()] for path in images]
    most = max(dict.fromkeys(types), key=types.count)
    chosen = [path for path, one in zip(images, types, strict=True) if one == most]
    step = max(1, len(chosen) // _MOST_BODIES)
    return chosen[0].suffix.lower(), [path.read_bytes() for path in chosen[::step][:_MOST_BODIES]]


def _bounded(bodies: Sequence[bytes]) -> tuple[bytes, ...]:
    """As many as are not too much to hold; at least one."""
    kept: list[bytes] = []
    for body in bodies:
        if kept and sum(map(len, kept)) + len(body) > _MOST_BYTES:
            break
        kept.append(body)
    return tuple(kept)
