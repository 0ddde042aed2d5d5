"""ONNX Runtime on the CPU."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from redline.backends.refusals import check_platform, refused
from redline.core.artifact import Engine, OnnxModel, Step
from redline.core.errors import BuildError, InputError
from redline.core.files import sha256_of, whole_file
from redline.core.host import cpu_identity
from redline.core.tensor import Array, Signature
from redline.formats.onnx_file import layers_of, versions

NAME = "onnxruntime"
GRAPH_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_ERRORS_ONLY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtOptions:
    """Options of the ONNX Runtime backend.

    Attributes:
        threads: Intra-op threads; 0 lets the runtime take every core.
        graph_optimization: ``all``, ``extended``, ``basic`` or ``disabled`` (the file as it is).
    """

    threads: int = 0
    graph_optimization: str = "all"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise InputError(f"threads is {self.threads}, expected 0 or more")
        if self.graph_optimization not in GRAPH_LEVELS:
            raise InputError(f"graph_optimization is {self.graph_optimization!r}, expected {', '.join(GRAPH_LEVELS)}")


def create(options: Mapping[str, Any]) -> OnnxRuntime:
    """The backend with those options (the table calls this)."""
    return OnnxRuntime(OrtOptions(**options))


class OnnxRuntime:
    """Compiles to ONNX Runtime's own optimized graph for this processor, saved as a file."""

    name = NAME

    def __init__(self, options: OrtOptions | None = None) -> None:
        self.options = options or OrtOptions()

    def platform(self) -> dict[str, str]:
        """Library version and processor: the optimized graph holds instructions for this one."""
        return {"onnxruntime": ort.__version__, **cpu_identity()}

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Optimize the graph for this processor; the precision is read from the optimized graph.

        So an FP16 model that the CPU runs as FP32 between casts says fp32.
        """
        engine_path = directory / f"{model.path.stem}.ort.onnx"
        with whole_file(engine_path) as scratch:
            options = _session_options(self.options)
            options.optimized_model_filepath = str(scratch)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "")
            self._save(model, options, engine_path)
            proto = onnx.load_model(str(scratch))
        engine = Engine(
            path=engine_path,
            sha256=sha256_of(engine_path),
            backend=NAME,
            signature=model.signature,
            usage=model.usage,
            layers=layers_of(proto),
            platform=self.platform(),
            options=dict(asdict(self.options)),
            provenance=(
                *model.provenance,
                Step(
                    step="compile onnxruntime",
                    arguments=dict(asdict(self.options)),
                    parent_sha256=model.sha256,
                    versions=versions("onnxruntime"),
                ),
            ),
        )
        engine.save()
        return engine

    def _save(self, model: OnnxModel, options: ort.SessionOptions, engine_path: Path) -> None:
        try:
            _open(model.path, options)
        except BuildError as error:
            # Of a full disk the runtime says "Protobuf serialization failed".
            if shutil.disk_usage(engine_path.parent).free < model.size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(engine_path)) from error
            raise

    def load(self, engine: Engine) -> OrtSession:
        """Load an engine that was compiled here."""
        check_platform(engine, self.platform())
        options = _session_options(self.options)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return OrtSession(_open(engine.path, options), engine.signature)


class OrtSession:
    """A loaded ONNX Runtime model."""

    concurrent_calls = True

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self.signature = signature
        self._session: ort.InferenceSession | None = session
        self._names = [spec.name for spec in signature.outputs]

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once; the outputs are fresh arrays."""
        self.signature.check(inputs)
        if self._session is None:
            raise InputError("the session is closed; open it again")
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))

    def close(self) -> None:
        """Free the model."""
        self._session = None


def _session_options(options: OrtOptions) -> ort.SessionOptions:
    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    session_options.log_severity_level = _ERRORS_ONLY
    session_options.graph_optimization_level = GRAPH_LEVELS[options.graph_optimization]
    return session_options


def _open(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise refused(path, "ONNX Runtime", error) from error
