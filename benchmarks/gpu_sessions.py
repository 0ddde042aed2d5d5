"""What ``gpu_resnet18.py`` runs in processes of their own: a bare loop, ONNX Runtime, the chip's limits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from redline.backends import load_backend
from redline.core.artifact import Engine
from redline.core.tensor import Array, Signature


class BareEnqueue:
    """The least that runs an engine: one context, one stream, ``execute_async_v3`` in a loop between events."""

    def __init__(self, path: str) -> None:
        engine = Engine.read(Path(path))
        self.signature: Signature = engine.signature
        self._library = load_backend("tensorrt").library  # type: ignore[attr-defined]
        module = self._library.module
        self._runtime = module.Runtime(self._library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.path.read_bytes())
        self._context = self._engine.create_execution_context()

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        return self._run(inputs, 1)[0]

    def device_times(self, inputs: Mapping[str, Array], calls: int) -> list[float]:
        return self._run(inputs, calls)[1]

    def _run(self, inputs: Mapping[str, Array], calls: int) -> tuple[dict[str, Array], list[float]]:
        from redline.backends.cuda import DeviceMemory, Event, Stream

        stream, memory = Stream(), {}
        for name, array in inputs.items():
            self._context.set_input_shape(name, array.shape)
            memory[name] = DeviceMemory(array.nbytes)
            memory[name].fill(array)
        outputs = {}
        for spec in self.signature.outputs:
            outputs[spec.name] = np.empty(tuple(self._context.get_tensor_shape(spec.name)), spec.numpy_dtype)
            memory[spec.name] = DeviceMemory(outputs[spec.name].nbytes)
        for name, one in memory.items():
            self._context.set_tensor_address(name, one.pointer)
        for _ in range(3):
            self._context.execute_async_v3(stream.handle)
        marks = [Event(timed=True) for _ in range(calls + 1)]
        marks[0].record(stream)
        for mark in marks[1:]:
            self._context.execute_async_v3(stream.handle)
            mark.record(stream)
        for name, array in outputs.items():
            stream.download(array.ctypes.data, memory[name].pointer, array.nbytes)
        stream.synchronize()
        return outputs, [after.seconds_since(before) for before, after in pairwise(marks)]

    def close(self) -> None:
        self._context = self._engine = self._runtime = None


def open_bare(path: str) -> BareEnqueue:
    return BareEnqueue(path)


def open_onnxruntime_cuda(model: str, folder: str, precision: str) -> Any:
    import torch  # noqa: F401 (brings the CUDA libraries that ONNX Runtime loads)

    from redline.formats.onnx_file import read_onnx
    from redline.transforms.half import to_half

    source = read_onnx(Path(model))
    Path(folder).mkdir(parents=True, exist_ok=True)
    if precision == "fp16":
        source = to_half(source, Path(folder) / "half.onnx")
    backend = load_backend("onnxruntime-cuda", {"tf32": precision == "tf32"})
    return backend.load(backend.compile(source, Path(folder)))


def torch_versions() -> dict[str, str]:
    import torch

    return {"torch": torch.__version__, "cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
