"""Models of a few lines, so that a server can be tested without a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from redline.core.preprocess import Preprocess
from redline.core.tensor import Array, Signature, TensorSpec
from redline.serving.models import Loaded, Models, ModelSource, Settings

CLASSES = ("red", "green", "blue")
SIDE_PX = 8
PREPROCESS = Preprocess(
    height_px=SIDE_PX, width_px=SIDE_PX, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), resize="stretch"
)

AFFINE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))
MIXED = Signature(
    (TensorSpec("a", ("n", 2), "float32"), TensorSpec("b", ("n", 2), "int64"), TensorSpec("on", ("n",), "bool")),
    (TensorSpec("sum", ("n", 2), "float32"), TensorSpec("b2", ("n", 2), "int64")),
)
CLASSIFIER = Signature(
    (TensorSpec("image", ("batch", 3, SIDE_PX, SIDE_PX), "float32"),), (TensorSpec("scores", ("batch", 3), "float32"),)
)


def affine(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """``2 x + 1``; a row that begins with 99 is one that the model chokes on."""
    if (inputs["x"][:, 0] == 99).any():
        raise RuntimeError("/secret/path/of/the/model: it choked")
    return {"y": 2 * inputs["x"] + 1}


def mixed(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Sums where ``on`` is true."""
    total = np.where(inputs["on"][:, None], inputs["a"] + inputs["b"], 0).astype(np.float32)
    return {"sum": total, "b2": 2 * inputs["b"]}


def classify(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Which of the three colours there is most of."""
    return {"scores": 10 * inputs["image"].mean(axis=(2, 3))}


@dataclass
class Shelf:
    """An opener that knows models by the names of their files, and counts what it opened and closed."""

    runs: dict[str, Callable[[Mapping[str, Array]], dict[str, Array]]] = field(
        default_factory=lambda: {"affine": affine, "mixed": mixed, "colours": classify}
    )
    signatures: dict[str, Signature] = field(
        default_factory=lambda: {"affine": AFFINE, "mixed": MIXED, "colours": CLASSIFIER}
    )
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)
    preprocess: Preprocess | None = PREPROCESS

    def __call__(self, path: Path) -> Loaded:
        name = path.stem
        if name in self.broken:
            raise self.broken[name]
        self.opened.append(name)
        image = name == "colours"
        return Loaded(
            runs=(self.runs[name],) * 2,
            signature=self.signatures[name],
            precision="int8" if image else "fp32",
            backend="fake",
            platform="onnx_onnxv1",
            size_bytes=123_456,
            close=lambda: self.closed.append(name),
            preprocess=self.preprocess if image else None,
            class_names=CLASSES if image else None,
        )


def serve(folder: Path, *names: str, shelf: Shelf | None = None, settings: Settings | None = None) -> Models:
    """Models by their names in a :class:`Shelf`, each from an empty file in ``folder``."""
    models = Models(shelf or Shelf(), settings)
    for name in names:
        path = folder / f"{name}.onnx"
        path.touch()
        models.add(ModelSource(name=name, versions={"1": path}))
    return models


def picture(color: str = "blue", *, kind: str = "PNG", size: tuple[int, int] = (12, 9)) -> bytes:
    """One colour as the bytes of an image file."""
    file = BytesIO()
    Image.new("RGB", size, color).save(file, kind)
    return file.getvalue()
