"""OpenVINO on the CPU."""

from __future__ import annotations

import io
import queue
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from redline.backends.refusals import check_platform, reason_of, refused
from redline.core.artifact import Engine, Layers, OnnxModel, Precision, Step
from redline.core.errors import EngineMismatchError, InputError
from redline.core.files import sha256_of, write_whole
from redline.core.host import cpu_identity
from redline.core.tensor import Array, Dim, Signature

NAME = "openvino"
_HINTS = ("default", "f32", "bf16", "f16")
_COMPUTE_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "LSTMCell", "RNNSeq"})
_PRECISION_OF: dict[str, Precision] = {
    "f32": "fp32",
    "bf16": "bf16",
    "f16": "fp16",
    "i8": "int8",
    "u8": "int8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Options of the OpenVINO backend.

    Attributes:
        threads: Inference threads; 0 lets the runtime take every core.
        precision: ``default`` lets the runtime choose, which is bf16 where the processor has it; ``f32`` is true
            FP32. What really ran is read from the compiled model either way.
        streams: How many threads may call a session at one time, each on its share of the cores.
        batch: The one batch size that it is compiled for, which lets the runtime plan its memory and kernels once; 0
            leaves the file's own.
    """

    threads: int = 0
    precision: str = "default"
    streams: int = 1
    batch: int = 0

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise InputError(f"threads is {self.threads}, expected 0 or more")
        if self.batch < 0:
            raise InputError(f"batch is {self.batch}, expected 0 or more")
        if self.streams < 1:
            raise InputError(f"streams is {self.streams}, expected 1 or more")
        if self.precision not in _HINTS:
            raise InputError(f"precision is {self.precision!r}, expected one of {', '.join(_HINTS)}")


def create(options: Mapping[str, Any]) -> OpenVino:
    """The backend with those options (the table calls this)."""
    return OpenVino(OpenVinoOptions(**options))


class OpenVino:
    """Compiles to OpenVINO's exported model for this processor."""

    name = NAME

    def __init__(self, options: OpenVinoOptions | None = None) -> None:
        self.options = options or OpenVinoOptions()

    def platform(self) -> dict[str, str]:
        """Library build and processor."""
        return {"openvino": ov.get_version(), **cpu_identity()}

    def compile(self, model: OnnxModel, directory: Path) -> Engine:
        """Compile; the precision of each layer is read from the runtime's own graph."""
        core = ov.Core()
        signature = model.signature.at_batch(self.options.batch) if self.options.batch else model.signature
        try:
            network = core.read_model(str(model.path))
            if self.options.batch:
                network.reshape({spec.name: ov.PartialShape(_sizes(spec.shape)) for spec in signature.inputs})
            compiled = core.compile_model(network, "CPU", self._config())
        except Exception as error:
            raise refused(model.path, "OpenVINO", error) from error
        fixed = f".b{self.options.batch}" if self.options.batch else ""
        path = directory / f"{model.path.stem}.{self.options.precision}{fixed}.ov.blob"
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, compiled.export_model().getvalue())
        engine = Engine(
            path=path,
            sha256=sha256_of(path),
            backend=NAME,
            signature=signature,
            usage=model.usage,
            layers=_layers(compiled),
            platform=self.platform(),
            options=dict(asdict(self.options)),
            provenance=(
                *model.provenance,
                Step(
                    step="compile openvino",
                    arguments=dict(asdict(self.options)),
                    parent_sha256=model.sha256,
                    versions={"openvino": ov.get_version()},
                ),
            ),
        )
        engine.save()
        return engine

    def load(self, engine: Engine) -> OpenVinoSession:
        """Load an engine that was compiled here."""
        check_platform(engine, self.platform())
        core = ov.Core()
        try:
            compiled = core.import_model(io.BytesIO(engine.path.read_bytes()), "CPU", self._config())
        except Exception as error:
            raise EngineMismatchError(f"{engine.path.name}: OpenVINO cannot load it: {reason_of(error)}") from error
        return OpenVinoSession(compiled, engine.signature, streams=self.options.streams)

    def _config(self) -> dict[str, Any]:
        # No pinning: in a container the runtime would pin every process to the same first core.
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": self.options.streams,
            "INFERENCE_NUM_THREADS": self.options.threads,
            "ENABLE_CPU_PINNING": False,
        }
        if self.options.precision != "default":
            config["INFERENCE_PRECISION_HINT"] = self.options.precision
        return config


class OpenVinoSession:
    """A loaded OpenVINO model with an inference request for each stream; a call beyond these waits."""

    def __init__(self, compiled: ov.CompiledModel, signature: Signature, *, streams: int = 1) -> None:
        self.signature = signature
        self._requests: queue.SimpleQueue[ov.InferRequest] | None = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())
        self._order = [spec.name for spec in signature.inputs]
        self._names = [spec.name for spec in signature.outputs]

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once; the outputs are copies that the next call leaves alone."""
        self.signature.check(inputs)
        requests = self._requests
        if requests is None:
            raise InputError("the session is closed; open it again")
        feed = {index: np.ascontiguousarray(inputs[name]) for index, name in enumerate(self._order)}
        request = requests.get()
        try:
            results = request.infer(feed, share_inputs=True, share_outputs=False)
            return {name: results[index] for index, name in enumerate(self._names)}
        finally:
            requests.put(request)

    def close(self) -> None:
        """Free the model."""
        self._requests = None


def _sizes(shape: tuple[Dim, ...]) -> list[int]:
    """Sizes as OpenVINO takes them; -1 is dynamic."""
    return [size if isinstance(size, int) else -1 for size in shape]


def _layers(compiled: ov.CompiledModel) -> Layers:
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        if _text(info, "layerType") in _COMPUTE_LAYERS:
            counts[_PRECISION_OF.get(_text(info, "runtimePrecision"), "fp32")] += 1
    return Layers.of(counts)


def _text(info: Any, key: str) -> str:
    value = info[key] if key in info else ""  # noqa: SIM401 (not a dict)
    return str(value.astype(str) if hasattr(value, "astype") else value)
