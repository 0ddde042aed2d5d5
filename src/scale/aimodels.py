"""Models by the names that users already have: images in, predictions by class out."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from redline.core.errors import InputError
from redline.core.tensor import Array
from scale.models.spec import ENGINE_SUFFIXES, ModelSpec

if TYPE_CHECKING:
    from scale.domain import Prediction
    from scale.models.loaded import OpenModel
    from scale.models.opening import EngineUse


class YOLOModel:
    """A detector that runs its ``.onnx`` or ``.pt`` file; the file is opened when it is first asked for something.

    Several threads may use it: one at a time runs the model, the others prepare and read meanwhile.
    """

    def __init__(
        self,
        model_path: str | Path,
        min_conf: float,
        cls_index_to_name: Mapping[int, str],
        *,
        device: str = "auto",
        batch: int = 32,
        input_px: int | None = None,
    ) -> None:
        """Describe a model, whose file need not be there yet.

        Args:
            model_path: Its file.
            min_conf: Detections below it are dropped.
            cls_index_to_name: The classes that are asked for, by the model's own index; empty takes all that the file
                names.
            device: ``auto`` takes a GPU where there is one; ``cpu``, ``cuda`` or ``cuda:1``.
            batch: The most images in one call of the model.
            input_px: Side of the model's square input; None takes what the file says.
        """
        path = Path(model_path)
        self.spec = ModelSpec(
            name=path.stem or str(path),
            path=path,
            class_names=dict(cls_index_to_name),
            confidence=min_conf,
            batch=batch,
            input_px=input_px,
        )
        self.device = device
        self.fallback = True
        self.engine: EngineUse = "if-there" if path.suffix.lower() in ENGINE_SUFFIXES else "never"
        self._prepare_to_open()

    @classmethod
    def of(cls, spec: ModelSpec, *, device: str = "auto") -> Self:
        """A model of its description."""
        model = cls(spec.path, spec.confidence, spec.class_names, device=device)
        model.spec = spec
        return model

    def _prepare_to_open(self) -> None:
        self._opened: OpenModel | None = None
        self._opening = threading.Lock()
        self._running = threading.Lock()

    @property
    def model_path(self) -> Path:
        """Its file."""
        return self.spec.path

    @property
    def min_conf(self) -> float:
        """Detections below it are dropped."""
        return self.spec.confidence

    @property
    def cls_index_to_name(self) -> dict[int, str]:
        """The classes that are asked for."""
        return dict(self.spec.class_names)

    @property
    def opened(self) -> OpenModel:
        """The open model, which is opened now where it was not.

        Raises:
            InputError: there is no such file, or it cannot be used.
            EngineMismatchError: no engine works, and nothing else may answer.
        """
        with self._opening:
            if self._opened is None:
                self._opened = self.open()
                weakref.finalize(self, self._opened.close)  # users of this interface close nothing
            return self._opened

    def open(self) -> OpenModel:
        """Open it once more, for a thread of one's own."""
        from scale.models.opening import open_model

        return open_model(self.spec, device=self.device, fallback=self.fallback, engine=self.engine)

    def predict(self, images_bgr: Sequence[Array]) -> list[dict[str, list[Prediction]]]:
        """What is in each image, by class, in its own pixels, best first.

        Args:
            images_bgr: uint8 arrays (height, width, 3), blue first; of any sizes, any number of them.
        """
        from scale.domain import from_detections

        opened = self.opened
        images = [_rgb(image) for image in images_bgr]
        found = []
        for start in range(0, len(images), opened.batch):
            prepared = opened.detector.prepare(images[start : start + opened.batch])
            with self._running:
                outputs = opened.detector.run(prepared)
            found += opened.select(opened.detector.decode_batch(outputs, prepared)).split()
        return [from_detections(each, opened.names) for each in found]

    def close(self) -> None:
        """Free the model; the next call opens it again."""
        with self._opening, self._running:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.spec.path)!r})"

    def __getstate__(self) -> dict[str, object]:
        return {"spec": self.spec, "device": self.device, "fallback": self.fallback, "engine": self.engine}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._prepare_to_open()


class YOLOTensorRTModel(YOLOModel):
    """A detector that runs its TensorRT engine: the file itself, or the ``.engine`` or ``.plan`` beside it.

    An engine that is missing, of another GPU or TensorRT, older than its model, broken, or that does not load or run
    is replaced by the ``.onnx`` or ``.pt`` file beside it, with one warning that says why.
    """

    def __init__(
        self,
        model_path: str | Path,
        min_conf: float,
        cls_index_to_name: Mapping[int, str],
        fallback_to_pt: bool = True,
        *,
        device: str = "auto",
        batch: int = 32,
        input_px: int | None = None,
    ) -> None:
        """Describe a model, as :class:`YOLOModel` does.

        Args:
            model_path: The engine, or the file beside which it lies.
            min_conf: As there.
            cls_index_to_name: As there.
            fallback_to_pt: Whether another file may answer where no engine works; without it that is an error.
            device: As there.
            batch: As there.
            input_px: As there.
        """
        super().__init__(model_path, min_conf, cls_index_to_name, device=device, batch=batch, input_px=input_px)
        self.fallback = fallback_to_pt
        self.engine = "expected"

    @classmethod
    def of(cls, spec: ModelSpec, *, device: str = "auto", fallback_to_pt: bool = True) -> Self:
        """A model of its description."""
        model = super().of(spec, device=device)
        model.fallback = fallback_to_pt
        return model


def _rgb(image: Array) -> Array:
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise InputError(
            f"got an image of {array.dtype} and shape {array.shape}, expected a list of uint8 arrays "
            "(height, width, 3), blue first"
        )
    return np.ascontiguousarray(array[:, :, ::-1])
