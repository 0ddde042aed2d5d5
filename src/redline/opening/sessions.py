"""Open a model file as a session in one call, for checks that need one for a moment."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from redline.backends import load_backend
from redline.core.artifact import Argument, Layers, OnnxModel
from redline.core.session import Session
from redline.core.tensor import Array, Signature


class TemporarySession:
    """A session whose engine lives in a temporary folder that goes away with it.

    Attributes:
        layers: The precision of the engine's layers.
    """

    def __init__(self, session: Session, layers: Layers, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._session = session
        self._folder = folder
        self.layers = layers

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        return self._session.signature

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once."""
        return self._session(inputs)

    def close(self) -> None:
        """Free the model and its folder."""
        self._session.close()
        self._folder.cleanup()


def open_onnx(
    model: OnnxModel,
    *,
    backend: str = "onnxruntime",
    options: Mapping[str, Argument] | None = None,
) -> TemporarySession:
    """Compile ``model`` into a temporary folder and load it.

    Args:
        model: The file to run.
        backend: A name from the table of backends.
        options: That backend's own options; ``{"graph_optimization": "disabled"}`` runs an ONNX file as it is on
            ONNX Runtime.
    """
    runtime = load_backend(backend, options)
    folder = tempfile.TemporaryDirectory(prefix="redline-")
    try:
        engine = runtime.compile(model, Path(folder.name))
        return TemporarySession(runtime.load(engine), engine.layers, folder)
    except BaseException:
        folder.cleanup()
        raise
