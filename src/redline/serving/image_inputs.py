"""Encoded images into the input of a model that says how it wants them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from redline.core.errors import MissingDependencyError, RequestError, SignatureError
from redline.core.plain import Json
from redline.core.preprocess import Preprocess
from redline.core.tensor import Array, TensorSpec
from redline.data.images import prepare
from redline.serving.datatypes import BYTES, datatype_of
from redline.serving.images import decode_image
from redline.serving.limits import Limits
from redline.serving.versions import Version

# Decoded images are large: no more are held at once than there are cores to decode them.
_DECODERS = max(2, os.cpu_count() or 2)
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageBatch:
    """Images as a model takes them.

    Attributes:
        inputs: By name.
        sizes_hw: Height and width of each image in pixels, before anything was done to it.
    """

    inputs: dict[str, Array]
    sizes_hw: tuple[tuple[int, int], ...]


class ImageInputs:
    """Decodes a few images at a time, whoever asks."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._gate = threading.BoundedSemaphore(_DECODERS)

    def batch_of(self, served: Version, files: Sequence[bytes]) -> ImageBatch:
        """The input that images make; a batch that is fixed in the model's file is filled up with the last of them.

        Raises:
            RequestError: the model takes no images or not so many, or one of them is not usable.
        """
        preprocess, signature = served.loaded.preprocess, served.loaded.signature
        if preprocess is None or len(signature.inputs) != 1 or signature.inputs[0].numpy_dtype.kind != "f":
            raise RequestError(
                f"model '{served.name}' does not say how an image becomes its input, so it takes none; send tensors as "
                "application/json"
            )
        spec = signature.inputs[0]
        wanted = signature.fixed_batch or len(files)
        if len(files) > wanted:
            raise RequestError(f"model '{served.name}' takes at most {wanted} images at once, got {len(files)}")
        images = [self._image(file, preprocess, spec, served.name) for file in files]
        batch = [array for array, _ in images]
        batch += [batch[-1]] * (wanted - len(batch))
        inputs = {spec.name: batch[0][None] if len(batch) == 1 else np.stack(batch)}
        try:
            signature.check(inputs)
        except SignatureError as error:
            raise RequestError(str(error)) from error
        return ImageBatch(inputs=inputs, sizes_hw=tuple(size for _, size in images))

    def replaced(self, served: Version, body: bytes, header_length: int | None) -> tuple[bytes, int | None]:
        """A request of the Open Inference Protocol in which encoded images have become the tensor that they stand for.

        A client may send an input of a model for images as BYTES, one JPEG, PNG or WebP file an element, as OpenVINO's
        model server has it. Any other request stays as it is.

        Raises:
            RequestError: as :meth:`batch_of`, or the elements are not whole.
        """
        inputs = served.loaded.signature.inputs
        if not header_length or served.loaded.preprocess is None or len(inputs) != 1:
            return body, header_length
        text = body[:header_length]
        if b'"BYTES"' not in text or datatype_of(inputs[0].numpy_dtype) == BYTES:
            return body, header_length
        header = _object(text)
        described = header.get("inputs")
        one = described[0] if isinstance(described, list) and len(described) == 1 else None
        if not isinstance(one, dict) or one.get("name") != inputs[0].name or one.get("datatype") != BYTES:
            return body, header_length
        files = _elements(body[header_length:], one.get("shape"), self._limits.batch_rows)
        fixed = served.loaded.signature.fixed_batch
        if fixed is not None and fixed != len(files):
            raise RequestError(f"model '{served.name}' takes {fixed} images at once, got {len(files)}")
        array = self.batch_of(served, files).inputs[inputs[0].name]
        one |= {"datatype": datatype_of(array.dtype), "shape": list(array.shape)}
        one["parameters"] = {"binary_data_size": array.nbytes}
        changed = orjson.dumps(header)
        return changed + array.tobytes(), len(changed)

    def _image(
        self, file: bytes, preprocess: Preprocess, spec: TensorSpec, model: str
    ) -> tuple[Array, tuple[int, int]]:
        """One image as a row of the input, with its height and width."""
        if not self._gate.acquire(timeout=self._limits.deadline_s):
            raise RequestError("the server is busy decoding images", status=503, retry_after_s=1)
        try:
            image = decode_image(file, most_pixels=self._limits.image_pixels)
            prepared = prepare(image, preprocess)
        except MissingDependencyError as error:
            raise RequestError(
                f"this server takes no images for model '{model}', as it lacks {error.package}; send tensors as "
                "application/json",
                status=500,
            ) from error
        finally:
            self._gate.release()
        return prepared.astype(spec.numpy_dtype, copy=False), (image.height, image.width)


def _object(text: bytes) -> dict[str, Json]:
    """The JSON in front of the tensors; what is wrong with it is said by who parses it."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _elements(data: bytes, shape: Any, most: int) -> list[bytes]:
    """The elements of one tensor of BYTES, each with its length before it."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= 2 or not all(type(size) is int for size in shape):
        raise RequestError("images as BYTES have the shape [n], or [n, 1]")
    if min(shape) < 1 or max(shape) > most or prod(shape) > most:
        raise RequestError(f"inference request batch-size must be from 1 to {most}")
    files: list[bytes] = []
    at = 0
    while at < len(data) and len(files) < prod(shape):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        files.append(data[start:at])
    if at != len(data) or len(files) != prod(shape):
        raise RequestError(
            f"the elements of BYTES do not add up: expected {prod(shape)} with their lengths before them"
        )
    return files
