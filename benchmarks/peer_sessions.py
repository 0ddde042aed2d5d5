"""What a peer made, as a session: the bare runtime with the peer's own options and a set number of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from redline.core.tensor import Array, Signature, TensorSpec


class Bare:
    """Calls a runtime with one array and names what comes back; checks nothing, so that it adds nothing."""

    def __init__(self, run: Callable[[Array], Any], shape: tuple[int | str, ...]) -> None:
        self.signature = Signature(
            (TensorSpec("input", shape, "float32"),), (TensorSpec("output", ("b", "c"), "float32"),)
        )
        self._run = run

    def __call__(self, inputs: Mapping[str, Array], /) -> dict[str, Array]:
        """Run once."""
        return {"output": np.asarray(self._run(next(iter(inputs.values()))))}

    def close(self) -> None:
        """Nothing to free."""


def open_product(path: str, kind: str, options: Mapping[str, Any], threads: int, shape: list[int | str]) -> Bare:
    """Open one product; ``kind`` is its format in the peer's ``result.json``."""
    runs = {
        "onnx": _onnx,
        "openvino-ir": _openvino,
        "torchscript": _torchscript,
        "torch-export": _torch_export,
        "aoti-package": _aoti,
    }
    return Bare(runs[kind](path, dict(options), threads), tuple(shape))


def _onnx(path: str, options: dict[str, Any], threads: int) -> Callable[[Array], Any]:
    import onnxruntime as ort

    session_options = ort.SessionOptions()
    session_options.intra_op_num_threads = threads
    session_options.log_severity_level = 3
    session = ort.InferenceSession(path, session_options, providers=["CPUExecutionProvider"], **options)
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _openvino(path: str, options: dict[str, Any], threads: int) -> Callable[[Array], Any]:
    import openvino as ov

    config = {**options, "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda x: request.infer({0: x}, share_inputs=True)[0]


def _torch(run: Callable[..., Any], threads: int) -> Callable[[Array], Any]:
    import torch

    torch.set_num_threads(threads)

    def call(x: Array) -> Any:
        with torch.inference_mode():
            answer = run(torch.from_numpy(x))
        return (answer[0] if isinstance(answer, (list, tuple)) else answer).numpy()

    return call


def _torchscript(path: str, options: dict[str, Any], threads: int) -> Callable[[Array], Any]:
    import torch

    return _torch(torch.jit.load(path, **options).eval(), threads)


def _torch_export(path: str, options: dict[str, Any], threads: int) -> Callable[[Array], Any]:
    import torch

    return _torch(torch.export.load(path, **options).module(), threads)


def _aoti(path: str, options: dict[str, Any], threads: int) -> Callable[[Array], Any]:
    import torch

    return _torch(torch._inductor.aoti_load_package(path, **options), threads)
