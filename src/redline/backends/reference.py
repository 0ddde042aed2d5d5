"""ONNX's own reference evaluator: slow, in pure NumPy, and nobody's optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from redline.backends.refusals import check_platform
from redline.core.artifact import Engine, OnnxModel, Step
from redline.core.errors import BuildError, InputError
from redline.core.files import sha256_of, write_whole
from redline.core.tensor import Array, Signature
from redline.formats.onnx_file import load_proto, unknown_operators

NAME = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOptions:
    """Options of the reference backend: ``threads`` is accepted and means nothing, NumPy decides."""

    threads: int = 0


def create(options: Mapping[str, Any]) -> Reference:
    """The backend with those options (the table calls this)."""
    return Reference(ReferenceOptions(**options))


class Reference:
    """Runs the ONNX file as its specification says."""

    name = NAME

    def __init__(self, options: ReferenceOptions | None = None) -> None:
        self.options = options or ReferenceOptions()

    def platform(self) -> dict[str, str]:
        """Only the onnx package matters."""
        return {"onnx": onnx.__version__}

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Copy the model: there is nothing to compile."""
        proto = load_proto(model.path)
        if unknown := unknown_operators(proto):
            raise BuildError(f"{model.path.name}: the reference evaluator has no operator {', '.join(unknown)}")
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{model.path.stem}.reference.onnx"
        write_whole(path, proto.SerializeToString())
        engine = Engine(
            path=path,
            sha256=sha256_of(path),
            backend=NAME,
            signature=model.signature,
            usage=model.usage,
            layers=model.layers,
            platform=self.platform(),
            options={},
            provenance=(
                *model.provenance,
                Step(step="compile reference", arguments={}, parent_sha256=model.sha256, versions=self.platform()),
            ),
        )
        engine.save()
        return engine

    def load(self, engine: Engine) -> ReferenceSession:
        """Load an engine."""
        check_platform(engine, self.platform())
        return ReferenceSession(ReferenceEvaluator(str(engine.path)), engine.signature)


class ReferenceSession:
    """A model in the reference evaluator."""

    def __init__(self, evaluator: ReferenceEvaluator, signature: Signature) -> None:
        self.signature = signature
        self._evaluator: ReferenceEvaluator | None = evaluator
        self._names = [spec.name for spec in signature.outputs]

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once."""
        self.signature.check(inputs)
        if self._evaluator is None:
            raise InputError("the session is closed; open it again")
        outputs = self._evaluator.run(self._names, dict(inputs))
        return {name: np.array(output) for name, output in zip(self._names, outputs, strict=True)}

    def close(self) -> None:
        """Free the model."""
        self._evaluator = None
